# Programs draw tiles from a counter until none is left; the device's SM count is kept between calls.
import torch
import triton
import triton.language as tl

_NUM_SMS = {}


def num_sms(device):
    if device not in _NUM_SMS:
        _NUM_SMS[device] = torch.cuda.get_device_properties(device).multi_processor_count
    return _NUM_SMS[device]


@triton.jit
def _visible(cols, rows, N, shift, CAUSAL: tl.constexpr):
    ok = (cols < N)[None, :]
    if CAUSAL:
        return ok & (cols[None, :] <= rows[:, None] + shift)
    else:
        return ok


@triton.jit
def queue(counter, Q, K, V, O, L, scale, s, H, M, N, tiles_m, total, CAUSAL: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    tile = tl.atomic_add(counter, 1)
    while tile < total:
        i = tiles_m - 1 - tile // (total // tiles_m)
        bh = tile % (total // tiles_m)
        b = (bh // H).to(tl.int64)
        h = (bh % H).to(tl.int64)
        rows = i * BM + tl.arange(0, BM)
        d = tl.arange(0, D)
        q = tl.load(Q + b * s[0] + h * s[1] + rows[:, None].to(tl.int64) * s[2] + d[None, :], mask=rows[:, None] < M, other=0.0)
        m = tl.full([BM], float("-inf"), tl.float32)
        l = tl.zeros([BM], tl.float32)
        acc = tl.zeros([BM, D], tl.float32)
        hi = N
        if CAUSAL:
            hi = tl.minimum(N, i * BM + BM + N - M)
        for n in range(0, hi, BN):
            cols = n + tl.arange(0, BN)
            k = tl.load(K + b * s[3] + h * s[4] + cols[:, None].to(tl.int64) * s[5] + d[None, :], mask=cols[:, None] < N, other=0.0)
            sc = tl.dot(q, tl.permute(k, (1, 0)))
            sc = tl.where(_visible(cols, rows, N, N - M, CAUSAL), sc, float("-inf"))
            new = tl.maximum(m, tl.max(sc, 1))
            p = tl.exp2((sc - new[:, None]) * scale)
            a = tl.exp2((m - new) * scale)
            l = l * a + tl.sum(p, 1)
            v = tl.load(V + b * s[6] + h * s[7] + cols[:, None].to(tl.int64) * s[8] + d[None, :], mask=cols[:, None] < N, other=0.0)
            acc = tl.dot(p.to(tl.bfloat16), v, acc * a[:, None])
            m = new
        tl.store(O + b * s[9] + h * s[10] + rows[:, None].to(tl.int64) * s[11] + d[None, :], (acc / l[:, None]).to(tl.bfloat16), mask=rows[:, None] < M)
        tl.store(L + bh.to(tl.int64) * M + rows, (m * scale + tl.log2(l)) * 0.6931471805599453, mask=rows < M)
        tile = tl.atomic_add(counter, 1)


def attention(q, k, v, out, lse, *, causal, scale):
    B, H, M, D = q.shape
    N = k.shape[2]
    BM = 128
    tiles = triton.cdiv(M, BM)
    counter = torch.zeros(1, dtype=torch.int32, device=q.device)
    strides = tuple(x for t in (q, k, v, out) for x in t.stride()[:3])
    queue[(min(num_sms(q.device), tiles * B * H), 1, 1)](counter, q, k, v, out, lse, scale * 1.4426950408889634, strides, H, M, N, tiles, tiles * B * H,
                                                          CAUSAL=causal, D=D, BM=BM, BN=128, num_warps=8, num_stages=2)
