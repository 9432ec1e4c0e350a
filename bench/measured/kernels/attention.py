"""Attention as vLLM's Triton back end of IBM does it: over sequences of any length, and over a paged cache."""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.44269504089)


@triton.jit
def _fold(
    acc, total, peak, q, k_ptrs, v_ptrs, first, last, q_rows, keys, causal_keys, kv_len, extra,
    STRIDE_K: tl.constexpr, STRIDE_V: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    SCALE: tl.constexpr, PRE_LOAD_V: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Fold the key blocks from ``first`` to ``last`` into the accumulator; with MASKED, causally and to the end."""
    for start in range(first, last, BLOCK_N):
        if MASKED:
            inside = start + tl.arange(0, BLOCK_N) < kv_len
            k = tl.load(k_ptrs, mask=inside[None, :], other=0.0)
        else:
            k = tl.load(k_ptrs)
        if PRE_LOAD_V:
            if MASKED:  # noqa: SIM108
                v = tl.load(v_ptrs, mask=inside[:, None], other=0.0)
            else:
                v = tl.load(v_ptrs)
        s = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
        if MASKED:
            if (start + BLOCK_N == last) and (extra != 0):
                end = tl.full([BLOCK_M], kv_len, tl.int32)
                s = tl.where(start + keys[None, :] < end[:, None], s, float("-inf"))
            s = tl.where(q_rows[:, None] >= (start + causal_keys)[None, :], s, float("-inf"))
        s += tl.dot(q, k) * SCALE
        new_peak = tl.maximum(peak, tl.max(s, 1))
        p = tl.math.exp2(s - new_peak[:, None])
        block_total = tl.sum(p, 1)
        rescale = tl.math.exp2(peak - new_peak)
        acc = acc * rescale[:, None]
        if not PRE_LOAD_V:
            if MASKED:  # noqa: SIM108
                v = tl.load(v_ptrs, mask=inside[:, None], other=0.0)
            else:
                v = tl.load(v_ptrs)
        total = total * rescale + block_total
        peak = new_peak
        acc += tl.dot(p.to(v.type.element_ty), v)
        k_ptrs += BLOCK_N * STRIDE_K
        v_ptrs += BLOCK_N * STRIDE_V
    return acc, total, peak


@triton.jit
def causal_varlen(
    Q, K, V, Lse, Out, q_starts, k_starts,
    STRIDE_QH: tl.constexpr, STRIDE_QM: tl.constexpr, STRIDE_KH: tl.constexpr, STRIDE_KN: tl.constexpr,
    Q_HEADS: tl.constexpr, KV_HEADS: tl.constexpr, MAX_Q: tl.constexpr, HEAD_DIM: tl.constexpr, SCALE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PRE_LOAD_V: tl.constexpr,
):  # fmt: skip
    """Causal attention over sequences one after another: ``attn_fwd``. Grid: blocks of queries, heads, sequences.

    Q and Out [tokens, Q_HEADS, HEAD_DIM], K and V [tokens, KV_HEADS, HEAD_DIM], Lse [sequences, Q_HEADS, MAX_Q];
    starts [sequences + 1]. Unmasked key blocks come first, then those that the diagonal or the end crosses.
    """
    block = tl.program_id(0)
    head = tl.program_id(1)
    sequence = tl.program_id(2)
    rows = block * BLOCK_M + tl.arange(0, BLOCK_M)
    keys = tl.arange(0, BLOCK_N)
    dims = tl.arange(0, HEAD_DIM)
    q_start = tl.load(q_starts + sequence)
    q_len = tl.load(q_starts + sequence + 1) - q_start
    if block * BLOCK_M <= q_len:
        k_start = tl.load(k_starts + sequence)
        kv_len = tl.load(k_starts + sequence + 1) - k_start
        seen = (block + 1) * BLOCK_M + kv_len - q_len
        blocks = min((kv_len + BLOCK_N - 1) // BLOCK_N, (seen + BLOCK_N - 1) // BLOCK_N)
        out_ptrs = Out + head * STRIDE_QH + q_start * STRIDE_QM + rows[:, None] * STRIDE_QM + dims[None, :]
        lse_ptrs = Lse + sequence * Q_HEADS * MAX_Q + head * MAX_Q + rows
        if blocks <= 0:
            nothing = tl.zeros([BLOCK_M, HEAD_DIM], Out.type.element_ty)
            tl.store(out_ptrs, nothing, mask=(rows[:, None] < q_len).broadcast_to([BLOCK_M, HEAD_DIM]))
            tl.store(lse_ptrs, tl.full([BLOCK_M], float("inf"), tl.float32), mask=rows < MAX_Q)
        else:
            kv_head = head // (Q_HEADS // KV_HEADS) if Q_HEADS != KV_HEADS else head
            extra = 0
            if kv_len < BLOCK_N:
                extra = BLOCK_N - kv_len
            elif kv_len % BLOCK_N:
                extra = kv_len % BLOCK_N
            q_ptrs = Q + head * STRIDE_QH + q_start * STRIDE_QM + rows[:, None] * STRIDE_QM + dims[None, :]
            kv_offset = kv_head * STRIDE_KH + k_start * STRIDE_KN
            k_ptrs = K + kv_offset + dims[:, None] + keys[None, :] * STRIDE_KN
            v_ptrs = V + kv_offset + keys[:, None] * STRIDE_KN + dims[None, :]
            peak = tl.full([BLOCK_M], float("-inf"), tl.float32)
            total = tl.full([BLOCK_M], 1.0, tl.float32)
            acc = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
            LOG2_SCALE: tl.constexpr = SCALE * LOG2_E
            q = tl.load(q_ptrs, mask=rows[:, None] < q_len, other=0.0)
            even = (extra == 0) and (q_len % BLOCK_M == 0)
            masked = min(BLOCK_M // BLOCK_N + (not even), blocks)
            full = blocks - masked
            first = 0
            if full > 0:
                acc, total, peak = _fold(
                    acc, total, peak, q, k_ptrs, v_ptrs, first, full * BLOCK_N, rows, keys, keys, kv_len, extra,
                    STRIDE_KN, STRIDE_KN, BLOCK_M, BLOCK_N, LOG2_SCALE, PRE_LOAD_V, False,
                )  # fmt: skip
                first = full * BLOCK_N
            tl.debug_barrier()
            if masked > 0:
                k_ptrs += full * BLOCK_N * STRIDE_KN
                v_ptrs += full * BLOCK_N * STRIDE_KN
                causal_keys = keys + (q_len - kv_len)
                acc, total, peak = _fold(
                    acc, total, peak, q, k_ptrs, v_ptrs, first, blocks * BLOCK_N, rows, keys, causal_keys, kv_len,
                    extra, STRIDE_KN, STRIDE_KN, BLOCK_M, BLOCK_N, LOG2_SCALE, PRE_LOAD_V, True,
                )  # fmt: skip
            acc = acc * (1 / total[:, None])
            end = (block + 1) * BLOCK_M
            unseen = q_len - kv_len
            acc = acc.to(Out.type.element_ty)
            if unseen > block * BLOCK_M and unseen < end:
                acc = tl.where(rows[:, None] >= tl.full([HEAD_DIM], unseen, tl.int32)[None, :], acc, 0.0)
            beyond = end - q_len
            if beyond > 0:
                tl.store(lse_ptrs, peak + tl.math.log2(total), mask=tl.arange(0, BLOCK_M) < BLOCK_M - beyond)
            else:
                tl.store(lse_ptrs, peak + tl.math.log2(total))
            wanted = tl.full([BLOCK_M, HEAD_DIM], 1, tl.int1)
            if beyond > 0:
                wanted = wanted & (rows[:, None] < q_len)
            tl.store(out_ptrs, acc.to(Out.type.element_ty), mask=wanted)


@triton.jit
def _sequence_of(q_starts, block, sequences, BLOCK_Q: tl.constexpr):
    """Return the sequence that a block of queries belongs to, if each sequence has one block more than it needs."""
    left: tl.int32 = 0
    right = sequences
    while left < right:
        middle = (left + right) // 2
        if tl.load(q_starts + middle) // BLOCK_Q + middle <= block:
            left = middle + 1
        else:
            right = middle
    return left - 1


@triton.jit
def paged(
    Out, Q, K, V, tables, kv_lens, scale,
    Q_HEADS: tl.constexpr, GROUP: tl.constexpr, table_stride: tl.int64,
    stride_qt: tl.int64, stride_qh: tl.int64, stride_ot: tl.int64, stride_oh: tl.int64,
    PAGE: tl.constexpr, HEAD_DIM: tl.constexpr,
    stride_kp: tl.int64, stride_kt: tl.int64, stride_kh: tl.int64,
    stride_vp: tl.int64, stride_vt: tl.int64, stride_vh: tl.int64,
    q_starts, sequences,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Causal attention over a cache in pages: ``kernel_unified_attention_2d``. Grid: blocks of queries, KV heads.

    A tile's rows are the GROUP query heads of BLOCK_M // GROUP queries. Q and Out [tokens, Q_HEADS, HEAD_DIM], K and V
    [pages, PAGE, Q_HEADS // GROUP, HEAD_DIM], tables [sequences, pages of the longest], q_starts [sequences + 1].
    """
    block = tl.program_id(0)
    kv_head = tl.program_id(1)
    BLOCK_Q: tl.constexpr = BLOCK_M // GROUP
    sequence = _sequence_of(q_starts, block, sequences, BLOCK_Q)
    local = block - (tl.load(q_starts + sequence) // BLOCK_Q + sequence)
    q_start = tl.load(q_starts + sequence)
    q_len = tl.load(q_starts + sequence + 1) - q_start
    if local * BLOCK_Q >= q_len:
        return
    rows = tl.arange(0, BLOCK_M)
    dims = tl.arange(0, HEAD_DIM)
    query = local * BLOCK_Q + rows // GROUP
    token = q_start + query
    head = kv_head * GROUP + rows % GROUP
    dim_mask = tl.where(dims < HEAD_DIM, 1, 0).to(tl.int1)
    query_mask = tl.where(query < q_len, 1, 0).to(tl.int1)
    head_mask = tl.where(head < Q_HEADS, 1, 0).to(tl.int1)
    wanted = dim_mask[None, :] & query_mask[:, None] & head_mask[:, None]
    q = tl.load(Q + token[:, None] * stride_qt + head[:, None] * stride_qh + dims[None, :], mask=wanted, other=0.0)
    table = sequence * table_stride
    peak = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.full([BLOCK_M], 1.0, tl.float32)
    acc = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
    kv_len = tl.load(kv_lens + sequence)
    context = kv_len - q_len
    keys = tl.arange(0, BLOCK_N)
    for start in range(0, kv_len, BLOCK_N):
        start = tl.multiple_of(start, BLOCK_N)
        page = tl.load(tables + table + (start + keys) // PAGE, mask=(start + keys) < kv_len, other=0)
        v_offset = page[:, None] * stride_vp + kv_head * stride_vh + dims[None, :] + (keys[:, None] % PAGE) * stride_vt
        k_offset = page[None, :] * stride_kp + kv_head * stride_kh + dims[:, None] + (keys[None, :] % PAGE) * stride_kt
        inside = start + keys < kv_len
        k = tl.load(K + k_offset, mask=dim_mask[:, None] & inside[None, :], other=0.0)
        v = tl.load(V + v_offset, mask=dim_mask[None, :] & inside[:, None], other=0.0)
        causal = (start + keys)[None, :] < context + query[:, None] + 1
        s = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
        s += scale * tl.dot(q, k)
        s = tl.where(head_mask[:, None] & query_mask[:, None] & causal, s, float("-inf"))
        new_peak = tl.maximum(peak, tl.max(s, 1))
        new_peak = tl.where(new_peak > float("-inf"), new_peak, 0.0)
        p = tl.exp(s - new_peak[:, None])
        rescale = tl.exp(peak - new_peak)
        acc = acc * rescale[:, None]
        total = total * rescale + tl.sum(p, 1)
        peak = new_peak
        acc += tl.dot(p.to(v.dtype), v)
    acc = acc / total[:, None]
    tl.store(Out + token[:, None] * stride_ot + head[:, None] * stride_oh + dims[None, :], acc, mask=wanted)


@triton.jit
def dense(
    scale, Lse, heads, q_desc, k_desc, v_desc, o_desc, length,
    HEAD_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Attention without masks on descriptors of [batch * heads * length, HEAD_DIM]: ``_attn_fwd`` of tutorial 06.

    Grid: blocks of queries, batch * heads. Lse [batch * heads, length].
    """
    block = tl.program_id(0)
    row = tl.program_id(1)
    start = (row // heads) * (length * heads) + (row % heads) * length
    rows = block * BLOCK_M + tl.arange(0, BLOCK_M)
    peak = tl.zeros([BLOCK_M], tl.float32) - float("inf")
    total = tl.zeros([BLOCK_M], tl.float32) + 1.0
    acc = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
    scale *= 1.44269504
    q = q_desc.load([start + block * BLOCK_M, 0])
    k_row = start
    v_row = start
    for key in tl.range(0, length, BLOCK_N):
        key = tl.multiple_of(key, BLOCK_N)
        s = tl.dot(q, k_desc.load([k_row, 0]).T)
        new_peak = tl.maximum(peak, tl.max(s, 1) * scale)
        p = tl.math.exp2(s * scale - new_peak[:, None])
        rescale = tl.math.exp2(peak - new_peak)
        block_total = tl.sum(p, 1)
        acc = acc * rescale[:, None]
        acc = tl.dot(p.to(tl.float16), v_desc.load([v_row, 0]), acc)
        total = total * rescale + block_total
        peak = new_peak
        k_row += BLOCK_N
        v_row += BLOCK_N
    peak += tl.math.log2(total)
    acc = acc / total[:, None]
    tl.store(Lse + row * length + rows, peak)
    o_desc.store([start + block * BLOCK_M, 0], acc.to(tl.float16))
