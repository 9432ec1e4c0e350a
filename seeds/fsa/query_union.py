"""Selected attention, query-major over what neighbours select together: the rows of a tile are the query heads of one
KV head at up to 32 consecutive positions, and each block that any of them selected is multiplied with all of them. A
row whose position did not select the block subtracts infinity from its scores: nothing is gathered or written twice.

1. ``list_kernel`` lists the blocks of each tile, and of each block a word of bits: which positions selected it;
2. ``attention_kernel`` takes a tile's last block first, whose keys some of the positions do not see yet, and then walks
   over the others.

It pays where neighbours select the same blocks: with large groups, whose tiles have few positions, and where there are
few blocks. Correct in all settings: with sinks, packed sequences and values of another length than keys, for any
lengths, group, strides, number of blocks and block size.
"""

import math

import torch
import triton
import triton.language as tl

DESCRIPTORS = False
"""Whether keys and values are loaded through tensor descriptors, where their strides allow it: for Hopper and later."""
ROLES = False
"""Whether, besides, loads, products and softmax have warps of their own, as Triton's pass for Blackwell gives them."""


@triton.jit
def list_kernel(
    Indices, Starts, Blocks, Members, Counts, kv_heads, group, length, blocks, rows, n_blocks, sequences,
    PACKED: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """Store the list of one tile: its blocks in ascending order, the words of their members, and how many they are."""
    tile = (tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)).to(tl.int64)
    first, end = 0, length
    if PACKED:
        first = tl.load(Starts + tl.program_id(1) % sequences)
        end = tl.load(Starts + tl.program_id(1) % sequences + 1)
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
    if count == 0:  # a tile without positions, behind the end of a packed sequence
        tl.store(Blocks + tile * n_blocks, 0)
        tl.store(Members + tile * n_blocks, 0)
    tl.store(Counts + tile, tl.maximum(count, 1))


@triton.jit
def load_rows(
    base, tiles, start, length, stride_n, stride_d, DIM: tl.constexpr, BLOCK: tl.constexpr, BLOCK_N: tl.constexpr
):
    """Load BLOCK_N rows of keys or values, through a descriptor if there is one; zero behind the last."""
    if tiles is not None:
        return tiles.load([start, 0])
    rows, offs_d = start + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK)
    at = base + rows[:, None].to(tl.int64) * stride_n + offs_d[None, :] * stride_d
    return tl.load(at, mask=(rows < length)[:, None] & (offs_d < DIM)[None, :], other=0.0)


