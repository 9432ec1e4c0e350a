# The output is normalised at every step: the state is lse and a weighted mean, and no sum is kept.
import triton
import triton.language as tl


@triton.jit
def log_add(a, b):
    top = tl.maximum(a, b)
    return top + tl.log2(tl.exp2(a - top) + tl.exp2(b - top))


@triton.jit
def mean_so_far(Q, K, V, O, L, c, qb, qh, qm, kb, kh, kn, vb, vh, vn, ob, oh, om, H, M, N,
                CAUSAL: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    i, bh = tl.program_id(0), tl.program_id(1)
    b, h = (bh // H).to(tl.int64), (bh % H).to(tl.int64)
    r = i * BM + tl.arange(0, BM)
    d = tl.arange(0, D)
    q = tl.load(Q + b * qb + h * qh + r[:, None].to(tl.int64) * qm + d, mask=r[:, None] < M, other=0.0)
    lse = tl.full([BM], float("-inf"), tl.float32)
    mean = tl.zeros([BM, D], tl.float32)
    hi = tl.minimum(N, i * BM + BM + N - M) if CAUSAL else N
    for n in range(0, hi, BN):
        j = n + tl.arange(0, BN)
        k = tl.load(K + b * kb + h * kh + j[None, :].to(tl.int64) * kn + d[:, None], mask=j[None, :] < N, other=0.0)
        s = tl.dot(q, k) * c
        seen = j[None, :] < N
        if CAUSAL:
            seen = seen & (j[None, :] <= r[:, None] + N - M)
        s = tl.where(seen, s, float("-inf"))
        top = tl.maximum(tl.max(s, 1), -1e9)
        p = tl.exp2(s - top[:, None])
        new = log_add(lse, top + tl.log2(tl.sum(p, 1)))
        v = tl.load(V + b * vb + h * vh + j[:, None].to(tl.int64) * vn + d, mask=j[:, None] < N, other=0.0)
        mean = mean * tl.exp2(lse - new)[:, None] + tl.dot(p.to(tl.bfloat16), v) * tl.exp2(top - new)[:, None]
        lse = new
    tl.store(O + b * ob + h * oh + r[:, None].to(tl.int64) * om + d, mean.to(tl.bfloat16), mask=r[:, None] < M)
    tl.store(L + bh.to(tl.int64) * M + r, lse * 0.6931471805599453, mask=r < M)


def attention(q, k, v, out, lse, *, causal, scale):
    B, H, M, D = q.shape
    mean_so_far[(triton.cdiv(M, 128), B * H)](
        q, k, v, out, lse, scale * 1.4426950408889634, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
        *out.stride()[:3], H, M, k.shape[2], CAUSAL=causal, D=D, BM=128, BN=64, num_warps=8, num_stages=2)
