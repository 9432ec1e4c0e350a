"""Attention forward for Hopper, each head with keys of its own: one warp loads, two groups of four compute.

Found by mutate from the plain seed.

- Triton gives warps roles for 128 rows only where descriptors have two axes, made in the kernel, and where the kernel
  has one loop with two products: so masks are in that loop.
- The queries' load begins at a value of its own: of a shared one, the roles move all that is made of it twice.
- The sum of a tile's exponentials is added after the product that they go into has begun, beside it. The first product
  of a tile is issued late, and so is the factor that the output is rescaled by.
- Programs are numbered along one axis, the longest blocks of four heads first.

For any strides, lengths and head mapping; strides that descriptors take (multiples of 16 bytes, the last 1) are fast.
"""

from typing import Any

import triton
import triton.language as tl


def describable(*tensors: Any) -> bool:
    """Whether descriptors can read the tensors' last two axes: strides and offsets are multiples of 16 bytes."""
    return all(
        x.stride(3) == 1 and all(n * x.element_size() % 16 == 0 for n in (*x.stride()[:3], x.storage_offset()))
        for x in tensors
    )


@triton.jit
def attention_kernel(
    Q,
    K,
    V,
    Out,
    Lse,
    scale,
    stride_qb,
    stride_qh,
    stride_qm,
    stride_qd,
    stride_kb,
    stride_kh,
    stride_kn,
    stride_kd,
    stride_vb,
    stride_vh,
    stride_vn,
    stride_vd,
    stride_ob,
    stride_oh,
    stride_om,
    stride_od,
    heads,
    group,
    q_len,
    kv_len,
    CAUSAL: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    RAGGED: tl.constexpr,
    DESCRIPTORS: tl.constexpr,
    blocks,
    lists,
    SIDE: tl.constexpr,
):
    program = tl.program_id(0)
    block_m = blocks - 1 - program // SIDE % blocks
    batch_head = program // (SIDE * blocks) * SIDE + program % SIDE
    batch = (batch_head // heads).to(tl.int64)
    head = (batch_head % heads).to(tl.int64)
    kv_head = head // group

    offs_m = block_m * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_d = tl.arange(0, BLOCK_D)
    in_d = offs_d < HEAD_DIM
    q_base = Q + batch * stride_qb + head * stride_qh
    q_tiles = None
    if DESCRIPTORS:
        q_tiles = tl.make_tensor_descriptor(q_base, [q_len, HEAD_DIM], [stride_qm, 1], [BLOCK_M, BLOCK_D])
    k_base = K + batch * stride_kb + kv_head * stride_kh
    k_tiles = None
    if DESCRIPTORS:
        k_tiles = tl.make_tensor_descriptor(k_base, [kv_len, HEAD_DIM], [stride_kn, 1], [BLOCK_N, BLOCK_D])
    v_base = V + batch * stride_vb + kv_head * stride_vh
    v_tiles = None
    if DESCRIPTORS:
        v_tiles = tl.make_tensor_descriptor(v_base, [kv_len, HEAD_DIM], [stride_vn, 1], [BLOCK_N, BLOCK_D])
    o_base = Out + batch * stride_ob + head * stride_oh

    if q_tiles is not None:
        q = q_tiles.load([block_m * BLOCK_M + tl.minimum(stride_qm, 0), 0])
    else:
        q = tl.load(
            q_base + offs_m[:, None] * stride_qm + offs_d[None, :] * stride_qd,
            mask=(offs_m < q_len)[:, None] & in_d[None, :],
            other=0.0,
        )

    # The running maximum, the running sum and the output so far, not yet divided by the sum.
    row_max = tl.full([BLOCK_M], float("-inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)

    end_n = kv_len
    if CAUSAL:
        end_n = tl.minimum(kv_len, block_m * BLOCK_M + BLOCK_M + (kv_len - q_len))
    scale_log2 = scale * 1.4426950408889634
    for start_n in tl.range(0, end_n, BLOCK_N, warp_specialize=True):
        offs_n = start_n + tl.arange(0, BLOCK_N)
        if k_tiles is not None:
            k = k_tiles.load([start_n, 0]).T
        else:
            k = tl.load(
                k_base + offs_n[None, :] * stride_kn + offs_d[:, None] * stride_kd,
                mask=(offs_n < kv_len)[None, :] & in_d[:, None],
                other=0.0,
            )
        visible = (offs_n[None, :] < kv_len) if RAGGED else True
        if CAUSAL:
            visible = visible & ((offs_n - start_n)[None, :] <= (offs_m - start_n)[:, None] + (kv_len - q_len))
        scores = tl.dot(q, k)
        scores = tl.where(visible, scores, float("-inf"))

        new_max = tl.maximum(row_max, tl.max(scores, 1) * scale_log2)
        p = tl.exp2(scores * scale_log2 - new_max[:, None])
        rescale = tl.exp2(row_max - new_max)
        acc = acc * rescale[:, None]
        if v_tiles is not None:
            v = v_tiles.load([start_n, 0])
        else:
            v = tl.load(
                v_base + offs_n[:, None] * stride_vn + offs_d[None, :] * stride_vd,
                mask=(offs_n < kv_len)[:, None] & in_d[None, :],
                other=0.0,
            )
        acc = tl.dot(p.to(v.dtype), v, acc)
        row_max = new_max
        row_sum = row_sum * rescale + tl.sum(p, 1)

    out = acc / row_sum[:, None]
    tl.store(
        o_base + offs_m[:, None] * stride_om + offs_d[None, :] * stride_od,
        out.to(Out.dtype.element_ty),
        mask=(offs_m < q_len)[:, None] & in_d[None, :],
    )
    tl.store(
        Lse + batch_head.to(tl.int64) * q_len + offs_m,
        (row_max + tl.log2(row_sum)) * 0.6931471805599453,
        mask=offs_m < q_len,
    )


def attention(q, k, v, out, lse, *, causal: bool, scale: float) -> None:
    batch, heads, q_len, head_dim = q.shape
    kv_heads, kv_len = k.shape[1], k.shape[2]
    block_m, block_n = 128, 128
    grid = ((triton.cdiv(q_len, block_m)) * (batch * heads),)
    attention_kernel[grid](
        q,
        k,
        v,
        out,
        lse,
        scale,
        *q.stride(),
        *k.stride(),
        *v.stride(),
        *out.stride(),
        heads,
        heads // kv_heads,
        q_len,
        kv_len,
        CAUSAL=causal,
        HEAD_DIM=head_dim,
        BLOCK_D=triton.next_power_of_2(head_dim),
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        num_warps=4,
        num_stages=2,
        RAGGED=not causal and kv_len % block_n != 0,
        DESCRIPTORS=describable(q, k, v),
        blocks=triton.cdiv(q_len, block_m),
        lists=batch * heads,
        SIDE=4 if (batch * heads) % 4 == 0 else 1,
    )
