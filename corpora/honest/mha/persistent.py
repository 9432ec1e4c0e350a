# A persistent grid: four programs per SM walk over tiles; tensor descriptors made on the device for K and V.
import torch
import triton
import triton.language as tl


@triton.jit
def kernel(Q, K, V, O, L, scale, qb, qh, qm, kb, kh, kn, vb, vh, vn, ob, oh, om, H, n_q, n_kv, tiles_m, tiles,
           CAUSAL: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    d = tl.arange(0, D)
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0)):
        bh = tile // tiles_m
        block = tiles_m - 1 - tile % tiles_m
        b = (bh // H).to(tl.int64)
        h = (bh % H).to(tl.int64)
        rows = block * BM + tl.arange(0, BM)
        q = tl.load(Q + b * qb + h * qh + rows[:, None].to(tl.int64) * qm + d[None, :], mask=rows[:, None] < n_q, other=0.0)
        kd = tl.make_tensor_descriptor(K + b * kb + h * kh, [n_kv, D], [kn, 1], [BN, D])
        vd = tl.make_tensor_descriptor(V + b * vb + h * vh, [n_kv, D], [vn, 1], [BN, D])
        m = tl.full([BM], float("-inf"), tl.float32)
        l = tl.zeros([BM], tl.float32)
        acc = tl.zeros([BM, D], tl.float32)
        end = n_kv
        if CAUSAL:
            end = tl.minimum(n_kv, (block + 1) * BM + n_kv - n_q)
        for n in tl.range(0, end, BN):
            k = kd.load([n, 0])
            s = tl.dot(q, k.T) * (scale * 1.44269504)
            cols = n + tl.arange(0, BN)
            seen = cols[None, :] < n_kv
            if CAUSAL:
                seen = seen & (cols[None, :] <= rows[:, None] + n_kv - n_q)
            s = tl.where(seen, s, float("-inf"))
            new = tl.maximum(m, tl.max(s, 1))
            p = tl.exp2(s - new[:, None])
            a = tl.exp2(m - new)
            l = l * a + tl.sum(p, 1)
            acc = tl.dot(p.to(tl.bfloat16), vd.load([n, 0]), acc * a[:, None])
            m = new
        tl.store(O + b * ob + h * oh + rows[:, None].to(tl.int64) * om + d[None, :], (acc / l[:, None]).to(tl.bfloat16), mask=rows[:, None] < n_q)
        tl.store(L + bh.to(tl.int64) * n_q + rows, (m + tl.log2(l)) * 0.69314718, mask=rows < n_q)


def attention(q, k, v, out, lse, *, causal: bool, scale: float) -> None:
    B, H, M, D = q.shape
    triton.set_allocator(lambda size, align, stream: torch.empty(size, dtype=torch.int8, device=q.device))
    tiles_m = triton.cdiv(M, 128)
    tiles = tiles_m * B * H
    sms = torch.cuda.get_device_properties(q.device).multi_processor_count
    kernel[(min(4 * sms, tiles),)](
        q, k, v, out, lse, scale, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *out.stride()[:3], H, M, k.shape[2], tiles_m, tiles,
        CAUSAL=causal, D=D, BM=128, BN=64, num_warps=8, num_stages=3)
