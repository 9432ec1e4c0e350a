"""Flash attention forward, tuned: exp2 with the scale folded in; one loop without masks over the keys that all rows of
a tile see, and one with masks over the rest; tiles are loaded and stored through tensor descriptors.

Correct for any lengths, strides that descriptors take (multiples of 16 bytes, the last 1) and head mapping.
"""

import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)
LN_2: tl.constexpr = tl.constexpr(0.6931471805599453)


@triton.jit
def walk(
    q,
    k_desc,
    v_desc,
    batch,
    kv_head,
    acc,
    row_sum,
    row_max,
    scale,
    start,
    stop,
    offs_m,
    shift,
    kv_len,
    MASKED: tl.constexpr,
    CAUSAL: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Attend to the keys from ``start`` to ``stop``; the running maximum and the scale are in base 2."""
    for start_n in range(start, stop, BLOCK_N):
        k = k_desc.load([batch, kv_head, start_n, 0]).reshape(BLOCK_N, HEAD_DIM)
        scores = tl.dot(q, k.T)
        if MASKED:
            offs_n = start_n + tl.arange(0, BLOCK_N)
            visible = offs_n[None, :] < kv_len
            if CAUSAL:
                visible = visible & (offs_n[None, :] <= offs_m[:, None] + shift)
            scores = tl.where(visible, scores, float("-inf"))
        new_max = tl.maximum(row_max, tl.max(scores, 1) * scale)
        p = tl.exp2(scores * scale - new_max[:, None])
        rescale = tl.exp2(row_max - new_max)
        row_sum = row_sum * rescale + tl.sum(p, 1)
        acc = acc * rescale[:, None]
        v = v_desc.load([batch, kv_head, start_n, 0]).reshape(BLOCK_N, HEAD_DIM)
        acc = tl.dot(p.to(v.dtype), v, acc)
        row_max = new_max
    return acc, row_sum, row_max


@triton.jit
def attention_kernel(
    q_desc,
    k_desc,
    v_desc,
    o_desc,
    Lse,
    scale,
    heads,
    group,
    q_len,
    kv_len,
    CAUSAL: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    start_m = tl.program_id(0) * BLOCK_M
    batch_head = tl.program_id(1)
    batch, head = batch_head // heads, batch_head % heads
    kv_head = head // group
    offs_m = start_m + tl.arange(0, BLOCK_M)
    shift = kv_len - q_len
    q = q_desc.load([batch, head, start_m, 0]).reshape(BLOCK_M, HEAD_DIM)

    row_max = tl.full([BLOCK_M], float("-inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
    if CAUSAL:
        unmasked = tl.minimum(kv_len, start_m + shift + 1) // BLOCK_N * BLOCK_N
        stop = tl.minimum(kv_len, start_m + BLOCK_M + shift)
    else:
        unmasked = kv_len // BLOCK_N * BLOCK_N
        stop = kv_len
    acc, row_sum, row_max = walk(
        q, k_desc, v_desc, batch, kv_head, acc, row_sum, row_max, scale, 0, unmasked, offs_m, shift, kv_len,
        False, CAUSAL, HEAD_DIM, BLOCK_N,
    )  # fmt: skip
    acc, row_sum, row_max = walk(
        q, k_desc, v_desc, batch, kv_head, acc, row_sum, row_max, scale, unmasked, stop, offs_m, shift, kv_len,
        True, CAUSAL, HEAD_DIM, BLOCK_N,
    )  # fmt: skip

    out = (acc / row_sum[:, None]).to(o_desc.dtype)
    o_desc.store([batch, head, start_m, 0], out.reshape(1, 1, BLOCK_M, HEAD_DIM))
    lse = (row_max + tl.log2(row_sum)) * LN_2
    tl.store(Lse + batch_head.to(tl.int64) * q_len + offs_m, lse, mask=offs_m < q_len)


def attention(q, k, v, out, lse, *, causal: bool, scale: float) -> None:
    batch, heads, q_len, head_dim = q.shape
    kv_heads, kv_len = k.shape[1], k.shape[2]
    block_m, block_n = 128, 64
    q_desc, k_desc, v_desc, o_desc = (
        TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), [1, 1, rows, head_dim])
        for tensor, rows in ((q, block_m), (k, block_n), (v, block_n), (out, block_m))
    )
    attention_kernel[(triton.cdiv(q_len, block_m), batch * heads)](
        q_desc,
        k_desc,
        v_desc,
        o_desc,
        lse,
        scale * LOG2_E.value,
        heads,
        heads // kv_heads,
        q_len,
        kv_len,
        CAUSAL=causal,
        HEAD_DIM=head_dim,
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        num_warps=8,
        num_stages=3,
    )
