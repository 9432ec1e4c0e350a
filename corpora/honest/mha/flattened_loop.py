# One loop over all blocks of keys of all tiles of a persistent program; the state starts anew where a tile does.
import torch
import triton
import triton.language as tl


@triton.jit
def flat(Q, K, V, O, L, c, qb, qh, qm, kb, kh, kn, vb, vh, vn, ob, oh, om, H, M, N, tiles_m, tiles,
         CAUSAL: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    d = tl.arange(0, D)
    blocks = tl.cdiv(N, BN)
    mine = tl.cdiv(tiles - tl.program_id(0), tl.num_programs(0))
    m = tl.full([BM], float("-inf"), tl.float32)
    l = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, D], tl.float32)
    for step in tl.range(0, mine * blocks):
        tile = tl.program_id(0) + (step // blocks) * tl.num_programs(0)
        block = step % blocks
        bh = tile // tiles_m
        b, h = (bh // H).to(tl.int64), (bh % H).to(tl.int64)
        r = (tile % tiles_m) * BM + tl.arange(0, BM)
        if block == 0:
            m = tl.full([BM], float("-inf"), tl.float32)
            l = tl.zeros([BM], tl.float32)
            acc = tl.zeros([BM, D], tl.float32)
        if not CAUSAL or block * BN < (tile % tiles_m) * BM + BM + N - M:
            q = tl.load(Q + b * qb + h * qh + r[:, None].to(tl.int64) * qm + d, mask=r[:, None] < M, other=0.0)
            j = block * BN + tl.arange(0, BN)
            k = tl.load(K + b * kb + h * kh + j[None, :].to(tl.int64) * kn + d[:, None], mask=j[None, :] < N, other=0.0)
            s = tl.dot(q, k) * c
            seen = j[None, :] < N
            if CAUSAL:
                seen = seen & (j[None, :] <= r[:, None] + N - M)
            s = tl.where(seen, s, float("-inf"))
            t = tl.maximum(m, tl.max(s, 1))
            p = tl.exp2(s - t[:, None])
            f = tl.exp2(m - t)
            l = l * f + tl.sum(p, 1)
            v = tl.load(V + b * vb + h * vh + j[:, None].to(tl.int64) * vn + d, mask=j[:, None] < N, other=0.0)
            acc = tl.dot(p.to(tl.bfloat16), v, acc * f[:, None])
            m = t
        if block == blocks - 1:
            tl.store(O + b * ob + h * oh + r[:, None].to(tl.int64) * om + d, (acc / l[:, None]).to(tl.bfloat16), mask=r[:, None] < M)
            tl.store(L + bh.to(tl.int64) * M + r, (m + tl.log2(l)) * 0.6931471805599453, mask=r < M)


def attention(q, k, v, out, lse, *, causal, scale):
    B, H, M, D = q.shape
    tiles_m = triton.cdiv(M, 128)
    tiles = tiles_m * B * H
    sms = torch.cuda.get_device_properties(torch.cuda.current_device()).multi_processor_count
    flat[(min(8 * sms, tiles),)](
        q, k, v, out, lse, scale * 1.4426950408889634, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
        *out.stride()[:3], H, M, k.shape[2], tiles_m, tiles, CAUSAL=causal, D=D, BM=128, BN=64, num_warps=8, num_stages=2)
