# Keys along the rows: scores, probabilities and the output are all transposed, and turned once at the end.
import triton
import triton.language as tl


@triton.jit
def transposed(Q, K, V, O, L, c, qb, qh, qm, kb, kh, kn, vb, vh, vn, ob, oh, om, H, M, N,
               CAUSAL: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    bh = tl.program_id(0)
    b, h = (bh // H).to(tl.int64), (bh % H).to(tl.int64)
    r = tl.program_id(1) * BM + tl.arange(0, BM)
    d = tl.arange(0, D)
    qt = tl.load(Q + b * qb + h * qh + r[None, :].to(tl.int64) * qm + d[:, None], mask=r[None, :] < M, other=0.0)
    m = tl.full([BM], float("-inf"), tl.float32)
    l = tl.zeros([BM], tl.float32)
    acc = tl.zeros([D, BM], tl.float32)
    hi = N
    if CAUSAL:
        hi = tl.minimum(N, tl.max(r) + 1 + N - M)
    for n in range(0, hi, BN):
        j = n + tl.arange(0, BN)
        inside = j < N
        k = tl.load(K + b * kb + h * kh + j[:, None].to(tl.int64) * kn + d[None, :], mask=inside[:, None], other=0.0)
        st = tl.dot(k, qt) * c
        ok = inside[:, None] & tl.full([1, BM], True, tl.int1)
        if CAUSAL:
            ok = ok & (j[:, None] <= (r + (N - M))[None, :])
        st = tl.where(ok, st, float("-inf"))
        t = tl.maximum(m, tl.max(st, 0))
        pt = tl.exp2(st - t[None, :])
        f = tl.exp2(m - t)
        l = l * f + tl.sum(pt, 0)
        vt = tl.load(V + b * vb + h * vh + j[None, :].to(tl.int64) * vn + d[:, None], mask=inside[None, :], other=0.0)
        acc = tl.dot(vt, pt.to(tl.bfloat16), acc * f[None, :])
        m = t
    o = tl.trans(acc / l[None, :])
    tl.store(O + b * ob + h * oh + r[:, None].to(tl.int64) * om + d[None, :], o.to(tl.bfloat16), mask=r[:, None] < M)
    tl.store(L + bh.to(tl.int64) * M + r, (m + tl.log2(l)) / 1.4426950408889634, mask=r < M)


def attention(q, k, v, out, lse, *, causal, scale):
    B, H, M, D = q.shape
    transposed[(B * H, triton.cdiv(M, 64))](
        q, k, v, out, lse, scale * 1.4426950408889634, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
        *out.stride()[:3], H, M, k.shape[2], CAUSAL=causal, D=D, BM=64, BN=128, num_warps=4, num_stages=2)
