"""Selected attention backward, each gradient in its own order: dq by the blocks that neighbours select together, dk and
dv by the queries that selected a block.

For dq the rows of a tile are the query heads of one KV head at up to 32 consecutive positions. ``tiles_kernel`` lists
the blocks of each tile, and of each block a word of bits: which positions selected it. ``queries_kernel`` walks over a
tile's list and multiplies each block with all rows. A row whose position did not select the block subtracts infinity
from its scores. dq is written once, without atomic additions.

For dk and dv the queries that selected a block are gathered into tiles, as in Flash Sparse Attention (arXiv
2508.18224). ``count_kernel``, ``place_kernel`` and ``list_kernel`` list them by a histogram, a scan and a scatter.
Blocks of packed sequences are numbered through: those of a sequence start at a number that leaves room for all before.
A program of ``keys_kernel`` takes a share of a block's list and adds its parts to float32 sums by atomic additions, in
no certain order. ``rounding_kernel`` rounds the sums. ``sinks_kernel`` has a program for the gradient of each head's
sink.

Correct in all settings: with sinks, packed sequences and values of another length than keys, for any lengths, group,
strides, number of blocks and block size.
"""

import triton
import triton.language as tl


@triton.jit
def load_rows(
    Base, batch, head, row, there, stride_b, stride_h, stride_m, stride_d, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr
):  # fmt: skip
    """Load rows [n, BLOCK_D], zero where they are not ``there``; head or row may be the same for all."""
    offs_d = tl.arange(0, BLOCK_D)
    at = batch * stride_b + head * stride_h + row.to(tl.int64) * stride_m
    places = Base + at[:, None] + offs_d[None, :] * stride_d
    return tl.load(places, mask=there[:, None] & (offs_d < HEAD_DIM)[None, :], other=0.0)


