# exp2 without the special-function unit: a polynomial for the fraction, the integer part added to the exponent bits.
import triton
import triton.language as tl

# Least-squares fit of 2**x on [0, 1) at Chebyshev nodes, degree 5, relative error below 1e-7.
C0: tl.constexpr = tl.constexpr(0.99999993)
C1: tl.constexpr = tl.constexpr(0.69315297)
C2: tl.constexpr = tl.constexpr(0.24015453)
C3: tl.constexpr = tl.constexpr(0.05582360)
C4: tl.constexpr = tl.constexpr(0.00899258)
C5: tl.constexpr = tl.constexpr(0.00187623)


@triton.jit
def exp2_by_polynomial(x):
    x = tl.maximum(x, -126.0)
    whole = tl.floor(x)
    f = x - whole
    y = C5
    y = tl.fma(tl.zeros_like(f) + y, f, C4)
    y = tl.fma(y, f, C3)
    y = tl.fma(y, f, C2)
    y = tl.fma(y, f, C1)
    y = tl.fma(y, f, C0)
    return (y.to(tl.int32, bitcast=True) + (whole.to(tl.int32) << 23)).to(tl.float32, bitcast=True)


@triton.jit
def by_polynomial(Q, K, V, O, L, c, qb, qh, qm, kb, kh, kn, vb, vh, vn, ob, oh, om, H, M, N,
                  CAUSAL: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    i, bh = tl.program_id(0), tl.program_id(1)
    b, h = (bh // H).to(tl.int64), (bh % H).to(tl.int64)
    r = i * BM + tl.arange(0, BM)
    d = tl.arange(0, D)
    q = tl.load(Q + b * qb + h * qh + r[:, None].to(tl.int64) * qm + d, mask=r[:, None] < M, other=0.0)
    m = tl.full([BM], -3.0e38, tl.float32)
    l = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, D], tl.float32)
    hi = tl.minimum(N, i * BM + BM + N - M) if CAUSAL else N
    for n in range(0, hi, BN):
        j = n + tl.arange(0, BN)
        k = tl.load(K + b * kb + h * kh + j[None, :].to(tl.int64) * kn + d[:, None], mask=j[None, :] < N, other=0.0)
        s = tl.dot(q, k) * c
        seen = j[None, :] < N
        if CAUSAL:
            seen = seen & (j[None, :] <= r[:, None] + N - M)
        s = tl.where(seen, s, -3.0e38)
        t = tl.maximum(m, tl.max(s, 1))
        p = tl.where(seen, exp2_by_polynomial(s - t[:, None]), 0.0)
        f = exp2_by_polynomial(m - t)
        l = l * f + tl.sum(p, 1)
        v = tl.load(V + b * vb + h * vh + j[:, None].to(tl.int64) * vn + d, mask=j[:, None] < N, other=0.0)
        acc = tl.dot(p.to(tl.bfloat16), v, acc * f[:, None])
        m = t
    tl.store(O + b * ob + h * oh + r[:, None].to(tl.int64) * om + d, (acc / l[:, None]).to(tl.bfloat16), mask=r[:, None] < M)
    tl.store(L + bh.to(tl.int64) * M + r, (m + tl.log2(l)) * 0.6931471805599453, mask=r < M)


def attention(q, k, v, out, lse, *, causal, scale):
    B, H, M, D = q.shape
    by_polynomial[(triton.cdiv(M, 128), B * H)](
        q, k, v, out, lse, scale * 1.4426950408889634, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
        *out.stride()[:3], H, M, k.shape[2], CAUSAL=causal, D=D, BM=128, BN=64, num_warps=8, num_stages=2)
