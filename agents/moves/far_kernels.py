"""Texts of the kernels that the move ``far`` makes."""

HEAD = '''"""Selected attention in the order of Flash Sparse Attention (arXiv 2508.18224). Only far blocks go through
lists: those before the block before a query's own, but for block 0. Queries share the others with their neighbours.

1. ``count_kernel``, ``place_kernel`` and ``list_kernel`` list the entries (token, slot) that selected each far block,
   and divide the lists into jobs;
2. ``attend_kernel`` does a job. All rows see all keys of a far block, so nothing is masked. Partial outputs are not
   normalised: each has a maximum and a sum of exponentials;
3. ``reduce_kernel`` attends with what is near to a tile of tokens, and adds up their partial outputs.

The first tokens select most blocks before them: ``attend_near`` takes all of these in, masked by a bit a block, and
none of them is listed. The others are processed in lots.

Needs a head dim that is a power of two, block sizes that are powers of two from 16 to 128, and 3 blocks a query or
more, of which block 0, the query's own and the one before are selected wherever they exist.
"""

import torch
import triton
import triton.language as tl

PARTIAL_BYTES = 2**28
"""Most bytes of the partial outputs of a lot."""
EARLY = {early}
"""How many blocks are all near: 3, and this many halves of the far blocks that a query selects."""
SHARE = {share}
"""Most rows of a job."""
ROWS = {rows}
"""Most rows of a tile of ``attend_kernel``; 64 with blocks of 128."""
NEAR_ROWS = {near}
"""Rows of a tile of ``attend_near``."""
LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


'''
"""What the module says of itself, and its constants, by their names in braces."""
KERNELS = '''@triton.jit
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


'''
"""Kernels that make lists and attend with far blocks, and a function that attends with near ones."""
NEAR = """    pair = tl.program_id(0).to(tl.int64)
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
"""
"""How a program of tiles of tokens begins."""
STORED = """    o_rows = member.to(tl.int64) * stride_oh + token.to(tl.int64) * stride_om
    tl.store(
        Out + batch * stride_ob + kv_head * GROUP * stride_oh + o_rows[:, None] + offs_d[None, :],
        (acc * (1.0 / row_sum)[:, None]).to(Out.dtype.element_ty),
        mask=in_m[:, None],
    )
    tl.store(Lse + (pair * GROUP + member) * length + token, (row_max + tl.log2(row_sum)) * LN_2, mask=in_m)


"""
"""How it ends."""
STRIDES = """    stride_qb, stride_qh, stride_qm, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    stride_ob, stride_oh, stride_om,
"""
