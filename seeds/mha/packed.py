"""Flash attention forward for packed sequences, written plainly: one program for each tile of query rows of a sequence,
walking over the keys of that sequence. Sequences that are shorter than the longest leave some programs without work.

Correct for any lengths, strides and head mapping; deliberately not fast.
"""

import triton
import triton.language as tl


@triton.jit
def load_rows(Base, head, rows, end, stride_h, stride_n, stride_d, DIM: tl.constexpr, BLOCK: tl.constexpr):
    """Load rows of one head, [rows, BLOCK], zero from ``end`` on."""
    offs_d = tl.arange(0, BLOCK)
    at = Base + head * stride_h + rows.to(tl.int64)[:, None] * stride_n + offs_d[None, :] * stride_d
    return tl.load(at, mask=(rows < end)[:, None] & (offs_d < DIM)[None, :], other=0.0)


@triton.jit
def attention_kernel(
    Q, K, V, StartsQ, StartsK, Out, Lse, scale,
    stride_qh, stride_qm, stride_qd, stride_kh, stride_kn, stride_kd,
    stride_vh, stride_vn, stride_vd, stride_oh, stride_om, stride_od,
    group, queries,
    CAUSAL: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
    VALUE_DIM: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    head, sequence = tl.program_id(1).to(tl.int64), tl.program_id(2)
    kv_head = head // group
    first_q, end_q = tl.load(StartsQ + sequence), tl.load(StartsQ + sequence + 1)
    first_k, end_k = tl.load(StartsK + sequence), tl.load(StartsK + sequence + 1)
    start_m = first_q + tl.program_id(0) * BLOCK_M
    offs_m = start_m + tl.arange(0, BLOCK_M)
    # The last key of the sequence is seen by its last query.
    shift = end_k - end_q
    q = load_rows(Q, head, offs_m, end_q, stride_qh, stride_qm, stride_qd, HEAD_DIM, BLOCK_D)

    row_max = tl.full([BLOCK_M], float("-inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_V], tl.float32)
    stop = end_k
    if CAUSAL:
        stop = tl.minimum(end_k, start_m + BLOCK_M + shift)
    stop = tl.where(start_m < end_q, stop, first_k)
    for start_n in range(first_k, stop, BLOCK_N):
        offs_n = start_n + tl.arange(0, BLOCK_N)
        k = load_rows(K, kv_head, offs_n, end_k, stride_kh, stride_kn, stride_kd, HEAD_DIM, BLOCK_D)
        visible = offs_n[None, :] < end_k
        if CAUSAL:
            visible = visible & (offs_n[None, :] <= offs_m[:, None] + shift)
        scores = tl.where(visible, tl.dot(q, tl.trans(k)) * scale, float("-inf"))
        new_max = tl.maximum(row_max, tl.max(scores, 1))
        rescale = tl.exp(row_max - new_max)
        p = tl.exp(scores - new_max[:, None])
        row_sum = row_sum * rescale + tl.sum(p, 1)
        v = load_rows(V, kv_head, offs_n, end_k, stride_vh, stride_vn, stride_vd, VALUE_DIM, BLOCK_V)
        acc = tl.dot(p.to(v.dtype), v, acc * rescale[:, None])
        row_max = new_max

    offs_v = tl.arange(0, BLOCK_V)
    at = Out + head * stride_oh + offs_m.to(tl.int64)[:, None] * stride_om + offs_v[None, :] * stride_od
    out = (acc / row_sum[:, None]).to(Out.dtype.element_ty)
    tl.store(at, out, mask=(offs_m < end_q)[:, None] & (offs_v < VALUE_DIM)[None, :])
    tl.store(Lse + head * queries + offs_m, row_max + tl.log(row_sum), mask=offs_m < end_q)


def attention(
    q, k, v, cu_seqlens_q, cu_seqlens_k, out, lse, *, causal: bool, scale: float, max_seqlen_q: int, max_seqlen_k: int
) -> None:
    _, heads, queries, head_dim = q.shape
    value_dim, sequences = v.shape[3], cu_seqlens_q.shape[0] - 1
    block_m, block_n = 64, 64
    attention_kernel[(triton.cdiv(max_seqlen_q, block_m), heads, sequences)](
        q, k, v, cu_seqlens_q, cu_seqlens_k, out, lse, scale,
        *q.stride()[1:], *k.stride()[1:], *v.stride()[1:], *out.stride()[1:], heads // k.shape[1], queries,
        CAUSAL=causal, HEAD_DIM=head_dim, BLOCK_D=triton.next_power_of_2(head_dim),
        VALUE_DIM=value_dim, BLOCK_V=triton.next_power_of_2(value_dim),
        BLOCK_M=block_m, BLOCK_N=block_n, num_warps=4, num_stages=1,
    )  # fmt: skip
