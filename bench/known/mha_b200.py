"""Attention forward for Blackwell, heads with keys of their own or shared: warps of one loop have roles.

- The scores of the next tile are computed before the softmax of this one, so that the tensor cores need not wait.
- The output has one accumulator: with two, tensor memory would have to be copied in each pass.
- Hidden scores are lowered by a minimum with a number per row and column, which takes no comparison and no selection.
- Programs are numbered along one axis, the longest blocks of eight heads first.

For strides that descriptors take (multiples of 16 bytes, the last 1), any lengths and head mapping.
"""

import triton
import triton.language as tl

LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)
LN_2: tl.constexpr = tl.constexpr(0.6931471805599453)


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
    stride_kb,
    stride_kh,
    stride_kn,
    stride_vb,
    stride_vh,
    stride_vn,
    stride_ob,
    stride_oh,
    stride_om,
    heads,
    group,
    q_len,
    kv_len,
    blocks,
    SIDE: tl.constexpr,
    CAUSAL: tl.constexpr,
    RAGGED: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """``RAGGED``: the last block of keys is not full, and no causal mask hides what is missing."""
    program = tl.program_id(0)
    batch_head = program // (SIDE * blocks) * SIDE + program % SIDE
    block_m = program // SIDE % blocks
    if CAUSAL:
        block_m = blocks - 1 - block_m
    start_m = block_m * BLOCK_M
    batch = (batch_head // heads).to(tl.int64)
    head = (batch_head % heads).to(tl.int64)
    kv_head = head // group
    q_base = Q + batch * stride_qb + head * stride_qh
    k_base = K + batch * stride_kb + kv_head * stride_kh
    v_base = V + batch * stride_vb + kv_head * stride_vh
    o_base = Out + batch * stride_ob + head * stride_oh
    q_tiles = tl.make_tensor_descriptor(q_base, [q_len, HEAD_DIM], [stride_qm, 1], [BLOCK_M, HEAD_DIM])
    k_tiles = tl.make_tensor_descriptor(k_base, [kv_len, HEAD_DIM], [stride_kn, 1], [BLOCK_N, HEAD_DIM])
    v_tiles = tl.make_tensor_descriptor(v_base, [kv_len, HEAD_DIM], [stride_vn, 1], [BLOCK_N, HEAD_DIM])
    q = q_tiles.load([start_m, 0])

    offs_m = start_m + tl.arange(0, BLOCK_M)
    offs_n = tl.arange(0, BLOCK_N)
    last = offs_m + (kv_len - q_len)
    row_max = tl.full([BLOCK_M], float("-inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
    stop = kv_len
    if CAUSAL:
        stop = tl.minimum(kv_len, start_m + BLOCK_M + kv_len - q_len)
    ahead = tl.dot(q, k_tiles.load([0, 0]).T)
    for start_n in tl.range(0, stop, BLOCK_N, warp_specialize=True, disallow_acc_multi_buffer=True):
        scores = ahead
        ahead = tl.dot(q, k_tiles.load([start_n + BLOCK_N, 0]).T)
        if CAUSAL:
            # Above 0 where the key is visible, below where it is hidden, never 0.
            seen = (2 * (last - start_n) + 1).to(tl.float32)[:, None] - (2 * offs_n).to(tl.float32)[None, :]
            scores = tl.minimum(scores, seen * 1e30)
        if RAGGED:
            scores = tl.where(offs_n[None, :] < kv_len - start_n, scores, float("-inf"))
        new_max = tl.maximum(row_max, tl.max(scores, 1) * scale)
        rescale = tl.exp2(row_max - new_max)
        acc = acc * rescale[:, None]
        p = tl.exp2(scores * scale - new_max[:, None])
        acc = tl.dot(p.to(Out.dtype.element_ty), v_tiles.load([start_n, 0]), acc)
        row_sum = row_sum * rescale + tl.sum(p, 1)
        row_max = new_max

    out = (acc / row_sum[:, None]).to(Out.dtype.element_ty)
    offs_o = offs_m[:, None] * stride_om + tl.arange(0, HEAD_DIM)[None, :]
    tl.store(o_base + offs_o, out, mask=(offs_m < q_len)[:, None])
    lse = (row_max + tl.log2(row_sum)) * LN_2
    tl.store(Lse + batch_head.to(tl.int64) * q_len + offs_m, lse, mask=offs_m < q_len)


def attention(q, k, v, out, lse, *, causal: bool, scale: float) -> None:
    batch, heads, q_len, head_dim = q.shape
    kv_heads, kv_len = k.shape[1], k.shape[2]
    block_m, block_n = 128, 128
    blocks = triton.cdiv(q_len, block_m)
    attention_kernel[(blocks * batch * heads,)](
        q,
        k,
        v,
        out,
        lse,
        scale * LOG2_E.value,
        *q.stride()[:3],
        *k.stride()[:3],
        *v.stride()[:3],
        *out.stride()[:3],
        heads,
        heads // kv_heads,
        q_len,
        kv_len,
        blocks,
        SIDE=8 if batch * heads % 8 == 0 else 1,
        CAUSAL=causal,
        RAGGED=not causal and kv_len % block_n != 0,
        HEAD_DIM=head_dim,
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        num_warps=4,
        num_stages=3,
    )