@triton.jit
def store_rows(
    Base, values, batch, head, row, there, stride_b, stride_h, stride_m, stride_d,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    offs_d = tl.arange(0, BLOCK_D)
    at = batch * stride_b + head * stride_h + row.to(tl.int64) * stride_m
    places = Base + at[:, None] + offs_d[None, :] * stride_d
    tl.store(places, values.to(Base.dtype.element_ty), mask=there[:, None] & (offs_d < HEAD_DIM)[None, :])


@triton.jit
def delta_kernel(
    Out, Dout, Delta, heads, length,
    stride_ob, stride_oh, stride_om, stride_od, stride_gb, stride_gh, stride_gm, stride_gd,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Store the row sums of dout * out."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    there = rows < length
    batch, head = (tl.program_id(1) // heads).to(tl.int64), (tl.program_id(1) % heads).to(tl.int64)
    out = load_rows(Out, batch, head, rows, there, stride_ob, stride_oh, stride_om, stride_od, HEAD_DIM, BLOCK_D)
    dout = load_rows(Dout, batch, head, rows, there, stride_gb, stride_gh, stride_gm, stride_gd, HEAD_DIM, BLOCK_D)
    delta = tl.sum(out.to(tl.float32) * dout.to(tl.float32), 1)
    tl.store(Delta + tl.program_id(1).to(tl.int64) * length + rows, delta, mask=there)


@triton.jit
def sinks_kernel(Sinks, Lse, Delta, Dsinks, batches, heads, length, BLOCK_M: tl.constexpr):
    head = tl.program_id(0)
    sink = tl.load(Sinks + head)
    dsink = tl.zeros([BLOCK_M], tl.float32)
    for batch in range(batches):
        at = (batch * heads + head).to(tl.int64) * length
        for start_m in range(0, length, BLOCK_M):
            rows = start_m + tl.arange(0, BLOCK_M)
            lse = tl.load(Lse + at + rows, mask=rows < length, other=float("inf"))
            delta = tl.load(Delta + at + rows, mask=rows < length, other=0.0)
            dsink -= tl.exp(sink - lse) * delta
    tl.store(Dsinks + head, tl.sum(dsink, 0))


@triton.jit
def load_starts(Starts, sequences, block_size, SEQUENCES: tl.constexpr):
    """Return where each sequence starts, and the number of its first block; both beyond all others where there is none.

    Sequences end within blocks, so each may have one block more than its share of all keys.
    """
    sequence = tl.arange(0, SEQUENCES)
    start = tl.load(Starts + sequence, mask=sequence < sequences, other=2147483647)
    return start, tl.where(sequence < sequences, start // block_size + sequence, 2147483647)


@triton.jit
def load_indices(
    Indices, Starts, length, blocks, block_size, sequences,
    PACKED: tl.constexpr, SEQUENCES: tl.constexpr, TOKENS: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """Return a tile of tokens of one KV head, [tokens, slots], and the numbers of the blocks that they select."""
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    slot = tl.arange(0, SLOTS)
    at = Indices + tl.program_id(1).to(tl.int64) * length * blocks + token[:, None] * blocks + slot[None, :]
    block = tl.load(at, mask=(token < length)[:, None] & (slot < blocks)[None, :], other=-1)
    if PACKED:
        starts, first_blocks = load_starts(Starts, sequences, block_size, SEQUENCES)
        first_block = tl.max(tl.where(starts[None, :] <= token[:, None], first_blocks[None, :], 0), 1)
        block = tl.where(block >= 0, block + first_block[:, None], -1)
    return token[:, None] + tl.zeros_like(block), block


@triton.jit
def count_kernel(
    Indices, Starts, Counts, length, blocks, block_size, sequences, n_blocks,
    PACKED: tl.constexpr, SEQUENCES: tl.constexpr, TOKENS: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    _, block = load_indices(Indices, Starts, length, blocks, block_size, sequences, PACKED, SEQUENCES, TOKENS, SLOTS)
    tl.atomic_add(Counts + tl.program_id(1) * n_blocks + block, 1, mask=block >= 0)


@triton.jit
def place_kernel(Counts, Places, Cursors, Ends, group, n_blocks, SHARE: tl.constexpr, BLOCKS: tl.constexpr):
    """Store where the list of each block of one KV head starts, and how many shares there are up to its end."""
    block = tl.arange(0, BLOCKS)
    there = block < n_blocks
    place = tl.program_id(0) * n_blocks + block
    count = tl.load(Counts + place, mask=there, other=0)
    start = tl.cumsum(count) - count
    tl.store(Places + place, start, mask=there)
    tl.store(Cursors + place, start, mask=there)
    tl.store(Ends + place, tl.cumsum(tl.cdiv(count * group, SHARE)), mask=there)


@triton.jit
def list_kernel(
    Indices, Starts, Cursors, Lists, length, blocks, block_size, sequences, n_blocks,
    PACKED: tl.constexpr, SEQUENCES: tl.constexpr, TOKENS: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    token, block = load_indices(
        Indices, Starts, length, blocks, block_size, sequences, PACKED, SEQUENCES, TOKENS, SLOTS
    )
    place = tl.atomic_add(Cursors + tl.program_id(1) * n_blocks + block, 1, mask=block >= 0)
    tl.store(Lists + tl.program_id(1).to(tl.int64) * length * blocks + place, token, mask=block >= 0)


@triton.jit
def keys_kernel(
    Q, K, V, Starts, Dout, Lse, Delta, Counts, Places, Ends, Lists, SumK, SumV, scale,
    stride_qb, stride_qh, stride_qm, stride_qd, stride_kb, stride_kh, stride_kn, stride_kd,
    stride_vb, stride_vh, stride_vn, stride_vd, stride_gb, stride_gh, stride_gm, stride_gd,
    kv_heads, group, length, blocks, n_blocks, block_size, sequences,
    PACKED: tl.constexpr, SEQUENCES: tl.constexpr,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, VALUE_DIM: tl.constexpr, BLOCK_V: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, SHARE: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """Add what one share of the list of one block makes of dk and dv. A row is one query head of one token."""
    program = tl.program_id(0)
    batch_head = tl.program_id(1).to(tl.int64)
    batch, kv_head = batch_head // kv_heads, batch_head % kv_heads

    offs_b = tl.arange(0, BLOCKS)
    ends = tl.load(Ends + batch_head * n_blocks + offs_b, mask=offs_b < n_blocks, other=2147483647)
    block = tl.sum((ends <= program).to(tl.int32))
    share = program - tl.max(tl.where(offs_b < block, ends, 0))
    there = block < n_blocks
    rows = tl.load(Counts + batch_head * n_blocks + block, mask=there, other=0) * group
    start = tl.load(Places + batch_head * n_blocks + block, mask=there, other=0)

    offs_n, offs_d, offs_v = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_V)
    first, end = 0, length
    if PACKED:
        _, first_blocks = load_starts(Starts, sequences, block_size, SEQUENCES)
        sequence = tl.sum((first_blocks <= block).to(tl.int32)) - 1
        first, end = tl.load(Starts + sequence), tl.load(Starts + sequence + 1)
        block -= first // block_size + sequence
    keys = first + block * block_size + offs_n
    in_n = (offs_n < block_size) & (keys < end)
    k = load_rows(K, batch, kv_head, keys, in_n, stride_kb, stride_kh, stride_kn, stride_kd, HEAD_DIM, BLOCK_D)
    v = load_rows(V, batch, kv_head, keys, in_n, stride_vb, stride_vh, stride_vn, stride_vd, VALUE_DIM, BLOCK_V)

    dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_N, BLOCK_V], tl.float32)
    for begin in range(share * SHARE, tl.minimum(rows, (share + 1) * SHARE), BLOCK_M):
        row = begin + tl.arange(0, BLOCK_M)
        in_m = row < rows
        token = tl.load(Lists + batch_head * length * blocks + start + row // group, mask=in_m, other=0)
        head = kv_head * group + row % group
        q = load_rows(Q, batch, head, token, in_m, stride_qb, stride_qh, stride_qm, stride_qd, HEAD_DIM, BLOCK_D)
        dout = load_rows(Dout, batch, head, token, in_m, stride_gb, stride_gh, stride_gm, stride_gd, VALUE_DIM, BLOCK_V)
        of_row = (batch * kv_heads * group + head) * length + token
        lse = tl.load(Lse + of_row, mask=in_m, other=0.0)
        delta = tl.load(Delta + of_row, mask=in_m, other=0.0)
        visible = in_n[:, None] & in_m[None, :] & (keys[:, None] <= token[None, :])
        p = tl.where(visible, tl.exp(tl.dot(k, tl.trans(q)) * scale - lse[None, :]), 0.0)
        dv = tl.dot(p.to(dout.dtype), dout, dv)
        ds = p * (tl.dot(v, tl.trans(dout)) - delta[None, :])
        dk = tl.dot(ds.to(q.dtype), q, dk)
    of_key = batch_head * length + keys[:, None]
    in_k, in_v = in_n[:, None] & (offs_d < HEAD_DIM)[None, :], in_n[:, None] & (offs_v < VALUE_DIM)[None, :]
    tl.atomic_add(SumK + of_key * HEAD_DIM + offs_d[None, :], dk * scale, mask=in_k, sem="relaxed")
    tl.atomic_add(SumV + of_key * VALUE_DIM + offs_v[None, :], dv, mask=in_v, sem="relaxed")


@triton.jit
def rounding_kernel(
    Sum, Rounded, stride_b, stride_h, stride_n, stride_d, heads, length,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    rows, offs_d = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    batch, head = (tl.program_id(1) // heads).to(tl.int64), (tl.program_id(1) % heads).to(tl.int64)
    place = (tl.program_id(1).to(tl.int64) * length + rows[:, None]) * HEAD_DIM + offs_d[None, :]
    total = tl.load(Sum + place, mask=(rows < length)[:, None] & (offs_d < HEAD_DIM)[None, :], other=0.0)
    store_rows(
        Rounded, total, batch, head, rows, rows < length, stride_b, stride_h, stride_n, stride_d, HEAD_DIM, BLOCK_D
    )


@triton.jit
def load_range(Starts, length, sequences, PACKED: tl.constexpr):
    """Return the first position of a program's sequence, and the one behind its last."""
    first, end = 0, length
    if PACKED:
        first = tl.load(Starts + tl.program_id(1) % sequences)
        end = tl.load(Starts + tl.program_id(1) % sequences + 1)
    return first, end


@triton.jit
def tiles_kernel(
    Indices, Starts, Blocks, Members, Counts, group, length, blocks, rows, n_blocks, sequences,
    PACKED: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """Store the list of one tile: its blocks in ascending order, the words of their members, and how many they are."""
    tile = (tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)).to(tl.int64)
    first, end = load_range(Starts, length, sequences, PACKED)
    start = first * group + tl.program_id(0) * rows
    last = tl.minimum((start + rows - 1) // group + 1, end)
    member, slot, bit = tl.arange(0, 32), tl.arange(0, SLOTS), tl.arange(0, 32)
    position = start // group + member
    chosen = tl.load(
        Indices + ((tl.program_id(1) // sequences).to(tl.int64) * length + position)[:, None] * blocks + slot[None, :],
        mask=(position < last)[:, None] & (slot < blocks)[None, :],
        other=-1,
    )
    count = 0
    for begin in range(0, n_blocks, 32):
        inside = (chosen >= begin) & (chosen < begin + 32)
        words = tl.sum(tl.where(inside, 1 << chosen % 32, 0), 1)
        members = tl.sum((words[:, None] >> bit[None, :] & 1) << member[:, None], 0)
        there = members != 0
        place = tile * n_blocks + count + tl.cumsum(there.to(tl.int32)) - 1
        tl.store(Blocks + place, begin + bit, mask=there)
        tl.store(Members + place, members, mask=there)
        count += tl.sum(there.to(tl.int32))
    tl.store(Counts + tile, count)


@triton.jit
def queries_kernel(
    Q, K, V, Starts, Dout, Lse, Delta, Blocks, Members, Counts, Dq, scale,
    stride_qb, stride_qh, stride_qm, stride_qd, stride_kb, stride_kh, stride_kn, stride_kd,
    stride_vb, stride_vh, stride_vn, stride_vd, stride_gb, stride_gh, stride_gm, stride_gd,
    stride_dqb, stride_dqh, stride_dqm, stride_dqd,
    kv_heads, group, length, rows, n_blocks, block_size, parts, sequences,
    PACKED: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, VALUE_DIM: tl.constexpr, BLOCK_V: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Store dq of one tile. A row is one query head at one position."""
    pair = tl.program_id(1) // sequences
    batch, kv_head = (pair // kv_heads).to(tl.int64), (pair % kv_heads).to(tl.int64)
    first, end = load_range(Starts, length, sequences, PACKED)
    start_m = first * group + tl.program_id(0) * rows
    offs_m, offs_n = start_m + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N)
    position, head = offs_m // group, kv_head * group + offs_m % group
    in_m = (position < end) & (offs_m < start_m + rows)
    q = load_rows(Q, batch, head, position, in_m, stride_qb, stride_qh, stride_qm, stride_qd, HEAD_DIM, BLOCK_D)
    dout = load_rows(Dout, batch, head, position, in_m, stride_gb, stride_gh, stride_gm, stride_gd, VALUE_DIM, BLOCK_V)
    of_row = (batch * kv_heads * group + head) * length + position
    lse = tl.load(Lse + of_row, mask=in_m, other=0.0)
    delta = tl.load(Delta + of_row, mask=in_m, other=0.0)
    dq = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)

    tile = (tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)).to(tl.int64)
    tile_blocks, tile_members = Blocks + tile * n_blocks, Members + tile * n_blocks
    for turn in tl.range(0, tl.load(Counts + tile) * parts):
        within = turn % parts * BLOCK_N + offs_n
        keys = first + tl.load(tile_blocks + turn // parts) * block_size + within
        in_n = (within < block_size) & (keys < end)
        k = load_rows(K, batch, kv_head, keys, in_n, stride_kb, stride_kh, stride_kn, stride_kd, HEAD_DIM, BLOCK_D)
        v = load_rows(V, batch, kv_head, keys, in_n, stride_vb, stride_vh, stride_vn, stride_vd, VALUE_DIM, BLOCK_V)
        chosen = (tl.load(tile_members + turn // parts) >> position - start_m // group & 1) != 0
        subtracted = tl.where(chosen & in_m, lse, float("inf"))
        visible = in_n[None, :] & (keys[None, :] <= position[:, None])
        p = tl.where(visible, tl.exp(tl.dot(q, tl.trans(k)) * scale - subtracted[:, None]), 0.0)
        ds = p * (tl.dot(dout, tl.trans(v)) - delta[:, None])
        dq = tl.dot(ds.to(k.dtype), k, dq)
    store_rows(
        Dq, dq * scale, batch, head, position, in_m, stride_dqb, stride_dqh, stride_dqm, stride_dqd, HEAD_DIM, BLOCK_D
    )


def selected_attention_backward(
    q, k, v, block_indices, *others, block_size: int, scale: float, max_seqlen_q: int = 0, max_seqlen_k: int = 0
) -> None:
    # If sequences are packed, their cumulative lengths come first, those of keys as those of queries; then the sinks,
    # whose gradient is the last output.
    starts, _, *rest = others if max_seqlen_q else (others[0], None, *others)
    sinks, *rest, dsinks = rest if len(rest) == 8 else (None, *rest, None)
    out, lse, dout, dq, dk, dv = rest
    batch, heads, length, head_dim = q.shape
    kv_heads, blocks = k.shape[1], block_indices.shape[3]
    sequences = starts.shape[0] - 1 if max_seqlen_q else 1
    group, pairs = heads // kv_heads, batch * kv_heads
    n_blocks = length // block_size + sequences if max_seqlen_q else triton.cdiv(length, block_size)
    block_m, share, listed, rounded = 64, 1024, 32, 64
    key_widths, value_widths = (
        {"HEAD_DIM": width, "BLOCK_D": triton.next_power_of_2(width)} for width in (head_dim, v.shape[3])
    )
    block_n = max(16, triton.next_power_of_2(block_size))
    slots = triton.next_power_of_2(blocks)
    strides = (*q.stride(), *k.stride(), *v.stride(), *dout.stride())

    delta = lse.new_empty(lse.shape)
    delta_kernel[triton.cdiv(length, rounded), batch * heads](
        out, dout, delta, heads, length, *out.stride(), *dout.stride(), **value_widths, BLOCK_M=rounded
    )
    if sinks is not None:
        sinks_kernel[(heads,)](sinks, lse, delta, dsinks, batch, heads, length, BLOCK_M=1024)
    counts = block_indices.new_zeros(pairs * n_blocks)
    places, cursors, ends = (block_indices.new_empty(pairs * n_blocks) for _ in "sce")
    lists = block_indices.new_empty(pairs * length * blocks)
    shares = {"SHARE": share, "BLOCKS": triton.next_power_of_2(n_blocks)}
    packed = {"PACKED": max_seqlen_q > 0, "SEQUENCES": triton.next_power_of_2(sequences)}
    sizes, tile = (length, blocks, block_size, sequences, n_blocks), {"TOKENS": listed, "SLOTS": slots}
    grid = (triton.cdiv(length, listed), pairs)
    count_kernel[grid](block_indices, starts, counts, *sizes, **packed, **tile)
    place_kernel[(pairs,)](counts, places, cursors, ends, group, n_blocks, **shares)
    list_kernel[grid](block_indices, starts, cursors, lists, *sizes, **packed, **tile)
    sum_k, sum_v = (lse.new_zeros(tensor.shape) for tensor in (k, v))
    keys_kernel[n_blocks + length * blocks * group // share, pairs](
        q, k, v, starts, dout, lse, delta, counts, places, ends, lists, sum_k, sum_v, scale, *strides,
        kv_heads, group, length, blocks, n_blocks, block_size, sequences,
        **packed, **key_widths, VALUE_DIM=value_widths["HEAD_DIM"], BLOCK_V=value_widths["BLOCK_D"],
        BLOCK_M=block_m, BLOCK_N=block_n, **shares, num_warps=8 if block_n == 128 else 4, num_stages=1,
    )  # fmt: skip
    for total, gradient, widths in ((sum_k, dk, key_widths), (sum_v, dv, value_widths)):
        rounding_kernel[triton.cdiv(length, rounded), pairs](
            total, gradient, *gradient.stride(), kv_heads, length, **widths, BLOCK_M=rounded
        )

    # Tiles of dq: not wider than a word of positions, and blocks of keys in parts that leave room for two.
    longest = max_seqlen_q or length
    tile_m = 64
    rows, tile_n = min(tile_m, 32 * group), min(block_n, 64 if head_dim <= 128 else 32)
    listed_blocks, parts = triton.cdiv(longest, block_size), triton.cdiv(block_size, tile_n)
    grid = (triton.cdiv(longest * group, rows), pairs * sequences)
    tile_lists = block_indices.new_empty(2, grid[0] * grid[1] * listed_blocks)
    tile_counts = block_indices.new_empty(grid[0] * grid[1])
    tiles_kernel[grid](
        block_indices, starts, tile_lists[0], tile_lists[1], tile_counts, group, length, blocks, rows, listed_blocks,
        sequences, PACKED=max_seqlen_q > 0, SLOTS=slots, num_warps=1,
    )  # fmt: skip
    queries_kernel[grid](
        q, k, v, starts, dout, lse, delta, tile_lists[0], tile_lists[1], tile_counts, dq, scale, *strides, *dq.stride(),
        kv_heads, group, length, rows, listed_blocks, block_size, parts, sequences, PACKED=max_seqlen_q > 0,
        **key_widths, VALUE_DIM=value_widths["HEAD_DIM"], BLOCK_V=value_widths["BLOCK_D"],
        BLOCK_M=max(16, triton.next_power_of_2(rows)), BLOCK_N=tile_n, num_warps=4 if tile_m == 64 else 8, num_stages=2,
    )  # fmt: skip
