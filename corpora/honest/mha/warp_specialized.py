# Warp-specialised loop over descriptors made on the device; the epilogue stores halves of the tile.
import torch
import triton
import triton.language as tl


def scratch_for_descriptors(size: int, alignment: int, stream):
    return torch.empty(size, device="cuda", dtype=torch.int8)


@triton.jit
def specialised(Q, K, V, O, L, c, qb, qh, qm, kb, kh, kn, vb, vh, vn, ob, oh, om, H, M, N,
                CAUSAL: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, WS: tl.constexpr):
    bh = tl.program_id(1)
    b, h = (bh // H).to(tl.int64), (bh % H).to(tl.int64)
    first = tl.program_id(0) * BM
    qd = tl.make_tensor_descriptor(Q + b * qb + h * qh, shape=[M, D], strides=[qm, 1], block_shape=[BM, D])
    kd = tl.make_tensor_descriptor(K + b * kb + h * kh, shape=[N, D], strides=[kn, 1], block_shape=[BN, D])
    vd = tl.make_tensor_descriptor(V + b * vb + h * vh, shape=[N, D], strides=[vn, 1], block_shape=[BN, D])
    od = tl.make_tensor_descriptor(O + b * ob + h * oh, shape=[M, D], strides=[om, 1], block_shape=[BM, D // 2])
    q = qd.load([first, 0])
    r = first + tl.arange(0, BM)
    m = tl.full([BM], float("-inf"), tl.float32)
    l = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, D], tl.float32)
    hi = tl.minimum(N, first + BM + N - M) if CAUSAL else N
    for n in tl.range(0, hi, BN, warp_specialize=WS, num_stages=2):
        s = tl.dot(q, kd.load([n, 0]).T)
        j = n + tl.arange(0, BN)
        seen = j[None, :] < N
        if CAUSAL:
            seen = seen & (j[None, :] <= r[:, None] + N - M)
        s = s * c + tl.where(seen, 0, -1.0e6)
        t = tl.maximum(m, tl.max(s, 1))
        p = tl.exp2(s - t[:, None])
        f = tl.exp2(m - t)
        l = l * f + tl.sum(p, 1)
        acc0, acc1 = acc.reshape([BM, 2, D // 2]).permute(0, 2, 1).split()
        acc = tl.join(acc0 * f[:, None], acc1 * f[:, None]).permute(0, 2, 1).reshape([BM, D])
        acc = tl.dot(p.to(tl.bfloat16), vd.load([n, 0]), acc)
        m = t
    acc = acc / l[:, None]
    left, right = acc.reshape([BM, 2, D // 2]).permute(0, 2, 1).split()
    od.store([first, 0], left.to(tl.bfloat16))
    od.store([first, D // 2], right.to(tl.bfloat16))
    tl.store(L + bh.to(tl.int64) * M + r, (m + tl.log2(l)) * 0.6931471805599453, mask=r < M)


def attention(q, k, v, out, lse, *, causal, scale):
    B, H, M, D = q.shape
    triton.set_allocator(scratch_for_descriptors)
    specialised[(triton.cdiv(M, 128), B * H)](
        q, k, v, out, lse, scale * 1.4426950408889634, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
        *out.stride()[:3], H, M, k.shape[2], CAUSAL=causal, D=D, BM=128, BN=64, WS=True, num_warps=8)
