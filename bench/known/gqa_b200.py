"""Attention forward with shared keys for Blackwell: warps of one loop have roles.

- The block of queries is in two halves, each with a running maximum, a sum and an output of its own: while one half's
  products run, the other half's softmax does.
- The scores of the next tile are computed before the softmax of this one, so that the tensor cores need not wait.
- Heads run along the first axis of the grid, so that those that share keys read them at the same time.

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
    CAUSAL: tl.constexpr,
    RAGGED: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """``RAGGED``: the last block of keys is not full, and no causal mask hides what is missing."""
    batch_head = tl.program_id(0)
    block_m = tl.program_id(1)
    batch = (batch_head // heads).to(tl.int64)
    head = (batch_head % heads).to(tl.int64)
    kv_head = head // group
    q_base = Q + batch * stride_qb + head * stride_qh
    k_base = K + batch * stride_kb + kv_head * stride_kh
    v_base = V + batch * stride_vb + kv_head * stride_vh
    o_base = Out + batch * stride_ob + head * stride_oh
    k_tiles = tl.make_tensor_descriptor(k_base, [kv_len, HEAD_DIM], [stride_kn, 1], [BLOCK_N, HEAD_DIM])
    v_tiles = tl.make_tensor_descriptor(v_base, [kv_len, HEAD_DIM], [stride_vn, 1], [BLOCK_N, HEAD_DIM])

    HALF: tl.constexpr = BLOCK_M // 2
    start_m = block_m * BLOCK_M
    offs_m = start_m + tl.arange(0, HALF)
    offs_m_other = start_m + HALF + tl.arange(0, HALF)
    offs_d = tl.arange(0, HEAD_DIM)
    q = tl.load(q_base + offs_m[:, None] * stride_qm + offs_d[None, :], mask=(offs_m < q_len)[:, None], other=0.0)
    q_other = tl.load(
        q_base + offs_m_other[:, None] * stride_qm + offs_d[None, :], mask=(offs_m_other < q_len)[:, None], other=0.0
    )
    row_max = tl.full([HALF], float("-inf"), tl.float32)
    row_max_other = tl.full([HALF], float("-inf"), tl.float32)
    row_sum = tl.zeros([HALF], tl.float32)
    row_sum_other = tl.zeros([HALF], tl.float32)
    acc = tl.zeros([HALF, HEAD_DIM], tl.float32)
    acc_other = tl.zeros([HALF, HEAD_DIM], tl.float32)
    stop = kv_len
    if CAUSAL:
        stop = tl.minimum(kv_len, start_m + BLOCK_M + (kv_len - q_len))
    k = k_tiles.load([0, 0]).T
    ahead = tl.dot(q, k)
    ahead_other = tl.dot(q_other, k)
    for start_n in tl.range(0, stop, BLOCK_N, warp_specialize=True, disallow_acc_multi_buffer=True):
        scores = ahead
        scores_other = ahead_other
        k = k_tiles.load([start_n + BLOCK_N, 0]).T
        ahead = tl.dot(q, k)
        ahead_other = tl.dot(q_other, k)
        offs_n = tl.arange(0, BLOCK_N)
        if CAUSAL:
            scores = tl.where(offs_n[None, :] <= (offs_m - start_n)[:, None] + (kv_len - q_len), scores, float("-inf"))
        if RAGGED:
            scores = tl.where(offs_n[None, :] < kv_len - start_n, scores, float("-inf"))
        new_max = tl.maximum(row_max, tl.max(scores, 1) * scale)
        rescale = tl.exp2(row_max - new_max)
        p = tl.exp2(scores * scale - new_max[:, None])
        row_sum = row_sum * rescale + tl.sum(p, 1)
        acc = acc * rescale[:, None]
        v = v_tiles.load([start_n, 0])
        acc = tl.dot(p.to(v.dtype), v, acc)
        row_max = new_max

        if CAUSAL:
            scores_other = tl.where(
                offs_n[None, :] <= (offs_m_other - start_n)[:, None] + (kv_len - q_len), scores_other, float("-inf")
            )
        if RAGGED:
            scores_other = tl.where(offs_n[None, :] < kv_len - start_n, scores_other, float("-inf"))
        new_max_other = tl.maximum(row_max_other, tl.max(scores_other, 1) * scale)
        rescale_other = tl.exp2(row_max_other - new_max_other)
        p_other = tl.exp2(scores_other * scale - new_max_other[:, None])
        row_sum_other = row_sum_other * rescale_other + tl.sum(p_other, 1)
        acc_other = acc_other * rescale_other[:, None]
        acc_other = tl.dot(p_other.to(v.dtype), v, acc_other)
        row_max_other = new_max_other

    offs_lse = Lse + batch_head.to(tl.int64) * q_len
    out = (acc / row_sum[:, None]).to(Out.dtype.element_ty)
    out_other = (acc_other / row_sum_other[:, None]).to(Out.dtype.element_ty)
    tl.store(o_base + offs_m[:, None] * stride_om + offs_d[None, :], out, mask=(offs_m < q_len)[:, None])
    tl.store(
        o_base + offs_m_other[:, None] * stride_om + offs_d[None, :], out_other, mask=(offs_m_other < q_len)[:, None]
    )
    tl.store(offs_lse + offs_m, (row_max + tl.log2(row_sum)) * LN_2, mask=offs_m < q_len)
    tl.store(offs_lse + offs_m_other, (row_max_other + tl.log2(row_sum_other)) * LN_2, mask=offs_m_other < q_len)


def attention(q, k, v, out, lse, *, causal: bool, scale: float) -> None:
    batch, heads, q_len, head_dim = q.shape
    kv_heads, kv_len = k.shape[1], k.shape[2]
    block_m, block_n = 128, 128
    attention_kernel[(batch * heads, triton.cdiv(q_len, block_m))](
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
        CAUSAL=causal,
        RAGGED=not causal and kv_len % block_n != 0,
        HEAD_DIM=head_dim,
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        num_warps=4,
        num_stages=3,
    )
