"""Flash attention backward, written plainly, with what some models have besides: values of another size than keys, a
window, a sink for each head, and sequences packed one after another. Kernels as in ``plain``, over the keys or queries
that a tile meets, and one more that has a program for each head's sink. All sums have one order.

Rows of 96 and of 192 elements are taken in two parts, 64 and 32 or 128 and 64, so that no product is padded.
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
def delta_kernel(
    Out, Dout, Delta, heads, q_len,
    stride_ob, stride_oh, stride_om, stride_od, stride_gb, stride_gh, stride_gm, stride_gd,
    BLOCK_V: tl.constexpr, REST_V: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    batch, head = (tl.program_id(1) // heads).to(tl.int64), (tl.program_id(1) % heads).to(tl.int64)
    out = load_rows(Out, batch, head, rows, q_len, stride_ob, stride_oh, stride_om, stride_od, 0, BLOCK_V)
    dout = load_rows(Dout, batch, head, rows, q_len, stride_gb, stride_gh, stride_gm, stride_gd, 0, BLOCK_V)
    delta = tl.sum(out.to(tl.float32) * dout.to(tl.float32), 1)
    if REST_V:
        out = load_rows(Out, batch, head, rows, q_len, stride_ob, stride_oh, stride_om, stride_od, BLOCK_V, REST_V)
        dout = load_rows(Dout, batch, head, rows, q_len, stride_gb, stride_gh, stride_gm, stride_gd, BLOCK_V, REST_V)
        delta += tl.sum(out.to(tl.float32) * dout.to(tl.float32), 1)
    tl.store(Delta + tl.program_id(1).to(tl.int64) * q_len + rows, delta, mask=rows < q_len)


@triton.jit
def sinks_kernel(Sinks, Lse, Delta, Dsinks, batches, heads, q_len, BLOCK_M: tl.constexpr):
    head = tl.program_id(0)
    sink = tl.load(Sinks + head)
    dsink = tl.zeros([BLOCK_M], tl.float32)
    for batch in range(batches):
        at = (batch * heads + head).to(tl.int64) * q_len
        for start_m in range(0, q_len, BLOCK_M):
            rows = start_m + tl.arange(0, BLOCK_M)
            lse = tl.load(Lse + at + rows, mask=rows < q_len, other=float("inf"))
            delta = tl.load(Delta + at + rows, mask=rows < q_len, other=0.0)
            dsink -= tl.exp(sink - lse) * delta
    tl.store(Dsinks + head, tl.sum(dsink, 0))


@triton.jit
def keys_kernel(
    Q, K, V, StartsQ, StartsK, Dout, Lse, Delta, Dk, Dv, scale,
    stride_qb, stride_qh, stride_qm, stride_qd, stride_kb, stride_kh, stride_kn, stride_kd,
    stride_vb, stride_vh, stride_vn, stride_vd, stride_gb, stride_gh, stride_gm, stride_gd,
    stride_dkb, stride_dkh, stride_dkn, stride_dkd, stride_dvb, stride_dvh, stride_dvn, stride_dvd,
    heads, kv_heads, q_len, kv_len, window,
    CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, PACKED: tl.constexpr, BLOCK_D: tl.constexpr, REST_D: tl.constexpr,
    BLOCK_V: tl.constexpr, REST_V: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    batch, kv_head = (tl.program_id(1) // kv_heads).to(tl.int64), (tl.program_id(1) % kv_heads).to(tl.int64)
    first_q, end_q, first_k, end_k = 0, q_len, 0, kv_len
    if PACKED:
        sequence = tl.program_id(2)
        first_q, end_q = tl.load(StartsQ + sequence), tl.load(StartsQ + sequence + 1)
        first_k, end_k = tl.load(StartsK + sequence), tl.load(StartsK + sequence + 1)
    start_n = first_k + tl.program_id(0) * BLOCK_N
    offs_n = start_n + tl.arange(0, BLOCK_N)
    # The last key of a sequence is seen by its last query.
    shift = end_k - end_q
    k = load_rows(K, batch, kv_head, offs_n, end_k, stride_kb, stride_kh, stride_kn, stride_kd, 0, BLOCK_D)
    v = load_rows(V, batch, kv_head, offs_n, end_k, stride_vb, stride_vh, stride_vn, stride_vd, 0, BLOCK_V)
    dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_N, BLOCK_V], tl.float32)
    if REST_D:
        k_rest = load_rows(
            K, batch, kv_head, offs_n, end_k, stride_kb, stride_kh, stride_kn, stride_kd, BLOCK_D, REST_D
        )
        dk_rest = tl.zeros([BLOCK_N, REST_D], tl.float32)
    if REST_V:
        v_rest = load_rows(
            V, batch, kv_head, offs_n, end_k, stride_vb, stride_vh, stride_vn, stride_vd, BLOCK_V, REST_V
        )
        dv_rest = tl.zeros([BLOCK_N, REST_V], tl.float32)
    start, stop = first_q, end_q
    if CAUSAL:
        # The first query that sees the first key of this tile.
        start = first_q + tl.maximum(start_n - shift - first_q, 0) // BLOCK_M * BLOCK_M
    if WINDOWED:
        # The last query that sees the last key.
        stop = tl.minimum(end_q, start_n + BLOCK_N - 1 - shift + window)
    if PACKED:
        stop = tl.where(start_n < end_k, stop, start)
    group = heads // kv_heads
    for member in range(group):
        head = kv_head * group + member
        at = (batch * heads + head) * q_len
        for start_m in range(start, stop, BLOCK_M):
            offs_m = start_m + tl.arange(0, BLOCK_M)
            q = load_rows(Q, batch, head, offs_m, end_q, stride_qb, stride_qh, stride_qm, stride_qd, 0, BLOCK_D)
            scores = tl.dot(k, tl.trans(q))
            if REST_D:
                q_rest = load_rows(
                    Q, batch, head, offs_m, end_q, stride_qb, stride_qh, stride_qm, stride_qd, BLOCK_D, REST_D
                )
                scores = tl.dot(k_rest, tl.trans(q_rest), scores)
            lse = tl.load(Lse + at + offs_m, mask=offs_m < end_q, other=0.0)
            visible = (offs_m < end_q)[None, :] & (offs_n < end_k)[:, None]
            if CAUSAL:
                visible = visible & (offs_n[:, None] <= offs_m[None, :] + shift)
            if WINDOWED:
                visible = visible & (offs_n[:, None] > offs_m[None, :] + shift - window)
            p = tl.where(visible, tl.exp(scores * scale - lse[None, :]), 0.0)
            dout = load_rows(Dout, batch, head, offs_m, end_q, stride_gb, stride_gh, stride_gm, stride_gd, 0, BLOCK_V)
            dv = tl.dot(p.to(dout.dtype), dout, dv)
            dp = tl.dot(v, tl.trans(dout))
            if REST_V:
                dout_rest = load_rows(
                    Dout, batch, head, offs_m, end_q, stride_gb, stride_gh, stride_gm, stride_gd, BLOCK_V, REST_V
                )
                dv_rest = tl.dot(p.to(dout.dtype), dout_rest, dv_rest)
                dp = tl.dot(v_rest, tl.trans(dout_rest), dp)
            delta = tl.load(Delta + at + offs_m, mask=offs_m < end_q, other=0.0)
            ds = p * (dp - delta[None, :])
            dk = tl.dot(ds.to(q.dtype), q, dk)
            if REST_D:
                dk_rest = tl.dot(ds.to(q.dtype), q_rest, dk_rest)
    dk = dk * scale
    store_rows(Dk, dk, batch, kv_head, offs_n, end_k, stride_dkb, stride_dkh, stride_dkn, stride_dkd, 0, BLOCK_D)
    store_rows(Dv, dv, batch, kv_head, offs_n, end_k, stride_dvb, stride_dvh, stride_dvn, stride_dvd, 0, BLOCK_V)
    if REST_D:
        dk_rest = dk_rest * scale
        store_rows(
            Dk, dk_rest, batch, kv_head, offs_n, end_k, stride_dkb, stride_dkh, stride_dkn, stride_dkd, BLOCK_D, REST_D
        )
    if REST_V:
        store_rows(
            Dv, dv_rest, batch, kv_head, offs_n, end_k, stride_dvb, stride_dvh, stride_dvn, stride_dvd, BLOCK_V, REST_V
        )


@triton.jit
def queries_kernel(
    Q, K, V, StartsQ, StartsK, Dout, Lse, Delta, Dq, scale,
    stride_qb, stride_qh, stride_qm, stride_qd, stride_kb, stride_kh, stride_kn, stride_kd,
    stride_vb, stride_vh, stride_vn, stride_vd, stride_gb, stride_gh, stride_gm, stride_gd,
    stride_dqb, stride_dqh, stride_dqm, stride_dqd,
    heads, kv_heads, q_len, kv_len, window,
    CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, PACKED: tl.constexpr, BLOCK_D: tl.constexpr, REST_D: tl.constexpr,
    BLOCK_V: tl.constexpr, REST_V: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    batch, head = (tl.program_id(1) // heads).to(tl.int64), (tl.program_id(1) % heads).to(tl.int64)
    kv_head = head // (heads // kv_heads)
    first_q, end_q, first_k, end_k = 0, q_len, 0, kv_len
    if PACKED:
        sequence = tl.program_id(2)
        first_q, end_q = tl.load(StartsQ + sequence), tl.load(StartsQ + sequence + 1)
        first_k, end_k = tl.load(StartsK + sequence), tl.load(StartsK + sequence + 1)
    first_row = first_q + tl.program_id(0) * BLOCK_M
    offs_m = first_row + tl.arange(0, BLOCK_M)
    shift = end_k - end_q
    q = load_rows(Q, batch, head, offs_m, end_q, stride_qb, stride_qh, stride_qm, stride_qd, 0, BLOCK_D)
    dout = load_rows(Dout, batch, head, offs_m, end_q, stride_gb, stride_gh, stride_gm, stride_gd, 0, BLOCK_V)
    dq = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    if REST_D:
        q_rest = load_rows(Q, batch, head, offs_m, end_q, stride_qb, stride_qh, stride_qm, stride_qd, BLOCK_D, REST_D)
        dq_rest = tl.zeros([BLOCK_M, REST_D], tl.float32)
    if REST_V:
        dout_rest = load_rows(
            Dout, batch, head, offs_m, end_q, stride_gb, stride_gh, stride_gm, stride_gd, BLOCK_V, REST_V
        )
    at = (batch * heads + head) * q_len
    lse = tl.load(Lse + at + offs_m, mask=offs_m < end_q, other=0.0)
    delta = tl.load(Delta + at + offs_m, mask=offs_m < end_q, other=0.0)
    start, stop = first_k, end_k
    if CAUSAL:
        stop = tl.minimum(end_k, first_row + BLOCK_M + shift)
    if WINDOWED:
        start = first_k + tl.maximum(first_row + shift - window + 1 - first_k, 0) // BLOCK_N * BLOCK_N
    if PACKED:
        stop = tl.where(first_row < end_q, stop, start)
    for start_n in range(start, stop, BLOCK_N):
        offs_n = start_n + tl.arange(0, BLOCK_N)
        k = load_rows(K, batch, kv_head, offs_n, end_k, stride_kb, stride_kh, stride_kn, stride_kd, 0, BLOCK_D)
        v = load_rows(V, batch, kv_head, offs_n, end_k, stride_vb, stride_vh, stride_vn, stride_vd, 0, BLOCK_V)
        scores = tl.dot(q, tl.trans(k))
        dp = tl.dot(dout, tl.trans(v))
        if REST_D:
            k_rest = load_rows(
                K, batch, kv_head, offs_n, end_k, stride_kb, stride_kh, stride_kn, stride_kd, BLOCK_D, REST_D
            )
            scores = tl.dot(q_rest, tl.trans(k_rest), scores)
        if REST_V:
            v_rest = load_rows(
                V, batch, kv_head, offs_n, end_k, stride_vb, stride_vh, stride_vn, stride_vd, BLOCK_V, REST_V
            )
            dp = tl.dot(dout_rest, tl.trans(v_rest), dp)
        visible = (offs_m < end_q)[:, None] & (offs_n < end_k)[None, :]
        if CAUSAL:
            visible = visible & (offs_n[None, :] <= offs_m[:, None] + shift)
        if WINDOWED:
            visible = visible & (offs_n[None, :] > offs_m[:, None] + shift - window)
        p = tl.where(visible, tl.exp(scores * scale - lse[:, None]), 0.0)
        ds = p * (dp - delta[:, None])
        dq = tl.dot(ds.to(k.dtype), k, dq)
        if REST_D:
            dq_rest = tl.dot(ds.to(k.dtype), k_rest, dq_rest)
    dq = dq * scale
    store_rows(Dq, dq, batch, head, offs_m, end_q, stride_dqb, stride_dqh, stride_dqm, stride_dqd, 0, BLOCK_D)
    if REST_D:
        dq_rest = dq_rest * scale
        store_rows(
            Dq, dq_rest, batch, head, offs_m, end_q, stride_dqb, stride_dqh, stride_dqm, stride_dqd, BLOCK_D, REST_D
        )


def parts(dim: int) -> tuple[int, int]:
    """Return the largest power of two within a head dim, and the rest, which is another one or zero."""
    first = 1 << dim.bit_length() - 1
    return first, dim - first


def attention_backward(
    q, k, v, *others, causal: bool, scale: float, window: int = 0, max_seqlen_q: int = 0, max_seqlen_k: int = 0
) -> None:
    # If sequences are packed, their cumulative lengths come first; then the sinks, whose gradient is the last output.
    starts_q, starts_k, *rest = others if max_seqlen_q else (None, None, *others)
    sinks, *rest, dsinks = rest if len(rest) == 8 else (None, *rest, None)
    out, lse, dout, dq, dk, dv = rest
    batch, heads, q_len, head_dim = q.shape
    kv_heads, kv_len = k.shape[1], k.shape[2]
    sequences = starts_q.shape[0] - 1 if max_seqlen_q else 1
    starts = (starts_q, starts_k) if max_seqlen_q else (lse, lse)
    values = dict(zip(("BLOCK_V", "REST_V"), parts(v.shape[3]), strict=True))
    dims = dict(zip(("BLOCK_D", "REST_D"), parts(head_dim), strict=True)) | values
    flags = {"CAUSAL": causal, "WINDOWED": 0 < window < kv_len, "PACKED": max_seqlen_q > 0}
    strides = (*q.stride(), *k.stride(), *v.stride(), *dout.stride())
    sizes = (heads, kv_heads, q_len, kv_len, window)
    delta = lse.new_empty(lse.shape)
    delta_kernel[triton.cdiv(q_len, 64), batch * heads](
        out, dout, delta, heads, q_len, *out.stride(), *dout.stride(), **values, BLOCK_M=64, num_warps=4
    )
    if sinks is not None:
        sinks_kernel[(heads,)](sinks, lse, delta, dsinks, batch, heads, q_len, BLOCK_M=1024, num_warps=4)
    block_m, block_n = 64, 64
    keys_kernel[triton.cdiv(max_seqlen_k or kv_len, block_n), batch * kv_heads, sequences](
        q, k, v, *starts, dout, lse, delta, dk, dv, scale, *strides, *dk.stride(), *dv.stride(), *sizes,
        **flags, **dims, BLOCK_M=block_m, BLOCK_N=block_n, num_warps=4, num_stages=2,
    )  # fmt: skip
    tile_m, tile_n = 64, 64
    queries_kernel[triton.cdiv(max_seqlen_q or q_len, tile_m), batch * heads, sequences](
        q, k, v, *starts, dout, lse, delta, dq, scale, *strides, *dq.stride(), *sizes,
        **flags, **dims, BLOCK_M=tile_m, BLOCK_N=tile_n, num_warps=4, num_stages=2,
    )  # fmt: skip
