"""Decoding over a paged cache: each program attends, with all query heads of one KV head, to a part of the keys of one
sequence; a second kernel combines the parts. There are enough parts to fill a card, whatever the batch is.

With a window the parts are those of the keys that the sequence's queries see. A sink joins where parts are combined.
"""

import triton
import triton.language as tl

PROGRAMS = 264
"""Number of programs to aim for: two for each SM of an H100."""


@triton.jit
def part_kernel(
    Q, K, V, Table, Lengths, Part, PartLse, scale,
    stride_qb, stride_qh, stride_qm, stride_qd, stride_kp, stride_kh, stride_kn, stride_kd,
    stride_vp, stride_vh, stride_vn, stride_vd,
    heads, kv_heads, q_len, window, most, span, splits,
    WINDOWED: tl.constexpr, FAR: tl.constexpr, PAGE: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
    VALUE_DIM: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    split = tl.program_id(0)
    batch, kv_head = (tl.program_id(1) // kv_heads).to(tl.int64), (tl.program_id(1) % kv_heads).to(tl.int64)
    group = heads // kv_heads
    # A row is one query of one query head.
    rows, offs_d = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    head, token = kv_head * group + rows // q_len, rows % q_len
    query = token
    if FAR:  # offsets within a page, or among the queries of a head, do not fit in 32 bits
        query = query.to(tl.int64)
    in_m, in_d = rows < group * q_len, offs_d < HEAD_DIM
    q = tl.load(
        Q + batch * stride_qb + (head * stride_qh + query * stride_qm)[:, None] + offs_d[None, :] * stride_qd,
        mask=in_m[:, None] & in_d[None, :],
        other=0.0,
    )
    length = tl.load(Lengths + batch)
    row_max = tl.full([BLOCK_M], float("-inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_V], tl.float32)
    offs_v = tl.arange(0, BLOCK_V)
    in_v = offs_v < VALUE_DIM
    first = 0
    if WINDOWED:
        first = tl.maximum(length - q_len + 1 - window, 0)
    for start in range(first + split * span, tl.minimum(first + (split + 1) * span, length), BLOCK_N):
        keys = start + tl.arange(0, BLOCK_N)
        row = keys % PAGE
        if FAR:
            row = row.to(tl.int64)
        in_n = keys < length
        page = tl.load(Table + batch * most + keys // PAGE, mask=in_n, other=0).to(tl.int64)
        k = tl.load(
            K + (page * stride_kp + kv_head * stride_kh + row * stride_kn)[None, :] + offs_d[:, None] * stride_kd,
            mask=in_n[None, :] & in_d[:, None],
            other=0.0,
        )
        visible = in_n[None, :] & (keys[None, :] <= token[:, None] + (length - q_len))
        if WINDOWED:
            visible = visible & (keys[None, :] > token[:, None] + (length - q_len) - window)
        scores = tl.where(visible, tl.dot(q, k) * scale, float("-inf"))
        new_max = tl.maximum(row_max, tl.max(scores, 1))
        # Keys of this part may all be behind a query.
        base = tl.where(new_max == float("-inf"), 0.0, new_max)
        rescale, p = tl.exp(row_max - base), tl.exp(scores - base[:, None])
        row_sum = row_sum * rescale + tl.sum(p, 1)
        v = tl.load(
            V + (page * stride_vp + kv_head * stride_vh + row * stride_vn)[:, None] + offs_v[None, :] * stride_vd,
            mask=in_n[:, None] & in_v[None, :],
            other=0.0,
        )
        acc = tl.dot(p.to(v.dtype), v, acc * rescale[:, None])
        row_max = new_max
    seen = row_sum > 0.0
    divisor = tl.where(seen, row_sum, 1.0)
    at = ((batch * heads + head) * q_len + token) * splits + split
    tl.store(
        Part + at[:, None] * VALUE_DIM + offs_v[None, :], acc / divisor[:, None], mask=in_m[:, None] & in_v[None, :]
    )
    tl.store(PartLse + at, tl.where(seen, row_max + tl.log(divisor), float("-inf")), mask=in_m)


@triton.jit
def combine_kernel(
    Part, PartLse, Sinks, Out, Lse, stride_ob, stride_oh, stride_om, stride_od, heads, q_len, splits,
    SINKS: tl.constexpr, VALUE_DIM: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    batch, head, token = row // (heads * q_len), row // q_len % heads, row % q_len
    part, offs_v = tl.arange(0, BLOCK_S), tl.arange(0, BLOCK_V)
    in_v = offs_v < VALUE_DIM
    lse = tl.load(PartLse + row * splits + part, mask=part < splits, other=float("-inf"))
    top = tl.max(lse, 0)
    if SINKS:
        sink = tl.load(Sinks + head)
        top = tl.maximum(top, sink)
    weights = tl.exp(lse - top)
    values = tl.load(
        Part + (row * splits + part)[:, None] * VALUE_DIM + offs_v[None, :],
        mask=(part < splits)[:, None] & in_v[None, :],
        other=0.0,
    )
    total = tl.sum(weights, 0)
    if SINKS:
        total += tl.exp(sink - top)
    out = tl.sum(values * weights[:, None], 0) / total
    place = Out + batch * stride_ob + head * stride_oh + token * stride_om + offs_v * stride_od
    tl.store(place, out.to(Out.dtype.element_ty), mask=in_v)
    tl.store(Lse + row, top + tl.log(total))


def decode(q, k, v, block_table, lengths, *others, scale: float, window: int = 0) -> None:
    *sinks, out, lse = others
    batch, heads, q_len, head_dim = q.shape
    kv_heads, page, value_dim = k.shape[1], k.shape[2], v.shape[3]
    most, block_n = block_table.shape[1], 64
    # Of a sequence no more keys than these are seen.
    keys = min(most * page, window + q_len - 1) if window else most * page
    tiles = triton.cdiv(keys, block_n)
    splits = max(1, min(triton.cdiv(PROGRAMS, batch * kv_heads), tiles, 128))
    span = triton.cdiv(tiles, splits) * block_n
    splits = triton.cdiv(keys, span)
    part = lse.new_empty((batch, heads, q_len, splits, value_dim))
    part_lse = lse.new_empty((batch, heads, q_len, splits))
    values = {"VALUE_DIM": value_dim, "BLOCK_V": triton.next_power_of_2(value_dim)}
    part_kernel[splits, batch * kv_heads](
        q, k, v, block_table, lengths, part, part_lse, scale, *q.stride(), *k.stride(), *v.stride(),
        heads, kv_heads, q_len, window, most, span, splits,
        WINDOWED=window > 0, FAR=max(q.stride(2), k.stride(2), v.stride(2)) * page >= 2**31,
        PAGE=page, HEAD_DIM=head_dim, BLOCK_D=triton.next_power_of_2(head_dim), **values,
        BLOCK_M=max(16, triton.next_power_of_2(heads // kv_heads * q_len)), BLOCK_N=block_n,
        num_warps=4, num_stages=2,
    )  # fmt: skip
    combine_kernel[(batch * heads * q_len,)](
        part, part_lse, sinks[0] if sinks else lse, out, lse, *out.stride(), heads, q_len, splits,
        SINKS=len(sinks) > 0, **values, BLOCK_S=triton.next_power_of_2(splits), num_warps=4,
    )  # fmt: skip
