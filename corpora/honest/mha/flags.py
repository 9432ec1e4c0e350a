# One launch: the programs of the first split wait for those of the others, which raise a flag each, and combine.
import torch
import triton
import triton.language as tl


@triton.jit
def producers(Q, K, V, P, M, L, Flags, Out, Lse, scale, qb, qh, qm, kb, kh, kn, vb, vh, vn, ob, oh, om, H, n_q, n_kv, per_split,
            CAUSAL: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, SPLITS: tl.constexpr):
    split = tl.num_programs(0) - 1 - tl.program_id(0)  # those that wait start last
    tile = tl.program_id(1)
    bh = tl.program_id(2)
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
    flag = Flags + bh * tl.num_programs(1) + tile
    here = rows[:, None] < n_q
    if split > 0:
        at = (bh.to(tl.int64) * (SPLITS - 1) + split - 1) * n_q + rows
        tl.store(P + at[:, None] * D + d[None, :], acc, mask=here)
        tl.store(M + at, m, mask=rows < n_q)
        tl.store(L + at, l, mask=rows < n_q)
        tl.debug_barrier()
        tl.atomic_add(flag, 1, sem="release", scope="gpu")
    else:
        while tl.atomic_add(flag, 0, sem="acquire", scope="gpu") < SPLITS - 1:
            pass
        for other in range(SPLITS - 1):
            at = (bh.to(tl.int64) * (SPLITS - 1) + other) * n_q + rows
            its = tl.load(M + at, mask=rows < n_q, other=-1e30, volatile=True)
            top = tl.maximum(m, its)
            mine, theirs = tl.exp(m - top), tl.exp(its - top)
            l = l * mine + tl.load(L + at, mask=rows < n_q, other=0.0, volatile=True) * theirs
            part = tl.load(P + at[:, None] * D + d[None, :], mask=here, other=0.0, volatile=True)
            acc = acc * mine[:, None] + part * theirs[:, None]
            m = top
        tl.store(Out + b * ob + h * oh + rows[:, None].to(tl.int64) * om + d[None, :], (acc / l[:, None]).to(Out.dtype.element_ty), mask=here)
        tl.store(Lse + bh.to(tl.int64) * n_q + rows, m + tl.log(l), mask=rows < n_q)


def attention(q, k, v, out, lse, *, causal: bool, scale: float) -> None:
    B, H, M, D = q.shape
    N = k.shape[2]
    splits = 2
    per_split = triton.cdiv(triton.cdiv(N, splits), 64) * 64
    p = torch.empty((B, H, splits - 1, M, D), dtype=torch.float32, device=q.device)
    m = torch.empty((B, H, splits - 1, M), dtype=torch.float32, device=q.device)
    l = torch.empty_like(m)
    flags = torch.zeros((B * H * triton.cdiv(M, 64),), dtype=torch.int32, device=q.device)
    producers[(splits, triton.cdiv(M, 64), B * H)](
        q, k, v, p, m, l, flags, out, lse, scale, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *out.stride()[:3], H, M, N, per_split,
        CAUSAL=causal, D=D, BM=64, BN=64, SPLITS=splits, num_warps=4, num_stages=2)
