"""Selected attention in the order of Flash Sparse Attention (arXiv 2508.18224). Only far blocks go through
lists: those before the block before a query's own, but for block 0. Queries share the others with their neighbours.

1. ``count_kernel``, ``place_kernel`` and ``list_kernel`` list the entries (token, slot) that selected each far block,
   and divide the lists into jobs;
2. ``attend_kernel`` does a job. All rows see all keys of a far block, so nothing is masked. Partial outputs are not
   normalised: each has a maximum and a sum of exponentials;
3. ``near_kernel`` attends with what is near, and ``reduce_kernel`` adds the partial outputs to that.

The first tokens select most blocks before them: ``attend_near`` takes all of these in, masked by a bit a block, and
none of them is listed. The others are processed in lots.

Needs head dim 128, block sizes that are powers of two from 16 to 128, and 3 blocks a query or more, of which block 0,
the query's own and the one before are selected wherever they exist.
"""

# Parameters and arguments would take a line each.
# fmt: off

import torch
import triton
import triton.language as tl

PARTIAL_BYTES = 2**28
"""Most bytes of the partial outputs of a lot."""
EARLY = 5
"""How many blocks are all near: 3, and this many halves of the far blocks that a query selects."""
SHARE = 1024
"""Most rows of a job."""
ROWS = 128
"""Most rows of a tile of ``attend_kernel``; 64 with blocks of 128."""
NEAR_ROWS = 64
"""Rows of a tile of ``attend_near``."""
ADDED_ROWS = 4
"""Rows of a tile of ``reduce_kernel``, which has one warp."""
LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def load_far(
    Indices, length, begin, lot, BLOCKS: tl.constexpr, SIZE: tl.constexpr, TOKENS: tl.constexpr, SLOTS: tl.constexpr
):
    """Return, for a tile of tokens from ``begin`` on: entries and lots, the blocks, and which of them are far."""
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    slot = tl.arange(0, SLOTS)
    inside = (begin + token < length)[:, None] & (slot < BLOCKS)[None, :]
    entry = (tl.program_id(1).to(tl.int64) * length + begin + token[:, None]) * BLOCKS + slot[None, :]
    block = tl.load(Indices + entry, mask=inside, other=-1)
    far = (block > 0) & (block < ((begin + token) // SIZE - 1)[:, None])
    return (token % lot)[:, None] * (BLOCKS - 3) + slot[None, :] - 1, (token // lot)[:, None], block, far


@triton.jit
def count_kernel(
    Indices, Counts, length, begin, lot, lots, n_blocks,
    BLOCKS: tl.constexpr, SIZE: tl.constexpr, TOKENS: tl.constexpr, SLOTS: tl.constexpr,
):
    _, number, block, far = load_far(Indices, length, begin, lot, BLOCKS, SIZE, TOKENS, SLOTS)
    tl.atomic_add(Counts + (tl.program_id(1) * lots + number) * n_blocks + block, 1, mask=far)


@triton.jit
def place_kernel(
    Counts, Starts, Cursors, Jobs, Totals, n_blocks, jobs, most,
    GROUP: tl.constexpr, SHARE: tl.constexpr, WIDTH: tl.constexpr,
):
    """Store where the list of each block starts, and a job (block, share) for each of its shares."""
    part = tl.program_id(0).to(tl.int64)
    block = tl.arange(0, WIDTH)
    place = part * n_blocks + block
    count = tl.load(Counts + place, mask=block < n_blocks, other=0)
    start = tl.cumsum(count) - count
    tl.store(Starts + place, start, mask=block < n_blocks)
    tl.store(Cursors + place, start, mask=block < n_blocks)
    shares = tl.cdiv(count * GROUP, SHARE)
    tl.store(Totals + part, tl.sum(shares))
    job = part * jobs + tl.cumsum(shares) - shares
    for share in range(most):
        tl.store(Jobs + job + share, block * 65536 + share, mask=share < shares)


@triton.jit
def list_kernel(
    Indices, Cursors, Lists, length, begin, lot, lots, n_blocks, entries,
    BLOCKS: tl.constexpr, SIZE: tl.constexpr, TOKENS: tl.constexpr, SLOTS: tl.constexpr,
):
    entry, number, block, far = load_far(Indices, length, begin, lot, BLOCKS, SIZE, TOKENS, SLOTS)
    part = tl.program_id(1) * lots + number
    place = tl.atomic_add(Cursors + part * n_blocks + block, 1, mask=far)
    tl.store(Lists + part.to(tl.int64) * entries + place, entry, mask=far)


@triton.jit
def attend_kernel(
    Q, K, V, Counts, Starts, Jobs, Totals, Lists, Partial, Maxima, Sums, scale,
    stride_qb, stride_qh, stride_qm, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    kv_heads, number, lots, n_blocks, jobs, entries,
    GROUP: tl.constexpr, BLOCKS: tl.constexpr, SIZE: tl.constexpr, D: tl.constexpr, BLOCK_M: tl.constexpr,
    SHARE: tl.constexpr,
):
    """Attend with one job of a lot. A row of a tile is one query head of one entry."""
    pair = tl.program_id(1).to(tl.int64)
    part = pair * lots + number
    if tl.program_id(0) >= tl.load(Totals + part):
        return
    job = tl.load(Jobs + part * jobs + tl.program_id(0))
    block, share = job // 65536, job % 65536
    rows = tl.load(Counts + part * n_blocks + block) * GROUP
    lists = Lists + part * entries + tl.load(Starts + part * n_blocks + block)
    batch, kv_head = pair // kv_heads, pair % kv_heads
    keys = (block * SIZE + tl.arange(0, SIZE)).to(tl.int64)
    offs_d = tl.arange(0, D)
    k = tl.load(K + batch * stride_kb + kv_head * stride_kh + keys[None, :] * stride_kn + offs_d[:, None])
    v = tl.load(V + batch * stride_vb + kv_head * stride_vh + keys[:, None] * stride_vn + offs_d[None, :])
    q_base = Q + batch * stride_qb + kv_head * GROUP * stride_qh
    scale_log2 = scale * LOG2_E
    for begin in range(share * SHARE, tl.minimum(rows, (share + 1) * SHARE), BLOCK_M):
        row = begin + tl.arange(0, BLOCK_M)
        in_m = row < rows
        entry = tl.load(lists + row // GROUP, mask=in_m, other=0)
        member = row % GROUP
        token = entry // (BLOCKS - 3)
        q_rows = member.to(tl.int64) * stride_qh + token.to(tl.int64) * stride_qm
        q = tl.load(q_base + q_rows[:, None] + offs_d[None, :])
        scores = tl.dot(q, k)
        row_max = tl.max(scores, 1) * scale_log2
        p = tl.exp2(scores * scale_log2 - row_max[:, None])
        row_sum = tl.sum(p, 1)
        out = tl.dot(p.to(v.dtype), v)
        place = (pair * entries + entry) * GROUP + member
        tl.store(Partial + place[:, None] * D + offs_d[None, :], out.to(Partial.dtype.element_ty), mask=in_m[:, None])
        tl.store(Maxima + place, row_max, mask=in_m)
        tl.store(Sums + place, row_sum, mask=in_m)


@triton.jit
def attend_near(
    q, K, V, indices, scale_log2, stride_kn, stride_vn, token, in_m, first, end, early, length,
    BLOCKS: tl.constexpr, SIZE: tl.constexpr, D: tl.constexpr, BLOCK_N: tl.constexpr,
):
    """Return maximum, sum and output of rows with the blocks that are not far; with all blocks for tokens below
    ``early``.

    ``first`` to ``end`` are the tokens of the tile, all in one block. Logarithms are to base 2.
    """
    own = first // SIZE
    offs_d = tl.arange(0, D)
    offs_n = tl.arange(0, BLOCK_N)
    k_base = K + offs_n[None, :].to(tl.int64) * stride_kn + offs_d[:, None]
    v_base = V + offs_n[:, None].to(tl.int64) * stride_vn + offs_d[None, :]
    row_max = tl.full([q.shape[0]], float("-inf"), tl.float32)
    row_sum = tl.zeros([q.shape[0]], tl.float32)
    acc = tl.zeros([q.shape[0], D], tl.float32)
    # Bit b tells whether a row sees block b.
    bits = tl.full([q.shape[0]], -1, tl.int64)
    stop = tl.minimum(own, 2) * SIZE
    if first < early:
        stop = own * SIZE
        bits = tl.zeros([q.shape[0]], tl.int64)
        for slot in range(BLOCKS):
            index = tl.load(indices + slot, mask=in_m, other=-1)
            bits |= tl.where(index >= 0, tl.full([], 1, tl.int64) << index.to(tl.int64), 0)
    # Block 0 and the one before, or all before.
    for n in tl.range(0, stop, BLOCK_N, num_stages=3):
        start = tl.where((first < early) | (n < SIZE), n, n + (own - 2) * SIZE)
        seen = ((bits >> tl.minimum(start // SIZE, 63).to(tl.int64)) & 1) != 0
        k = tl.load(k_base + start.to(tl.int64) * stride_kn)
        v = tl.load(v_base + start.to(tl.int64) * stride_vn)
        scores = tl.dot(q, k)
        new_max = tl.maximum(row_max, tl.where(seen, tl.max(scores, 1) * scale_log2, float("-inf")))
        rescale = tl.where(seen, tl.exp2(row_max - new_max), 1.0)
        p = tl.exp2(scores * scale_log2 - tl.where(seen, new_max, float("inf"))[:, None])
        row_sum = row_sum * rescale + tl.sum(p, 1)
        acc = tl.dot(p.to(v.dtype), v, acc * rescale[:, None])
        row_max = new_max
    # The rows' own block, up to the last of them.
    for start in tl.range(own * SIZE, tl.minimum(end, length), BLOCK_N, num_stages=1):
        keys = start + offs_n
        k = tl.load(k_base + start.to(tl.int64) * stride_kn, mask=(keys < length)[None, :], other=0.0)
        v = tl.load(v_base + start.to(tl.int64) * stride_vn, mask=(keys < length)[:, None], other=0.0)
        scores = tl.where(keys[None, :] <= token[:, None], tl.dot(q, k), float("-inf"))
        new_max = tl.maximum(row_max, tl.max(scores, 1) * scale_log2)
        rescale = tl.exp2(row_max - new_max)
        p = tl.exp2(scores * scale_log2 - new_max[:, None])
        row_sum = row_sum * rescale + tl.sum(p, 1)
        acc = tl.dot(p.to(v.dtype), v, acc * rescale[:, None])
        row_max = new_max
    return row_max, row_sum, acc


@triton.jit
def near_kernel(
    Q, K, V, Indices, Out, Lse, scale,
    stride_qb, stride_qh, stride_qm, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    stride_ob, stride_oh, stride_om,
    kv_heads, begin, end, early, length,
    GROUP: tl.constexpr, MEMBERS: tl.constexpr, BLOCKS: tl.constexpr, SIZE: tl.constexpr, D: tl.constexpr,
    TOKENS: tl.constexpr, BLOCK_N: tl.constexpr,
):
    """Store what is near to a tile of tokens. A row of a tile is one query head of one token."""
    pair = tl.program_id(0).to(tl.int64)
    batch, kv_head = pair // kv_heads, pair % kv_heads
    # The longest first: early tokens, from the last to the first.
    tile = begin // TOKENS + tl.program_id(1)
    tiles = early // TOKENS
    tile = tl.where(tile < tiles, tiles - 1 - tile, tile)
    row = tl.arange(0, TOKENS * MEMBERS)
    token, member = tile * TOKENS + row // MEMBERS, row % MEMBERS
    in_m = (token < end) & (member < GROUP)
    offs_d = tl.arange(0, D)
    q_rows = member.to(tl.int64) * stride_qh + token.to(tl.int64) * stride_qm
    q = tl.load(
        Q + batch * stride_qb + kv_head * GROUP * stride_qh + q_rows[:, None] + offs_d[None, :],
        mask=in_m[:, None],
        other=0.0,
    )
    indices = Indices + (pair * length + token) * BLOCKS
    row_max, row_sum, acc = attend_near(
        q, K + batch * stride_kb + kv_head * stride_kh, V + batch * stride_vb + kv_head * stride_vh,
        indices, scale * LOG2_E, stride_kn, stride_vn, token, in_m, tile * TOKENS, (tile + 1) * TOKENS, early, length,
        BLOCKS, SIZE, D, BLOCK_N,
    )
    o_rows = member.to(tl.int64) * stride_oh + token.to(tl.int64) * stride_om
    tl.store(
        Out + batch * stride_ob + kv_head * GROUP * stride_oh + o_rows[:, None] + offs_d[None, :],
        (acc * (1.0 / row_sum)[:, None]).to(Out.dtype.element_ty),
        mask=in_m[:, None],
    )
    tl.store(Lse + (pair * GROUP + member) * length + token, (row_max + tl.log2(row_sum)) * LN_2, mask=in_m)


@triton.jit
def reduce_kernel(
    Indices, Partial, Maxima, Sums, Out, Lse,
    stride_ob, stride_oh, stride_om,
    kv_heads, first, tokens, length, entries,
    GROUP: tl.constexpr, BLOCKS: tl.constexpr, SIZE: tl.constexpr, D: tl.constexpr, BLOCK_M: tl.constexpr,
    SLOTS: tl.constexpr,
):
    """Add the partial outputs of a tile of rows to what is near, whose maxima are known before."""
    pair = tl.program_id(1).to(tl.int64)
    batch, kv_head = pair // kv_heads, pair % kv_heads
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    in_m = row < tokens * GROUP
    within, member = row // GROUP, row % GROUP
    token = first + within
    own = token // SIZE
    offs_d = tl.arange(0, D)
    slots = tl.arange(0, SLOTS)
    indices = Indices + (pair * length + token) * BLOCKS + 1
    places = pair * entries * GROUP + within * ((BLOCKS - 3) * GROUP) + member
    index = tl.load(indices[:, None] + slots[None, :], mask=in_m[:, None] & (slots < BLOCKS - 3)[None, :], other=-1)
    far = (index > 0) & (index < own[:, None] - 1)
    maxima = tl.load(Maxima + places[:, None] + slots[None, :] * GROUP, mask=far, other=float("-inf"))
    sums = tl.load(Sums + places[:, None] + slots[None, :] * GROUP, mask=far, other=0.0)
    lse = Lse + (pair * GROUP + member) * length + token
    o_rows = member.to(tl.int64) * stride_oh + token.to(tl.int64) * stride_om
    outs = Out + batch * stride_ob + kv_head * GROUP * stride_oh + o_rows[:, None] + offs_d[None, :]
    near = tl.load(lse, mask=in_m, other=0.0) * LOG2_E
    row_max = tl.maximum(near, tl.max(maxima, 1))
    weight = tl.exp2(near - row_max)
    row_sum = weight + tl.sum(sums * tl.exp2(maxima - row_max[:, None]), 1)
    acc = tl.load(outs, mask=in_m[:, None], other=0.0).to(tl.float32) * weight[:, None]
    for slot in tl.static_range(BLOCKS - 3):
        index = tl.load(indices + slot, mask=in_m, other=-1)
        far = (index > 0) & (index < own - 1)
        place = places + slot * GROUP
        part = tl.load(Partial + place[:, None] * D + offs_d[None, :], mask=far[:, None], other=0.0)
        weight = tl.exp2(tl.load(Maxima + place, mask=far, other=float("-inf")) - row_max)
        acc += part.to(tl.float32) * weight[:, None]
    tl.store(outs, (acc * (1.0 / row_sum)[:, None]).to(Out.dtype.element_ty), mask=in_m[:, None])
    tl.store(lse, (row_max + tl.log2(row_sum)) * LN_2, mask=in_m)


def selected_attention(q, k, v, block_indices, out, lse, *, block_size: int, scale: float) -> None:
    batch, heads, length, head_dim = q.shape
    kv_heads, blocks = k.shape[1], block_indices.shape[3]
    group, pairs, n_blocks = heads // kv_heads, batch * kv_heads, triton.cdiv(length, block_size)
    members, listed = triton.next_power_of_2(group), 32
    tokens = max(1, min(block_size, NEAR_ROWS // members))
    # Whole tiles of tokens below which all blocks are near; at most as many blocks as there are bits.
    early = min(min(64, 3 + EARLY * (blocks - 3) // 2) * block_size, triton.cdiv(length, tokens) * tokens)
    far = max(0, length - early) if blocks > 3 else 0
    lots = max(1, triton.cdiv(batch * heads * far * (blocks - 3) * head_dim * q.element_size(), PARTIAL_BYTES))
    lot = max(1, triton.cdiv(triton.cdiv(far, lots), tokens)) * tokens
    entries = lot * (blocks - 3)
    jobs = n_blocks + entries * group // SHARE

    counts, starts, cursors = (torch.empty(pairs * lots * n_blocks, dtype=torch.int32, device=q.device) for _ in "csc")
    job_list = torch.empty(pairs * lots * jobs, dtype=torch.int32, device=q.device)
    totals = torch.empty(pairs * lots, dtype=torch.int32, device=q.device)
    lists = torch.empty(max(1, pairs * lots * entries), dtype=torch.int32, device=q.device)
    partial = torch.empty(max(1, pairs * entries * group * head_dim), dtype=q.dtype, device=q.device)
    maxima, sums = (torch.empty(max(1, pairs * entries * group), dtype=torch.float32, device=q.device) for _ in "ms")
    strides = (*q.stride()[:3], *k.stride()[:3], *v.stride()[:3])
    sizes = {"BLOCKS": blocks, "SIZE": block_size, "D": head_dim, "GROUP": group}
    near = {"MEMBERS": members, "TOKENS": tokens, "BLOCK_N": min(64, block_size)}
    tile = {"BLOCKS": blocks, "SIZE": block_size, "TOKENS": listed, "SLOTS": triton.next_power_of_2(blocks)}

    near_kernel[(pairs, triton.cdiv(length, tokens))](
        q, k, v, block_indices, out, lse, scale, *strides, *out.stride()[:3], kv_heads, 0, length, early, length,
        **sizes, **near, num_warps=4, num_stages=1,
    )
    if far:
        grid = (triton.cdiv(far, listed), pairs)
        counts.zero_()
        count_kernel[grid](block_indices, counts, length, early, lot, lots, n_blocks, **tile)
        place_kernel[(pairs * lots,)](
            counts, starts, cursors, job_list, totals, n_blocks, jobs, triton.cdiv(lot * group, SHARE),
            GROUP=group, SHARE=SHARE, WIDTH=triton.next_power_of_2(n_blocks),
        )
        list_kernel[grid](block_indices, cursors, lists, length, early, lot, lots, n_blocks, entries, **tile)
        for number in range(lots):
            first = early + number * lot
            attend_kernel[(jobs, pairs)](
                q[:, :, first:], k, v, counts, starts, job_list, totals, lists, partial, maxima, sums, scale,
                *strides, kv_heads, number, lots, n_blocks, jobs, entries,
                BLOCK_M=min(ROWS, max(64, 8192 // block_size)), SHARE=SHARE, **sizes, num_warps=4, num_stages=3,
            )
            added = min(lot, length - first)
            reduce_kernel[(triton.cdiv(added * group, ADDED_ROWS), pairs)](
                block_indices, partial, maxima, sums, out, lse, *out.stride()[:3], kv_heads, first, added, length,
                entries, BLOCK_M=ADDED_ROWS, SLOTS=tile["SLOTS"], **sizes, num_warps=1,
            )
