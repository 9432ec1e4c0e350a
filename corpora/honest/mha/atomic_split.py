# Keys in two splits that meet in float32 atomics: lse first, then sums of weighted values, then a rounding kernel.
import torch
import triton
import triton.language as tl


@triton.jit
def tile(Q, b, h, s0, s1, s2, rows, n):
    d = tl.arange(0, 128)
    return tl.load(Q + b * s0 + h * s1 + rows[:, None].to(tl.int64) * s2 + d[None, :], mask=(rows < n)[:, None], other=0.0)


@triton.jit
def scores(q, k, rows, cols, M, N, c, CAUSAL: tl.constexpr):
    s = tl.dot(q, k.T) * c
    keep = (cols < N)[None, :]
    if CAUSAL:
        keep = keep & (rows[:, None] - cols[None, :] >= M - N)
    return tl.where(keep, s, -float("inf"))


@triton.jit
def find_lse(Q, K, L2, sq, sk, H, M, N, c, CAUSAL: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    z = tl.program_id(1)
    b, h = (z // H).to(tl.int64), (z % H).to(tl.int64)
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    q = tile(Q, b, h, sq[0], sq[1], sq[2], rows, M)
    m = tl.full([BM], -float("inf"), tl.float32)
    l = tl.zeros([BM], tl.float32)
    for n in range(0, tl.minimum(N, tl.max(rows) + 1 + N - M) if CAUSAL else N, BN):
        cols = n + tl.arange(0, BN)
        s = scores(q, tile(K, b, h, sk[0], sk[1], sk[2], cols, N), rows, cols, M, N, c, CAUSAL)
        new = tl.maximum(m, tl.max(s, 1))
        l = l * tl.exp2(m - new) + tl.sum(tl.exp2(s - new[:, None]), 1)
        m = new
    tl.store(L2 + z.to(tl.int64) * M + rows, m + tl.log2(l), mask=rows < M)


@triton.jit
def add_values(Q, K, V, L2, Acc, sq, sk, sv, H, M, N, c, per, CAUSAL: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    z = tl.program_id(1)
    b, h = (z // H).to(tl.int64), (z % H).to(tl.int64)
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    q = tile(Q, b, h, sq[0], sq[1], sq[2], rows, M)
    at = z.to(tl.int64) * M + rows
    lse = tl.load(L2 + at, mask=rows < M, other=0.0)
    acc = tl.zeros([BM, 128], tl.float32)
    start = tl.program_id(2) * per
    stop = tl.minimum(start + per, tl.minimum(N, tl.max(rows) + 1 + N - M) if CAUSAL else N)
    for n in range(start, stop, BN):
        cols = n + tl.arange(0, BN)
        s = scores(q, tile(K, b, h, sk[0], sk[1], sk[2], cols, N), rows, cols, M, N, c, CAUSAL)
        p = tl.exp2(s - lse[:, None])
        acc = tl.dot(p.to(tl.bfloat16), tile(V, b, h, sv[0], sv[1], sv[2], cols, N), acc)
    tl.atomic_add(Acc + at[:, None] * 128 + tl.arange(0, 128)[None, :], acc, mask=(rows < M)[:, None], sem="relaxed")


@triton.jit
def finish(Acc, L2, O, L, so, H, M, BM: tl.constexpr):
    z = tl.program_id(1)
    b, h = (z // H).to(tl.int64), (z % H).to(tl.int64)
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    d = tl.arange(0, 128)
    at = z.to(tl.int64) * M + rows
    ok = rows < M
    acc = tl.load(Acc + at[:, None] * 128 + d[None, :], mask=ok[:, None])
    tl.store(O + b * so[0] + h * so[1] + rows[:, None].to(tl.int64) * so[2] + d[None, :], acc.to(tl.bfloat16), mask=ok[:, None])
    tl.store(L + at, tl.load(L2 + at, mask=ok) * 0.6931471805599453, mask=ok)


def attention(q, k, v, out, lse, *, causal, scale):
    B, H, M, D = q.shape
    N, c = k.shape[2], scale * 1.4426950408889634
    lse2 = torch.empty_like(lse)
    acc = torch.zeros((B, H, M, D), device=q.device, dtype=torch.float32)
    tiles = triton.cdiv(M, 128)
    per = triton.cdiv(triton.cdiv(N, 2), 64) * 64
    opts = dict(CAUSAL=causal, BM=128, BN=64, num_warps=8)
    find_lse[(tiles, B * H)](q, k, lse2, q.stride(), k.stride(), H, M, N, c, **opts)
    add_values[(tiles, B * H, 2)](q, k, v, lse2, acc, q.stride(), k.stride(), v.stride(), H, M, N, c, per, **opts)
    finish[(tiles, B * H)](acc, lse2, out, lse, out.stride(), H, M, BM=128)
