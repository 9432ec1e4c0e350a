"""Selected attention in the order of Native Sparse Attention: one program for each query position and KV head, which
loops over the blocks that the position selected.

The query heads of a group are the rows of a tile, which has at least 16: small groups leave most of it idle. Correct
for any length, group, strides and number of blocks.
"""

import triton
import triton.language as tl


@triton.jit
def selected_attention_kernel(
    Q,
    K,
    V,
    Indices,
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
    kv_heads,
    group,
    length,
    blocks,
    block_size,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    position = tl.program_id(0)
    batch_head = tl.program_id(1)
    batch = (batch_head // kv_heads).to(tl.int64)
    kv_head = (batch_head % kv_heads).to(tl.int64)

    offs_g = tl.arange(0, BLOCK_G)
    offs_n = tl.arange(0, BLOCK_N)
    offs_d = tl.arange(0, BLOCK_D)
    in_d = offs_d < HEAD_DIM
    heads = kv_head * group + offs_g
    rows = (offs_g < group)[:, None] & in_d[None, :]
    k_base = K + batch * stride_kb + kv_head * stride_kh
    v_base = V + batch * stride_vb + kv_head * stride_vh
    row = position.to(tl.int64)
    indices = Indices + (batch_head.to(tl.int64) * length + row) * blocks

    q = tl.load(
        Q + batch * stride_qb + heads[:, None] * stride_qh + row * stride_qm + offs_d[None, :] * stride_qd,
        mask=rows,
        other=0.0,
    )

    # The running maximum, the running sum and the output so far, not yet divided by the sum.
    row_max = tl.full([BLOCK_G], float("-inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_G], tl.float32)
    acc = tl.zeros([BLOCK_G, BLOCK_D], tl.float32)

    for slot in range(blocks):
        block = tl.load(indices + slot)
        if block >= 0:
            keys = block * block_size + offs_n
            visible = (offs_n < block_size) & (keys <= position)
            k = tl.load(
                k_base + keys[None, :].to(tl.int64) * stride_kn + offs_d[:, None] * stride_kd,
                mask=visible[None, :] & in_d[:, None],
                other=0.0,
            )
            scores = tl.where(visible[None, :], tl.dot(q, k) * scale, float("-inf"))
            new_max = tl.maximum(row_max, tl.max(scores, 1))
            rescale = tl.exp(row_max - new_max)
            p = tl.exp(scores - new_max[:, None])
            row_sum = row_sum * rescale + tl.sum(p, 1)
            acc = acc * rescale[:, None]
            v = tl.load(
                v_base + keys[:, None].to(tl.int64) * stride_vn + offs_d[None, :] * stride_vd,
                mask=visible[:, None] & in_d[None, :],
                other=0.0,
            )
            acc = tl.dot(p.to(v.dtype), v, acc)
            row_max = new_max

    out = acc / row_sum[:, None]
    tl.store(
        Out + batch * stride_ob + heads[:, None] * stride_oh + row * stride_om + offs_d[None, :] * stride_od,
        out.to(Out.dtype.element_ty),
        mask=rows,
    )
    tl.store(Lse + (batch * kv_heads * group + heads) * length + row, row_max + tl.log(row_sum), mask=offs_g < group)


def selected_attention(q, k, v, block_indices, out, lse, *, block_size: int, scale: float) -> None:
    batch, heads, length, head_dim = q.shape
    kv_heads = k.shape[1]
    group = heads // kv_heads
    selected_attention_kernel[(length, batch * kv_heads)](
        q,
        k,
        v,
        block_indices,
        out,
        lse,
        scale,
        *q.stride(),
        *k.stride(),
        *v.stride(),
        *out.stride(),
        kv_heads,
        group,
        length,
        block_indices.shape[3],
        block_size,
        HEAD_DIM=head_dim,
        BLOCK_D=triton.next_power_of_2(head_dim),
        BLOCK_G=max(16, triton.next_power_of_2(group)),
        BLOCK_N=max(16, triton.next_power_of_2(block_size)),
        num_warps=4,
        num_stages=1,
    )