@triton.jit
def first_key(blocks, turn, parts, block_size, BLOCK_N: tl.constexpr):
    """Return the first key, counted from that of the sequence, that a list gives for one turn of the loop."""
    return tl.load(blocks + turn // parts) * block_size + turn % parts * BLOCK_N


@triton.jit
def attention_kernel(
    Q, K, V, Blocks, Members, Counts, Starts, Sinks, Out, Lse, scale,
    stride_qb, stride_qh, stride_qm, stride_qd, stride_kb, stride_kh, stride_kn, stride_kd,
    stride_vb, stride_vh, stride_vn, stride_vd, stride_ob, stride_oh, stride_om, stride_od,
    kv_heads, group, length, rows, n_blocks, block_size, parts, sequences,
    SINKS: tl.constexpr, PACKED: tl.constexpr, ALIGNED: tl.constexpr, WHOLE: tl.constexpr,
    DESCRIPTORS: tl.constexpr, ROLES: tl.constexpr,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, VALUE_DIM: tl.constexpr, BLOCK_V: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    pair = tl.program_id(1) // sequences
    batch, kv_head = (pair // kv_heads).to(tl.int64), (pair % kv_heads).to(tl.int64)
    first, end = 0, length
    if PACKED:
        first = tl.load(Starts + tl.program_id(1) % sequences)
        end = tl.load(Starts + tl.program_id(1) % sequences + 1)
    start_m = first * group + tl.program_id(0) * rows
    offs_m, offs_n = start_m + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N)
    position = offs_m // group
    member = position - start_m // group
    head = kv_head * group + offs_m % group
    in_m = (position < end) & (offs_m < start_m + rows)
    offs_d, offs_v = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_V)
    in_d, in_v = offs_d < HEAD_DIM, offs_v < VALUE_DIM
    k_base = K + batch * stride_kb + kv_head * stride_kh
    v_base = V + batch * stride_vb + kv_head * stride_vh
    k_tiles, v_tiles = None, None
    if DESCRIPTORS:
        k_tiles = tl.make_tensor_descriptor(k_base, [length, HEAD_DIM], [stride_kn, 1], [BLOCK_N, BLOCK_D])
        v_tiles = tl.make_tensor_descriptor(v_base, [length, VALUE_DIM], [stride_vn, 1], [BLOCK_N, BLOCK_V])
    row = position.to(tl.int64)
    q = tl.load(
        Q + batch * stride_qb + head[:, None] * stride_qh + row[:, None] * stride_qm + offs_d[None, :] * stride_qd,
        mask=in_m[:, None] & in_d[None, :],
        other=0.0,
    )
    scale_log2 = scale * 1.4426950408889634

    # The last block first: all others lie before the tile's positions, as far as it is aligned, and need no masks.
    tile = (tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)).to(tl.int64)
    tile_blocks, tile_members = Blocks + tile * n_blocks, Members + tile * n_blocks
    last = tl.maximum(tl.minimum((start_m + rows - 1) // group + 1, end) - 1 - first, 0)
    turns = (tl.load(Counts + tile) - 1) * parts + last % block_size // BLOCK_N
    start_n = first + last // block_size * block_size + last % block_size // BLOCK_N * BLOCK_N
    k = load_rows(k_base, k_tiles, start_n, length, stride_kn, stride_kd, HEAD_DIM, BLOCK_D, BLOCK_N)
    v = load_rows(v_base, v_tiles, start_n, length, stride_vn, stride_vd, VALUE_DIM, BLOCK_V, BLOCK_N)
    chosen = (tl.load(tile_members + turns // parts) >> member & 1) != 0
    visible = chosen[:, None] & (offs_n[None, :] <= (position - start_n)[:, None])
    scores = tl.where(visible, tl.dot(q, tl.trans(k)), float("-inf"))
    # Not -inf: a row may see none of these keys, and its maximum has to be a number.
    row_max = tl.maximum(tl.max(scores, 1) * scale_log2, -1.0e30)
    p = tl.exp2(scores * scale_log2 - row_max[:, None])
    row_sum = tl.sum(p, 1)
    acc = tl.dot(p.to(v.dtype), v)

    if ROLES:  # the scores of a turn are multiplied one turn ahead
        start_n = first + first_key(tile_blocks, 0, parts, block_size, BLOCK_N)
        k = load_rows(k_base, k_tiles, start_n, length, stride_kn, stride_kd, HEAD_DIM, BLOCK_D, BLOCK_N)
        ahead = tl.dot(q, tl.trans(k))
    stages: tl.constexpr = 1 if BLOCK_D > 128 else None  # more of long rows do not fit
    for turn in tl.range(0, turns, num_stages=stages, warp_specialize=ROLES, disallow_acc_multi_buffer=ROLES):
        start_n = first + first_key(tile_blocks, turn, parts, block_size, BLOCK_N)
        if ROLES:
            scores = ahead
            next_n = first + first_key(tile_blocks, turn + 1, parts, block_size, BLOCK_N)
            k = load_rows(k_base, k_tiles, next_n, length, stride_kn, stride_kd, HEAD_DIM, BLOCK_D, BLOCK_N)
            ahead = tl.dot(q, tl.trans(k))
        else:
            k = load_rows(k_base, k_tiles, start_n, length, stride_kn, stride_kd, HEAD_DIM, BLOCK_D, BLOCK_N)
            scores = tl.dot(q, tl.trans(k))
        if not ALIGNED:
            scores = tl.where(offs_n[None, :] <= (position - start_n)[:, None], scores, float("-inf"))
        if not WHOLE:
            scores = tl.where((turn % parts * BLOCK_N + offs_n < block_size)[None, :], scores, float("-inf"))
        chosen = (tl.load(tile_members + turn // parts) >> member & 1) != 0
        new_max = tl.maximum(row_max, tl.where(chosen, tl.max(scores, 1) * scale_log2, float("-inf")))
        rescale = tl.exp2(row_max - new_max)
        subtracted = tl.where(chosen, new_max, float("inf"))
        p = tl.exp2(scores * scale_log2 - subtracted[:, None])
        row_sum = row_sum * rescale + tl.sum(p, 1)
        acc = acc * rescale[:, None]
        v = load_rows(v_base, v_tiles, start_n, length, stride_vn, stride_vd, VALUE_DIM, BLOCK_V, BLOCK_N)
        acc = tl.dot(p.to(v.dtype), v, acc)
        row_max = new_max

    if SINKS:
        sink = tl.load(Sinks + head) * 1.4426950408889634
        new_max = tl.maximum(row_max, sink)
        rescale = tl.exp2(row_max - new_max)
        row_sum = row_sum * rescale + tl.exp2(sink - new_max)
        acc = acc * rescale[:, None]
        row_max = new_max

    out = acc / row_sum[:, None]
    tl.store(
        Out + batch * stride_ob + head[:, None] * stride_oh + row[:, None] * stride_om + offs_v[None, :] * stride_od,
        out.to(Out.dtype.element_ty),
        mask=in_m[:, None] & in_v[None, :],
    )
    lse = (row_max + tl.log2(row_sum)) * 0.6931471805599453
    tl.store(Lse + (batch * kv_heads * group + head) * length + row, lse, mask=in_m)


def describable(*tensors) -> bool:
    """Return whether descriptors can read the tensors' last two axes: strides and offsets are multiples of 16 bytes."""
    return all(
        x.stride(3) == 1 and all(n * x.element_size() % 16 == 0 for n in (*x.stride()[:3], x.storage_offset()))
        for x in tensors
    )


def selected_attention(
    q, k, v, block_indices, *others, block_size: int, scale: float, max_seqlen_q: int = 0, max_seqlen_k: int = 0
) -> None:
    # If sequences are packed, their cumulative lengths come first, those of keys as those of queries; then the sinks.
    *further, out, lse = others
    starts, _, *sinks = further if max_seqlen_q else (lse, lse, *further)
    sequences = starts.shape[0] - 1 if max_seqlen_q else 1
    batch, heads, length, head_dim = q.shape
    kv_heads, value_dim, blocks = k.shape[1], v.shape[3], block_indices.shape[3]
    group, longest = heads // kv_heads, max_seqlen_q or length
    block_m, block_n = 128, 64
    rows = min(block_m, 32 * group)
    n_blocks, parts = triton.cdiv(longest, block_size), triton.cdiv(block_size, block_n)
    grid = (triton.cdiv(longest * group, rows), batch * kv_heads * sequences)
    lists = torch.empty(2, grid[0] * grid[1] * n_blocks, dtype=torch.int32, device=q.device)
    counts = torch.empty(grid[0] * grid[1], dtype=torch.int32, device=q.device)
    list_kernel[grid](
        block_indices, starts, lists[0], lists[1], counts, kv_heads, group, length, blocks, rows, n_blocks, sequences,
        PACKED=max_seqlen_q > 0, SLOTS=triton.next_power_of_2(blocks), num_warps=1,
    )  # fmt: skip
    attention_kernel[grid](
        q, k, v, lists[0], lists[1], counts, starts, sinks[0] if sinks else lse, out, lse, scale,
        *q.stride(), *k.stride(), *v.stride(), *out.stride(),
        kv_heads, group, length, rows, n_blocks, block_size, parts, sequences,
        SINKS=len(sinks) > 0, PACKED=max_seqlen_q > 0,
        ALIGNED=math.gcd(block_n, block_size) * group % rows == 0, WHOLE=block_size % block_n == 0,
        DESCRIPTORS=(DESCRIPTORS or ROLES) and describable(k, v), ROLES=ROLES and describable(k, v),
        HEAD_DIM=head_dim, BLOCK_D=triton.next_power_of_2(head_dim),
        VALUE_DIM=value_dim, BLOCK_V=triton.next_power_of_2(value_dim),
        BLOCK_M=block_m, BLOCK_N=block_n, num_warps=8, num_stages=2,
    )  # fmt: skip
