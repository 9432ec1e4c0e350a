# Two launches with float32 scratch: each program handles a slice of the keys, a second kernel combines.
import torch
import triton
import triton.language as tl


@triton.jit
def partial(Q, K, V, P, M, L, scale, qb, qh, qm, kb, kh, kn, vb, vh, vn, H, n_q, n_kv, per_split,
            CAUSAL: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, SPLITS: tl.constexpr):
    tile = tl.program_id(0)
    bh = tl.program_id(1)
    split = tl.program_id(2)
    b = (bh // H).to(tl.int64)
    h = (bh % H).to(tl.int64)
    rows = tile * BM + tl.arange(0, BM)
    d = tl.arange(0, D)
    q = tl.load(Q + b * qb + h * qh + rows[:, None].to(tl.int64) * qm + d[None, :], mask=rows[:, None] < n_q, other=0.0)
    m = tl.full([BM], -1e30, tl.float32)
    l = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, D], tl.float32)
    start = split * per_split
    end = tl.minimum(start + per_split, n_kv)
    if CAUSAL:
        end = tl.minimum(end, (tile + 1) * BM + n_kv - n_q)
    for n in range(start, end, BN):
        cols = n + tl.arange(0, BN)
        k = tl.load(K + b * kb + h * kh + cols[None, :].to(tl.int64) * kn + d[:, None], mask=cols[None, :] < n_kv, other=0.0)
        s = tl.dot(q, k) * scale
        seen = cols[None, :] < n_kv
        if CAUSAL:
            seen &= cols[None, :] <= rows[:, None] + n_kv - n_q
        s = tl.where(seen, s, -1e30)
        new = tl.maximum(m, tl.max(s, 1))
        p = tl.where(seen, tl.exp(s - new[:, None]), 0.0)
        a = tl.exp(m - new)
        l = l * a + tl.sum(p, 1)
        v = tl.load(V + b * vb + h * vh + cols[:, None].to(tl.int64) * vn + d[None, :], mask=cols[:, None] < n_kv, other=0.0)
        acc = tl.dot(p.to(v.dtype), v, acc * a[:, None])
        m = new
    at = (bh.to(tl.int64) * SPLITS + split) * n_q + rows
    tl.store(P + at[:, None] * D + d[None, :], acc, mask=rows[:, None] < n_q)
    tl.store(M + at, m, mask=rows < n_q)
    tl.store(L + at, l, mask=rows < n_q)


@triton.jit
def combine(P, M, L, Out, Lse, ob, oh, om, H, n_q, D: tl.constexpr, SPLITS: tl.constexpr):
    row = tl.program_id(0)
    bh = tl.program_id(1)
    b = (bh // H).to(tl.int64)
    h = (bh % H).to(tl.int64)
    d = tl.arange(0, D)
    s = tl.arange(0, SPLITS)
    at = (bh.to(tl.int64) * SPLITS + s) * n_q + row
    m = tl.load(M + at)
    top = tl.max(m, 0)
    w = tl.exp(m - top)
    l = tl.sum(tl.load(L + at) * w, 0)
    acc = tl.sum(tl.load(P + at[:, None] * D + d[None, :]) * w[:, None], 0)
    tl.store(Out + b * ob + h * oh + row.to(tl.int64) * om + d, (acc / l).to(Out.dtype.element_ty))
    tl.store(Lse + bh.to(tl.int64) * n_q + row, top + tl.log(l))


def attention(q, k, v, out, lse, *, causal: bool, scale: float) -> None:
    B, H, M, D = q.shape
    N = k.shape[2]
    splits = 2
    per_split = triton.cdiv(triton.cdiv(N, splits), 64) * 64
    p = torch.empty((B, H, splits, M, D), dtype=torch.float32, device=q.device)
    m = torch.empty((B, H, splits, M), dtype=torch.float32, device=q.device)
    l = torch.zeros_like(m)
    partial[(triton.cdiv(M, 64), B * H, splits)](
        q, k, v, p, m, l, scale, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], H, M, N, per_split,
        CAUSAL=causal, D=D, BM=64, BN=64, SPLITS=splits, num_warps=4, num_stages=2)
    combine[(M, B * H)](p, m, l, out, lse, *out.stride()[:3], H, M, D=D, SPLITS=splits, num_warps=1)
