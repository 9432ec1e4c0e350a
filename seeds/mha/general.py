"""Flash attention forward, written plainly, with what some models have besides: values of another size than keys, a
window, a sink for each head, and sequences packed one after another. One program for each tile of query rows of a
sequence walks over the keys that these rows see; packed sequences shorter than the longest leave some without work.

Correct for any lengths, strides, windows and head mapping; deliberately not fast.
"""

import triton
import triton.language as tl


@triton.jit
def load_rows(
    Base, batch, head, rows, length, stride_b, stride_h, stride_n, stride_d, DIM: tl.constexpr, BLOCK: tl.constexpr
):
    """Load rows of one head, [rows, BLOCK], zero from ``length`` on."""
    offs_d = tl.arange(0, BLOCK)
    at = Base + batch * stride_b + head * stride_h + rows.to(tl.int64)[:, None] * stride_n + offs_d[None, :] * stride_d
    return tl.load(at, mask=(rows < length)[:, None] & (offs_d < DIM)[None, :], other=0.0)


@triton.jit
def attention_kernel(
    Q, K, V, StartsQ, StartsK, Sinks, Out, Lse, scale,
    stride_qb, stride_qh, stride_qm, stride_qd, stride_kb, stride_kh, stride_kn, stride_kd,
    stride_vb, stride_vh, stride_vn, stride_vd, stride_ob, stride_oh, stride_om, stride_od,
    heads, group, q_len, kv_len, window,
    CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, SINKS: tl.constexpr, PACKED: tl.constexpr,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
    VALUE_DIM: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    batch, head = (tl.program_id(1) // heads).to(tl.int64), (tl.program_id(1) % heads).to(tl.int64)
    kv_head = head // group
    first_q, end_q, first_k, end_k = 0, q_len, 0, kv_len
    if PACKED:
        sequence = tl.program_id(2)
        first_q, end_q = tl.load(StartsQ + sequence), tl.load(StartsQ + sequence + 1)
        first_k, end_k = tl.load(StartsK + sequence), tl.load(StartsK + sequence + 1)
    start_m = first_q + tl.program_id(0) * BLOCK_M
    offs_m = start_m + tl.arange(0, BLOCK_M)
    # The last key of a sequence is seen by its last query.
    shift = end_k - end_q
    q = load_rows(Q, batch, head, offs_m, end_q, stride_qb, stride_qh, stride_qm, stride_qd, HEAD_DIM, BLOCK_D)

    # Not -inf: rows may see none of the first keys of a window's first tile, and their maximum has to be a number.
    row_max = tl.full([BLOCK_M], -1.0e30, tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_V], tl.float32)
    start, stop = first_k, end_k
    if CAUSAL:
        stop = tl.minimum(end_k, start_m + BLOCK_M + shift)
    if WINDOWED:
        start = first_k + tl.maximum(start_m + shift - window + 1 - first_k, 0) // BLOCK_N * BLOCK_N
    if PACKED:
        stop = tl.where(start_m < end_q, stop, start)
    for start_n in range(start, stop, BLOCK_N):
        offs_n = start_n + tl.arange(0, BLOCK_N)
        k = load_rows(K, batch, kv_head, offs_n, end_k, stride_kb, stride_kh, stride_kn, stride_kd, HEAD_DIM, BLOCK_D)
        visible = offs_n[None, :] < end_k
        if CAUSAL:
            visible = visible & (offs_n[None, :] <= offs_m[:, None] + shift)
        if WINDOWED:
            visible = visible & (offs_n[None, :] > offs_m[:, None] + shift - window)
        scores = tl.where(visible, tl.dot(q, tl.trans(k)) * scale, float("-inf"))
        new_max = tl.maximum(row_max, tl.max(scores, 1))
        rescale = tl.exp(row_max - new_max)
        p = tl.exp(scores - new_max[:, None])
        row_sum = row_sum * rescale + tl.sum(p, 1)
        v = load_rows(V, batch, kv_head, offs_n, end_k, stride_vb, stride_vh, stride_vn, stride_vd, VALUE_DIM, BLOCK_V)
        acc = tl.dot(p.to(v.dtype), v, acc * rescale[:, None])
        row_max = new_max

    if SINKS:
        sink = tl.load(Sinks + head)
        new_max = tl.maximum(row_max, sink)
        rescale = tl.exp(row_max - new_max)
        row_sum = row_sum * rescale + tl.exp(sink - new_max)
        acc = acc * rescale[:, None]
        row_max = new_max

    offs_v = tl.arange(0, BLOCK_V)
    at = Out + batch * stride_ob + head * stride_oh + offs_m.to(tl.int64)[:, None] * stride_om
    out = (acc / row_sum[:, None]).to(Out.dtype.element_ty)
    tl.store(at + offs_v[None, :] * stride_od, out, mask=(offs_m < end_q)[:, None] & (offs_v < VALUE_DIM)[None, :])
    lse = row_max + tl.log(row_sum)
    tl.store(Lse + tl.program_id(1).to(tl.int64) * q_len + offs_m, lse, mask=offs_m < end_q)


def attention(
    q, k, v, *others, causal: bool, scale: float, window: int = 0, max_seqlen_q: int = 0, max_seqlen_k: int = 0
) -> None:
    *further, out, lse = others
    starts_q, starts_k, *sinks = further if max_seqlen_q else (lse, lse, *further)
    batch, heads, q_len, head_dim = q.shape
    kv_heads, kv_len, value_dim = k.shape[1], k.shape[2], v.shape[3]
    sequences = starts_q.shape[0] - 1 if max_seqlen_q else 1
    block_m, block_n = 64, 64
    attention_kernel[(triton.cdiv(max_seqlen_q or q_len, block_m), batch * heads, sequences)](
        q, k, v, starts_q, starts_k, sinks[0] if sinks else lse, out, lse, scale,
        *q.stride(), *k.stride(), *v.stride(), *out.stride(),
        heads, heads // kv_heads, q_len, kv_len, window,
        CAUSAL=causal, WINDOWED=0 < window < kv_len, SINKS=len(sinks) > 0, PACKED=max_seqlen_q > 0,
        HEAD_DIM=head_dim, BLOCK_D=triton.next_power_of_2(head_dim),
        VALUE_DIM=value_dim, BLOCK_V=triton.next_power_of_2(value_dim),
        BLOCK_M=block_m, BLOCK_N=block_n, num_warps=4, num_stages=1,
    )  # fmt: skip
