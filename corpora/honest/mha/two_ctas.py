"""Flash attention forward, written plainly: one program for each tile of query rows, walking over all keys.

Correct for any lengths, strides and head mapping; deliberately not fast.
"""

import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor


def tile_descriptor(x, rows, columns):
    """A descriptor of [rows, columns] tiles of x's last two axes; None where its layout does not allow one."""
    size = x.element_size()
    aligned = all(offset * size % 16 == 0 for offset in (*x.stride()[:3], x.storage_offset()))
    if not aligned or x.stride(3) != 1 or 0 in x.shape or max(rows, columns) > 256:
        return None
    return TensorDescriptor(x, list(x.shape), list(x.stride()), [1, 1, rows, columns])


@triton.jit
def attention_kernel(
    Q, K, V, Out, Lse, scale, stride_qb, stride_qh, stride_qm, stride_qd, stride_kb, stride_kh, stride_kn, stride_kd,
    stride_vb, stride_vh, stride_vn, stride_vd, stride_ob, stride_oh, stride_om, stride_od, heads, group, q_len, kv_len,
    CAUSAL: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    q_desc, k_desc, v_desc,
):
    block_m = tl.program_id(0)
    batch_head = tl.program_id(1)
    batch = (batch_head // heads).to(tl.int64)
    head = (batch_head % heads).to(tl.int64)
    kv_head = head // group

    offs_m = block_m * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_d = tl.arange(0, BLOCK_D)
    in_d = offs_d < HEAD_DIM
    q_base = Q + batch * stride_qb + head * stride_qh
    k_base = K + batch * stride_kb + kv_head * stride_kh
    v_base = V + batch * stride_vb + kv_head * stride_vh
    o_base = Out + batch * stride_ob + head * stride_oh

    if q_desc is not None:
        q = q_desc.load([batch.to(tl.int32), head.to(tl.int32), block_m * BLOCK_M, 0]).reshape(BLOCK_M, BLOCK_D)
    else:
        q = tl.load(
            q_base + offs_m[:, None].to(tl.int64) * stride_qm + offs_d[None, :] * stride_qd,
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
    full_n = kv_len // BLOCK_N * BLOCK_N
    if CAUSAL:
        full_n = tl.minimum(kv_len, block_m * BLOCK_M + (kv_len - q_len) + 1) // BLOCK_N * BLOCK_N
    for start_n in range(0, full_n, BLOCK_N):
        offs_n = start_n + tl.arange(0, BLOCK_N)
        if k_desc is not None:
            k = k_desc.load([batch.to(tl.int32), kv_head.to(tl.int32), start_n, 0]).reshape(BLOCK_N, BLOCK_D).T
        else:
            k = tl.load(
                k_base + offs_n[None, :].to(tl.int64) * stride_kn + offs_d[:, None] * stride_kd,
                mask=in_d[:, None],
                other=0.0,
            )
        scores = tl.dot(q, k)

        new_max = tl.maximum(row_max, tl.max(scores, 1) * scale_log2)
        rescale = tl.exp2(row_max - new_max)
        p = tl.exp2(scores * scale_log2 - new_max[:, None])
        row_sum = row_sum * rescale + tl.sum(p, 1)
        acc = acc * rescale[:, None]
        if v_desc is not None:
            v = v_desc.load([batch.to(tl.int32), kv_head.to(tl.int32), start_n, 0]).reshape(BLOCK_N, BLOCK_D)
        else:
            v = tl.load(
                v_base + offs_n[:, None].to(tl.int64) * stride_vn + offs_d[None, :] * stride_vd,
                mask=in_d[None, :],
                other=0.0,
            )
        acc = tl.dot(p.to(v.dtype), v, acc)
        row_max = new_max
    for start_n in range(full_n, end_n, BLOCK_N):
        offs_n = start_n + tl.arange(0, BLOCK_N)
        if k_desc is not None:
            k = k_desc.load([batch.to(tl.int32), kv_head.to(tl.int32), start_n, 0]).reshape(BLOCK_N, BLOCK_D).T
        else:
            k = tl.load(
                k_base + offs_n[None, :].to(tl.int64) * stride_kn + offs_d[:, None] * stride_kd,
                mask=(offs_n < kv_len)[None, :] & in_d[:, None],
                other=0.0,
            )
        scores = tl.dot(q, k)
        visible = offs_n[None, :] < kv_len
        if CAUSAL:
            visible = visible & (offs_n[None, :] <= offs_m[:, None] + (kv_len - q_len))
        scores = tl.where(visible, scores, float("-inf"))

        new_max = tl.maximum(row_max, tl.max(scores, 1) * scale_log2)
        rescale = tl.exp2(row_max - new_max)
        p = tl.exp2(scores * scale_log2 - new_max[:, None])
        row_sum = row_sum * rescale + tl.sum(p, 1)
        acc = acc * rescale[:, None]
        if v_desc is not None:
            v = v_desc.load([batch.to(tl.int32), kv_head.to(tl.int32), start_n, 0]).reshape(BLOCK_N, BLOCK_D)
        else:
            v = tl.load(
                v_base + offs_n[:, None].to(tl.int64) * stride_vn + offs_d[None, :] * stride_vd,
                mask=(offs_n < kv_len)[:, None] & in_d[None, :],
                other=0.0,
            )
        acc = tl.dot(p.to(v.dtype), v, acc)
        row_max = new_max

    out = acc / row_sum[:, None]
    tl.store(
        o_base + offs_m[:, None].to(tl.int64) * stride_om + offs_d[None, :] * stride_od,
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
    block_m, block_n = 128, 64
    grid = (triton.cdiv(q_len, block_m), batch * heads)
    q_desc = tile_descriptor(q, block_m, triton.next_power_of_2(head_dim))
    k_desc = tile_descriptor(k, block_n, triton.next_power_of_2(head_dim))
    v_desc = tile_descriptor(v, block_n, triton.next_power_of_2(head_dim))
    attention_kernel[grid](
        q, k, v, out, lse, scale, *q.stride(), *k.stride(), *v.stride(), *out.stride(), heads, heads // kv_heads, q_len,
        kv_len, CAUSAL=causal, HEAD_DIM=head_dim, BLOCK_D=triton.next_power_of_2(head_dim), BLOCK_M=block_m,
        BLOCK_N=block_n, num_warps=4, num_stages=2, q_desc=q_desc, k_desc=k_desc, v_desc=v_desc,
    )
