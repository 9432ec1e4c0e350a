"""Selected attention in the order of Native Sparse Attention, with what some models have besides: a sink for each query
head, sequences packed one after another, and values of another length than keys. One program for each query position
and KV head loops over the blocks that the position selected.

The query heads of a group are the rows of a tile, which has at least 16: small groups leave most of it idle. Correct
for any lengths, group, strides and number of blocks.
"""

import triton
import triton.language as tl


@triton.jit
def selected_attention_kernel(
    Q, K, V, Indices, Starts, Sinks, Out, Lse, scale,
    stride_qb, stride_qh, stride_qm, stride_qd, stride_kb, stride_kh, stride_kn, stride_kd,
    stride_vb, stride_vh, stride_vn, stride_vd, stride_ob, stride_oh, stride_om, stride_od,
    kv_heads, group, length, blocks, block_size, sequences,
    SINKS: tl.constexpr, PACKED: tl.constexpr, SEQUENCES: tl.constexpr,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, VALUE_DIM: tl.constexpr, BLOCK_V: tl.constexpr,
    BLOCK_G: tl.constexpr, BLOCK_N: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    position = tl.program_id(0)
    batch_head = tl.program_id(1)
    batch, kv_head = (batch_head // kv_heads).to(tl.int64), (batch_head % kv_heads).to(tl.int64)
    first = 0
    if PACKED:
        sequence = tl.arange(0, SEQUENCES)
        starts = tl.load(Starts + sequence, mask=sequence < sequences, other=0)
        first = tl.max(tl.where(starts <= position, starts, 0))

    offs_g, offs_n = tl.arange(0, BLOCK_G), tl.arange(0, BLOCK_N)
    offs_d, offs_v = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_V)
    in_d, in_v = offs_d < HEAD_DIM, offs_v < VALUE_DIM
    heads, in_g = kv_head * group + offs_g, offs_g < group
    k_base = K + batch * stride_kb + kv_head * stride_kh
    v_base = V + batch * stride_vb + kv_head * stride_vh
    row = position.to(tl.int64)
    indices = Indices + (batch_head.to(tl.int64) * length + row) * blocks
    slots = tl.arange(0, SLOTS)
    chosen = tl.load(indices + slots, mask=slots < blocks, other=-1)
    q = tl.load(
        Q + batch * stride_qb + heads[:, None] * stride_qh + row * stride_qm + offs_d[None, :] * stride_qd,
        mask=in_g[:, None] & in_d[None, :],
        other=0.0,
    )

    row_max = tl.full([BLOCK_G], float("-inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_G], tl.float32)
    acc = tl.zeros([BLOCK_G, BLOCK_V], tl.float32)
    for slot in range(tl.sum((chosen >= 0).to(tl.int32))):
        keys = first + tl.load(indices + slot) * block_size + offs_n
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
        v = tl.load(
            v_base + keys[:, None].to(tl.int64) * stride_vn + offs_v[None, :] * stride_vd,
            mask=visible[:, None] & in_v[None, :],
            other=0.0,
        )
        acc = tl.dot(p.to(v.dtype), v, acc * rescale[:, None])
        row_max = new_max

    if SINKS:
        sink = tl.load(Sinks + heads, mask=in_g, other=0.0)
        new_max = tl.maximum(row_max, sink)
        rescale = tl.exp(row_max - new_max)
        row_sum = row_sum * rescale + tl.exp(sink - new_max)
        acc = acc * rescale[:, None]
        row_max = new_max

    out = acc / row_sum[:, None]
    tl.store(
        Out + batch * stride_ob + heads[:, None] * stride_oh + row * stride_om + offs_v[None, :] * stride_od,
        out.to(Out.dtype.element_ty),
        mask=in_g[:, None] & in_v[None, :],
    )
    lse = row_max + tl.log(row_sum)
    tl.store(Lse + (batch * kv_heads * group + heads) * length + row, lse, mask=in_g)


def selected_attention(
    q, k, v, block_indices, *others, block_size: int, scale: float, max_seqlen_q: int = 0, max_seqlen_k: int = 0
) -> None:
    # If sequences are packed, their cumulative lengths come first, those of keys as those of queries; then the sinks.
    *further, out, lse = others
    starts, _, *sinks = further if max_seqlen_q else (lse, lse, *further)
    sequences = starts.shape[0] - 1 if max_seqlen_q else 1
    batch, heads, length, head_dim = q.shape
    kv_heads, value_dim, blocks = k.shape[1], v.shape[3], block_indices.shape[3]
    group = heads // kv_heads
    selected_attention_kernel[(length, batch * kv_heads)](
        q, k, v, block_indices, starts, sinks[0] if sinks else lse, out, lse, scale,
        *q.stride(), *k.stride(), *v.stride(), *out.stride(),
        kv_heads, group, length, blocks, block_size, sequences,
        SINKS=len(sinks) > 0, PACKED=max_seqlen_q > 0, SEQUENCES=triton.next_power_of_2(sequences),
        HEAD_DIM=head_dim, BLOCK_D=triton.next_power_of_2(head_dim),
        VALUE_DIM=value_dim, BLOCK_V=triton.next_power_of_2(value_dim), BLOCK_G=max(16, triton.next_power_of_2(group)),
        BLOCK_N=max(16, triton.next_power_of_2(block_size)), SLOTS=triton.next_power_of_2(blocks),
        num_warps=4, num_stages=2,
    )  # fmt: skip
