# Maximum and sum of a block in one reduction over pairs; 64-bit offsets everywhere; outputs cleared beforehand.
import triton
import triton.language as tl


@triton.jit
def merge(m0, l0, m1, l1):
    m = tl.maximum(m0, m1)
    base = tl.where(m == float("-inf"), 0.0, m)
    return m, l0 * tl.exp2(m0 - base) + l1 * tl.exp2(m1 - base)


@triton.jit
def joint(Q, K, V, O, L, c, qb, qh, qm, kb, kh, kn, vb, vh, vn, ob, oh, om, H, M, N,
          CAUSAL: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    i, bh = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    b, h = bh // H, bh % H
    r = i * BM + tl.arange(0, BM).to(tl.int64)
    d = tl.arange(0, D).to(tl.int64)
    q = tl.load(Q + b * qb + h * qh + r[:, None].to(tl.int64) * qm + d[None, :], mask=r[:, None] < M, other=0.0)
    m = tl.full([BM], float("-inf"), tl.float32)
    l = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, D], tl.float32)
    hi = tl.minimum(N, i * BM + BM + N - M) if CAUSAL else N.to(tl.int64)
    for n in range(0, hi, BN):
        j = n + tl.arange(0, BN)
        k = tl.load(K + b * kb + h * kh + j[None, :].to(tl.int64) * kn + d[:, None], mask=j[None, :] < N, other=0.0)
        s = tl.dot(q, k) * c
        seen = j[None, :] < N
        if CAUSAL:
            seen = seen & (j[None, :] <= r[:, None] + N - M)
        s = tl.where(seen, s, float("-inf"))
        block_m, block_l = tl.reduce((s, tl.where(seen, 1.0, 0.0) + tl.zeros_like(s)), 1, merge)
        t, l = merge(m, l, block_m, block_l)
        f = tl.exp2(m - t)
        p = tl.exp2(s - t[:, None])
        v = tl.load(V + b * vb + h * vh + j[:, None].to(tl.int64) * vn + d[None, :], mask=j[:, None] < N, other=0.0)
        acc = tl.dot(p.to(tl.bfloat16), v, acc * f[:, None])
        m = t
    tl.store(O + b * ob + h * oh + r[:, None].to(tl.int64) * om + d[None, :], (acc / l[:, None]).to(tl.bfloat16), mask=r[:, None] < M)
    tl.store(L + bh * M + r, (m + tl.log2(l)) * 0.6931471805599453, mask=r < M)


def attention(q, k, v, out, lse, *, causal, scale):
    B, H, M, D = q.shape
    out.zero_()
    lse.fill_(float("-inf"))
    joint[(triton.cdiv(M, 128), B * H)](
        q, k, v, out, lse, scale * 1.4426950408889634, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
        *out.stride()[:3], H, M, k.shape[2], CAUSAL=causal, D=D, BM=128, BN=64, num_warps=8, num_stages=2)
