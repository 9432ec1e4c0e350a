"""Flash attention forward, written plainly, with what some models have besides: values of another size than keys, a
window, a sink for each head, and sequences packed one after another. One program for each tile of query rows of a
sequence walks over the keys that these rows see; packed sequences shorter than the longest leave some without work.

Correct for any lengths, strides, windows and head mapping; deliberately not fast. Rows of 96 and of 192 elements are
taken in two parts, 64 and 32 or 128 and 64, so that no product is padded.
"""

import triton
import triton.language as tl


@triton.jit
def load_rows(
    Base, batch, head, rows, end, stride_b, stride_h, stride_n, stride_d, FIRST: tl.constexpr, BLOCK: tl.constexpr
):
    """Load BLOCK elements, from FIRST on, of rows of one head, zero from row ``end`` on."""
    offs_d = FIRST + tl.arange(0, BLOCK)
    at = Base + batch * stride_b + head * stride_h + rows.to(tl.int64)[:, None] * stride_n + offs_d[None, :] * stride_d
    return tl.load(at, mask=(rows < end)[:, None], other=0.0)


@triton.jit
def store_rows(
    Base, values, batch, head, rows, end, stride_b, stride_h, stride_n, stride_d,
    FIRST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    offs_d = FIRST + tl.arange(0, BLOCK)
    at = Base + batch * stride_b + head * stride_h + rows.to(tl.int64)[:, None] * stride_n + offs_d[None, :] * stride_d
    tl.store(at, values.to(Base.dtype.element_ty), mask=(rows < end)[:, None])


@triton.jit
def scores_of_rest(
    q_rest, K, batch, kv_head, offs_n, end_k, stride_kb, stride_kh, stride_kn, stride_kd,
    BLOCK_D: tl.constexpr, REST_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Return the products of what rows have beyond BLOCK_D elements, [BLOCK_M, BLOCK_N]: zeros if that is nothing."""
    scores = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    if REST_D:
        k_rest = load_rows(
            K, batch, kv_head, offs_n, end_k, stride_kb, stride_kh, stride_kn, stride_kd, BLOCK_D, REST_D
        )
        scores = tl.dot(q_rest, tl.trans(k_rest), scores)
    return scores


@triton.jit
def attention_kernel(
    Q, K, V, StartsQ, StartsK, Sinks, Out, Lse, scale,
    stride_qb, stride_qh, stride_qm, stride_qd, stride_kb, stride_kh, stride_kn, stride_kd,
    stride_vb, stride_vh, stride_vn, stride_vd, stride_ob, stride_oh, stride_om, stride_od,
    heads, group, q_len, kv_len, window,
    CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, SINKS: tl.constexpr, PACKED: tl.constexpr,
    BLOCK_D: tl.constexpr, REST_D: tl.constexpr, BLOCK_V: tl.constexpr, REST_V: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
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
    q = load_rows(Q, batch, head, offs_m, end_q, stride_qb, stride_qh, stride_qm, stride_qd, 0, BLOCK_D)
    q_rest = q
    if REST_D:
        q_rest = load_rows(Q, batch, head, offs_m, end_q, stride_qb, stride_qh, stride_qm, stride_qd, BLOCK_D, REST_D)

    # Not -inf: rows may see none of the first keys of a window's first tile, and their maximum has to be a number.
    row_max = tl.full([BLOCK_M], -1.0e30, tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_V], tl.float32)
    if REST_V:
        acc_rest = tl.zeros([BLOCK_M, REST_V], tl.float32)
    start, stop = first_k, end_k
    if CAUSAL:
        stop = tl.minimum(end_k, start_m + BLOCK_M + shift)
    if WINDOWED:
        start = first_k + tl.maximum(start_m + shift - window + 1 - first_k, 0) // BLOCK_N * BLOCK_N
    if PACKED:
        stop = tl.where(start_m < end_q, stop, start)
    for start_n in range(start, stop, BLOCK_N):
        offs_n = start_n + tl.arange(0, BLOCK_N)
        k = load_rows(K, batch, kv_head, offs_n, end_k, stride_kb, stride_kh, stride_kn, stride_kd, 0, BLOCK_D)
        of_rest = scores_of_rest(
            q_rest, K, batch, kv_head, offs_n, end_k, stride_kb, stride_kh, stride_kn, stride_kd,
            BLOCK_D, REST_D, BLOCK_M, BLOCK_N,
        )  # fmt: skip
        visible = offs_n[None, :] < end_k
        if CAUSAL:
            visible = visible & (offs_n[None, :] <= offs_m[:, None] + shift)
        if WINDOWED:
            visible = visible & (offs_n[None, :] > offs_m[:, None] + shift - window)
        scores = tl.where(visible, tl.dot(q, tl.trans(k), of_rest) * scale, float("-inf"))
        new_max = tl.maximum(row_max, tl.max(scores, 1))
        rescale = tl.exp(row_max - new_max)
        p = tl.exp(scores - new_max[:, None])
        row_sum = row_sum * rescale + tl.sum(p, 1)
        v = load_rows(V, batch, kv_head, offs_n, end_k, stride_vb, stride_vh, stride_vn, stride_vd, 0, BLOCK_V)
        acc = tl.dot(p.to(v.dtype), v, acc * rescale[:, None])
        if REST_V:
            v_rest = load_rows(
                V, batch, kv_head, offs_n, end_k, stride_vb, stride_vh, stride_vn, stride_vd, BLOCK_V, REST_V
            )
            acc_rest = tl.dot(p.to(v.dtype), v_rest, acc_rest * rescale[:, None])
        row_max = new_max

    if SINKS:
        sink = tl.load(Sinks + head)
        new_max = tl.maximum(row_max, sink)
        rescale = tl.exp(row_max - new_max)
        row_sum = row_sum * rescale + tl.exp(sink - new_max)
        acc = acc * rescale[:, None]
        if REST_V:
            acc_rest = acc_rest * rescale[:, None]
        row_max = new_max

    out = acc / row_sum[:, None]
    store_rows(Out, out, batch, head, offs_m, end_q, stride_ob, stride_oh, stride_om, stride_od, 0, BLOCK_V)
    if REST_V:
        out_rest = acc_rest / row_sum[:, None]
        store_rows(
            Out, out_rest, batch, head, offs_m, end_q, stride_ob, stride_oh, stride_om, stride_od, BLOCK_V, REST_V
        )
    lse = row_max + tl.log(row_sum)
    tl.store(Lse + tl.program_id(1).to(tl.int64) * q_len + offs_m, lse, mask=offs_m < end_q)


def parts(dim: int) -> tuple[int, int]:
    """Return the largest power of two within a head dim, and the rest, which is another one or zero."""
    first = 1 << dim.bit_length() - 1
    return first, dim - first


def attention(
    q, k, v, *others, causal: bool, scale: float, window: int = 0, max_seqlen_q: int = 0, max_seqlen_k: int = 0
) -> None:
    *further, out, lse = others
    starts_q, starts_k, *sinks = further if max_seqlen_q else (lse, lse, *further)
    batch, heads, q_len, head_dim = q.shape
    kv_heads, kv_len = k.shape[1], k.shape[2]
    block_d, rest_d = parts(head_dim)
    block_v, rest_v = parts(v.shape[3])
    sequences = starts_q.shape[0] - 1 if max_seqlen_q else 1
    block_m, block_n = 64, 64
    attention_kernel[(triton.cdiv(max_seqlen_q or q_len, block_m), batch * heads, sequences)](
        q, k, v, starts_q, starts_k, sinks[0] if sinks else lse, out, lse, scale,
        *q.stride(), *k.stride(), *v.stride(), *out.stride(),
        heads, heads // kv_heads, q_len, kv_len, window,
        CAUSAL=causal, WINDOWED=0 < window < kv_len, SINKS=len(sinks) > 0, PACKED=max_seqlen_q > 0,
        BLOCK_D=block_d, REST_D=rest_d, BLOCK_V=block_v, REST_V=rest_v,
        BLOCK_M=block_m, BLOCK_N=block_n, num_warps=4, num_stages=1,
    )  # fmt: skip
