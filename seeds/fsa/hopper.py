"""Selected attention for Hopper in Gluon, in the order of ``query_union`` and with the roles of FlashAttention-3 (arXiv
2407.08608).

1. ``list_kernel`` lists the blocks that any position of two tiles selects, and of each a word of bits: which of them;
2. ``attention_kernel`` walks over the list. One warp loads blocks by TMA. Two groups of four warps have a tile of 64
   rows each, the query heads of one KV head at consecutive positions. They take turns in giving the tensor cores work,
   and the softmax of one block runs beside products. A row that did not select a block subtracts infinity.

For head dim 128, any lengths, groups and numbers of blocks, and strides that TMA takes. It is for Hopper.
"""

import torch
import triton
import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

load = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared  # its name in triton 3.6

GROUPS = 2
"""Groups of warps that multiply; each has its own rows of queries."""


@triton.jit
def list_kernel(
    Indices, Blocks, Members, Counts, group, length, blocks, rows, n_blocks, most, block_size,
    WHOLE: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """Store the list of two tiles: their blocks in ascending order, the words of their members, how many they are, and
    how many of the first ones all positions see whole.
    """
    pair = (tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)).to(tl.int64)
    start = tl.program_id(0) * rows
    last = tl.minimum((start + rows - 1) // group + 1, length)
    member, slot, bit = tl.arange(0, 32), tl.arange(0, SLOTS), tl.arange(0, 32)
    position = start // group + member
    chosen = tl.load(
        Indices + (tl.program_id(1).to(tl.int64) * length + position)[:, None] * blocks + slot[None, :],
        mask=(position < last)[:, None] & (slot < blocks)[None, :],
        other=-1,
    )
    count, whole = 0, 0
    for begin in range(0, n_blocks, 32):
        inside = (chosen >= begin) & (chosen < begin + 32)
        words = tl.sum(tl.where(inside, 1 << chosen % 32, 0), 1)
        members = tl.sum((words[:, None] >> bit[None, :] & 1) << member[:, None], 0)
        there = members != 0
        place = pair * most + count + tl.cumsum(there.to(tl.int32)) - 1
        tl.store(Blocks + place, begin + bit, mask=there)
        tl.store(Members + place, members, mask=there)
        count += tl.sum(there.to(tl.int32))
        whole += tl.sum((there & ((begin + bit + 1) * block_size <= start // group + 1)).to(tl.int32))
    tl.store(Counts + 2 * pair, count)
    tl.store(Counts + 2 * pair + 1, whole if WHOLE else 0)


@gluon.jit
def bring(desc, tiles, ready, free, batch, kv_head, blocks, block_size, tile):
    stages: gl.constexpr = tiles.shape[0]
    stage = tile % stages
    start = gl.load(blocks + tile) * block_size
    mbarrier.wait(free.index(stage), (tile // stages & 1) ^ 1)
    mbarrier.expect(ready.index(stage), desc.block_type.nbytes)
    place = tiles.index(stage).reshape(desc.block_type.shape)
    load(desc, [batch, kv_head, start, 0], ready.index(stage), place)


@gluon.jit
def load_keys_and_values(
    k_desc, v_desc, k_tiles, v_tiles, k_ready, v_ready, k_free, v_free, batch, kv_head, blocks, block_size, tiles
):
    bring(k_desc, k_tiles, k_ready, k_free, batch, kv_head, blocks, block_size, 0)
    for tile in range(1, tiles):
        bring(k_desc, k_tiles, k_ready, k_free, batch, kv_head, blocks, block_size, tile)
        bring(v_desc, v_tiles, v_ready, v_free, batch, kv_head, blocks, block_size, tile - 1)
    bring(v_desc, v_tiles, v_ready, v_free, batch, kv_head, blocks, block_size, tiles - 1)


@gluon.jit
def scores(q, k_tiles, k_ready, tile):
    stages: gl.constexpr = k_tiles.shape[0]
    block_n: gl.constexpr = k_tiles.shape[1]
    num_warps: gl.constexpr = gl.num_warps()
    s_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [num_warps, 1], [16, block_n, 16])
    mbarrier.wait(k_ready.index(tile % stages), tile // stages & 1)
    k = k_tiles.index(tile % stages).permute((1, 0))
    zeros = gl.full([q.shape[0], block_n], 0.0, gl.float32, s_layout)
    return warpgroup_mma(q, k, zeros, use_acc=False, is_async=True)


@gluon.jit
def weighted(p, acc, v_tiles, v_ready, tile):
    stages: gl.constexpr = v_tiles.shape[0]
    mbarrier.wait(v_ready.index(tile % stages), tile // stages & 1)
    v = v_tiles.index(tile % stages)
    return warpgroup_mma(p, v, acc, is_async=True)


@gluon.jit
def softmax(s, row_max, row_sum, scale, chosen, seen, MASKED: gl.constexpr):
    if MASKED:
        columns = gl.arange(0, s.shape[1], gl.SliceLayout(0, s.type.layout))
        s = gl.where(columns[None, :] < seen[:, None], s, float("-inf"))
    new_max = gl.maximum(row_max, gl.where(chosen, gl.max(s, 1) * scale, float("-inf")))
    rescale = gl.exp2(row_max - new_max)
    p = gl.exp2(s * scale - gl.where(chosen, new_max, float("inf"))[:, None])
    return p, rescale, new_max, row_sum * rescale + gl.sum(p, 1)


@gluon.jit
def walk(
    q, k_tiles, v_tiles, k_ready, v_ready, k_free, v_free, turns, p, acc, row_max, row_sum,
    blocks, members, position, member, first, stop, block_size, scale, MASKED: gl.constexpr, GROUP: gl.constexpr,
):  # fmt: skip
    stages: gl.constexpr = k_tiles.shape[0]
    o_layout: gl.constexpr = acc.type.layout
    for tile in range(first, stop):
        chosen = (gl.load(members + tile) >> member & 1) != 0
        seen = position
        if MASKED:
            seen = gl.minimum(position + 1 - gl.load(blocks + tile) * block_size, block_size)
        mbarrier.wait(turns.index(GROUP), (tile - 1) & 1)
        s = scores(q, k_tiles, k_ready, tile)
        acc = weighted(p, acc, v_tiles, v_ready, tile - 1)
        mbarrier.arrive(turns.index(1 - GROUP), count=1)
        s = warpgroup_mma_wait(num_outstanding=1, deps=[s])
        mbarrier.arrive(k_free.index(tile % stages), count=1)
        new, rescale, row_max, row_sum = softmax(s, row_max, row_sum, scale, chosen, seen, MASKED)
        acc, p = warpgroup_mma_wait(num_outstanding=0, deps=[acc, p])
        mbarrier.arrive(v_free.index((tile - 1) % stages), count=1)
        acc = acc * gl.convert_layout(rescale, gl.SliceLayout(1, o_layout))[:, None]
        p = gl.convert_layout(new.to(gl.bfloat16), gl.DotOperandLayout(0, o_layout, 2))
    return p, acc, row_max, row_sum


@gluon.jit
def attend(
    q_tiles, k_tiles, v_tiles, k_ready, v_ready, k_free, v_free, turns, out, lse, head_stride, row_stride, blocks,
    members, start, rows, group, length, tiles, whole, block_size, scale, GROUP: gl.constexpr,
):  # fmt: skip
    num_warps: gl.constexpr = gl.num_warps()
    block_m: gl.constexpr = q_tiles.shape[1]
    block_n: gl.constexpr = k_tiles.shape[1]
    dim: gl.constexpr = q_tiles.shape[2]
    s_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [num_warps, 1], [16, block_n, 16])
    o_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [num_warps, 1], [16, dim, 16])
    offs = gl.arange(0, block_m, gl.SliceLayout(1, s_layout))
    row = start + GROUP * rows + offs
    position = row // group
    member = position - start // group
    # Not -inf: a row may have selected none of the first blocks, and its maximum has to be a number.
    row_max = gl.full([block_m], -1.0e30, gl.float32, gl.SliceLayout(1, s_layout))
    row_sum = gl.full([block_m], 0.0, gl.float32, gl.SliceLayout(1, s_layout))
    acc = gl.zeros([block_m, dim], gl.float32, o_layout)
    q = q_tiles.index(GROUP)
    chosen = (gl.load(members) >> member & 1) != 0
    seen = gl.minimum(position + 1 - gl.load(blocks) * block_size, block_size)
    s = warpgroup_mma_wait(num_outstanding=0, deps=[scores(q, k_tiles, k_ready, 0)])
    mbarrier.arrive(k_free.index(0), count=1)
    new, _, row_max, row_sum = softmax(s, row_max, row_sum, scale, chosen, seen, True)
    p = gl.convert_layout(new.to(gl.bfloat16), gl.DotOperandLayout(0, o_layout, 2))
    p, acc, row_max, row_sum = walk(
        q, k_tiles, v_tiles, k_ready, v_ready, k_free, v_free, turns, p, acc, row_max, row_sum,
        blocks, members, position, member, 1, whole, block_size, scale, False, GROUP,
    )  # fmt: skip
    p, acc, row_max, row_sum = walk(
        q, k_tiles, v_tiles, k_ready, v_ready, k_free, v_free, turns, p, acc, row_max, row_sum,
        blocks, members, position, member, whole, tiles, block_size, scale, True, GROUP,
    )  # fmt: skip
    acc = warpgroup_mma_wait(num_outstanding=0, deps=[weighted(p, acc, v_tiles, v_ready, tiles - 1)])
    written = (row_max + gl.log2(row_sum)) * 0.6931471805599453
    gl.store(lse + row % group * length + position, written, mask=(offs < rows) & (position < length))
    offs = gl.arange(0, block_m, gl.SliceLayout(1, o_layout))
    row = start + GROUP * rows + offs
    at = (row % group).to(gl.int64) * head_stride + (row // group).to(gl.int64) * row_stride
    there = (offs < rows) & (row // group < length)
    dims = gl.arange(0, dim, gl.SliceLayout(0, o_layout))
    acc = acc * gl.convert_layout(1.0 / row_sum, gl.SliceLayout(1, o_layout))[:, None]
    gl.store(out + at[:, None] + dims[None, :], acc.to(gl.bfloat16), mask=there[:, None])


@gluon.jit
def load_queries(q, q_tile, head_stride, row_stride, first, rows, group, length):
    """Store the rows of queries where products read them; zero where there are none."""
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [2, 16], [4, 1], [1, 0])
    offs = gl.arange(0, q_tile.shape[0], gl.SliceLayout(1, layout))
    row = first + offs
    at = (row % group).to(gl.int64) * head_stride + (row // group).to(gl.int64) * row_stride
    there = (offs < rows) & (row // group < length)
    dims = gl.arange(0, q_tile.shape[1], gl.SliceLayout(0, layout))
    q_tile.store(gl.load(q + at[:, None] + dims[None, :], mask=there[:, None], other=0.0))


@gluon.jit
def attention_kernel(
    q, k_desc, v_desc, block_lists, member_lists, counts, out, lse, q_batch_stride, q_head_stride, q_row_stride,
    batch_stride, head_stride, row_stride, kv_heads, group, length, rows, most, block_size, scale,
    STAGES: gl.constexpr, GROUPS: gl.constexpr,
):  # fmt: skip
    block_m: gl.constexpr = 64
    block_n: gl.constexpr = k_desc.block_type.shape[2]
    dim: gl.constexpr = k_desc.block_type.shape[3]
    pair = gl.num_programs(0) - 1 - gl.program_id(0)  # those with most keys first
    start = pair * 2 * rows
    batch = gl.program_id(1) // kv_heads
    kv_head = gl.program_id(1) % kv_heads
    heads = kv_heads * group
    listed = (gl.program_id(1) * gl.num_programs(0) + pair).to(gl.int64)
    blocks, members = block_lists + listed * most, member_lists + listed * most
    tiles = gl.load(counts + 2 * listed)
    whole = gl.maximum(gl.load(counts + 2 * listed + 1), 1)  # the first block comes before both loops
    tile_layout: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
    q_tiles = gl.allocate_shared_memory(gl.bfloat16, [GROUPS, block_m, dim], tile_layout)
    k_tiles = gl.allocate_shared_memory(gl.bfloat16, [STAGES, block_n, dim], tile_layout)
    v_tiles = gl.allocate_shared_memory(gl.bfloat16, [STAGES, block_n, dim], tile_layout)
    turns = gl.allocate_shared_memory(gl.int64, [GROUPS, 1], mbarrier.MBarrierLayout())
    k_ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    k_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(GROUPS):
        mbarrier.init(turns.index(i), count=1)
    for stage in gl.static_range(STAGES):
        mbarrier.init(k_ready.index(stage), count=1)
        mbarrier.init(v_ready.index(stage), count=1)
        mbarrier.init(k_free.index(stage), count=GROUPS)
        mbarrier.init(v_free.index(stage), count=GROUPS)
    mbarrier.arrive(turns.index(0), count=1)
    q_first = q + batch.to(gl.int64) * q_batch_stride + (kv_head * group).to(gl.int64) * q_head_stride
    for i in gl.static_range(GROUPS):
        load_queries(q_first, q_tiles.index(i), q_head_stride, q_row_stride, start + i * rows, rows, group, length)
    fence_async_shared()
    out_first = out + batch.to(gl.int64) * batch_stride + (kv_head * group).to(gl.int64) * head_stride
    lse_first = lse + (batch * heads + kv_head * group).to(gl.int64) * length
    gl.warp_specialize(
        [
            (
                attend,
                (
                    q_tiles, k_tiles, v_tiles, k_ready, v_ready, k_free, v_free, turns, out_first, lse_first,
                    head_stride, row_stride, blocks, members, start, rows, group, length, tiles, whole, block_size,
                    scale, 0,
                ),
            ),
            (
                attend,
                (
                    q_tiles, k_tiles, v_tiles, k_ready, v_ready, k_free, v_free, turns, out_first, lse_first,
                    head_stride, row_stride, blocks, members, start, rows, group, length, tiles, whole, block_size,
                    scale, 1,
                ),
            ),
            (
                load_keys_and_values,
                (
                    k_desc, v_desc, k_tiles, v_tiles, k_ready, v_ready, k_free, v_free, batch, kv_head, blocks,
                    block_size, tiles,
                ),
            ),
        ],
        [4, 1],
        [240, 24],
    )  # fmt: skip


def selected_attention(q, k, v, block_indices, out, lse, *, block_size: int, scale: float) -> None:
    batch, heads, length, dim = q.shape
    kv_heads, blocks = k.shape[1], block_indices.shape[3]
    group = heads // kv_heads
    block_n = max(64, block_size)
    rows = min(64, 16 * group)  # of a tile: a word has bits for 32 positions of two tiles
    n_blocks = triton.cdiv(length, block_size)
    grid = (triton.cdiv(length * group, 2 * rows), batch * kv_heads)
    most = min(n_blocks, 32 * blocks)  # in a list
    lists = torch.empty(2, grid[0] * grid[1] * most, dtype=torch.int32, device=q.device)
    counts = torch.empty(2 * grid[0] * grid[1], dtype=torch.int32, device=q.device)
    list_kernel[grid](
        block_indices, lists[0], lists[1], counts, group, length, blocks, 2 * rows, n_blocks, most, block_size,
        WHOLE=block_size == block_n, SLOTS=triton.next_power_of_2(blocks), num_warps=1,
    )  # fmt: skip

    def descriptor(tensor: torch.Tensor) -> TensorDescriptor:
        layout = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=4)
        return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), [1, 1, block_n, dim], layout)

    attention_kernel[grid](
        q, descriptor(k), descriptor(v), lists[0], lists[1], counts, out, lse, *q.stride()[:3], *out.stride()[:3],
        kv_heads, group, length, rows, most, block_size, scale * 1.4426950408889634, STAGES=2, GROUPS=GROUPS,
        num_warps=4,
    )  # fmt: skip
