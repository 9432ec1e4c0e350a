# The main kernel leaves maxima and sums in scratch; a second, one-dimensional kernel makes lse of them.
import torch
import triton
import triton.language as tl


@triton.jit
def main_kernel(Q, K, V, O, Max, Sum, c, qb, qh, qm, kb, kh, kn, vb, vh, vn, ob, oh, om, H, M, N,
                CAUSAL: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    i, bh = tl.program_id(0), tl.program_id(1)
    b, h = (bh // H).to(tl.int64), (bh % H).to(tl.int64)
    r = i * BM + tl.arange(0, BM)
    d = tl.arange(0, D)
    q = tl.load(Q + b * qb + h * qh + r[:, None].to(tl.int64) * qm + d, mask=r[:, None] < M, other=0.0)
    m = tl.full([BM], float("-inf"), tl.float32)
    l = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, D], tl.float32)
    hi = tl.minimum(N, i * BM + BM + N - M) if CAUSAL else N
    for n in range(0, hi, BN):
        j = n + tl.arange(0, BN)
        k = tl.load(K + b * kb + h * kh + j[None, :].to(tl.int64) * kn + d[:, None], mask=j[None, :] < N, other=0.0)
        s = tl.dot(q, k) * c
        s = tl.where(j[None, :] < N, s, float("-inf"))
        if CAUSAL:
            s = tl.where(j[None, :] <= r[:, None] + N - M, s, float("-inf"))
        t = tl.maximum(m, tl.max(s, 1))
        p = tl.exp2(s - t[:, None])
        f = tl.exp2(m - t)
        l = l * f + tl.sum(p, 1)
        v = tl.load(V + b * vb + h * vh + j[:, None].to(tl.int64) * vn + d, mask=j[:, None] < N, other=0.0)
        acc = tl.dot(p.to(tl.bfloat16), v, acc * f[:, None])
        m = t
    at = bh.to(tl.int64) * M + r
    tl.store(O + b * ob + h * oh + r[:, None].to(tl.int64) * om + d, (acc / l[:, None]).to(tl.bfloat16), mask=r[:, None] < M)
    tl.store(Max + at, m, mask=r < M)
    tl.store(Sum + at, l, mask=r < M)


@triton.jit
def lse_kernel(Max, Sum, L, total, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    ok = at < total
    m = tl.load(Max + at, mask=ok, eviction_policy="evict_first")
    l = tl.load(Sum + at, mask=ok, other=1.0, cache_modifier=".cg")
    tl.store(L + at, 0.6931471805599453 * (m + tl.log2(l)), mask=ok, cache_modifier=".cs")


def attention(q, k, v, out, lse, *, causal, scale):
    B, H, M, D = q.shape
    scratch = torch.empty((2, B, H, M), dtype=torch.float32, device=q.device)
    main_kernel[(triton.cdiv(M, 128), B * H)](
        q, k, v, out, scratch[0], scratch[1], scale * 1.4426950408889634, *q.stride()[:3], *k.stride()[:3],
        *v.stride()[:3], *out.stride()[:3], H, M, k.shape[2], CAUSAL=causal, D=D, BM=128, BN=64, num_warps=8, num_stages=2)
    lse_kernel[(triton.cdiv(lse.numel(), 1024),)](*scratch, lse, lse.numel(), BLOCK=1024)
