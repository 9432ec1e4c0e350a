"""Selected attention for Blackwell in Gluon, in the order of ``query_union`` and with the roles of FlashAttention-4
(Dao-AILab, flash_attn/cute).

1. ``list_kernel`` lists the blocks that any position of two tiles selects, and of each a word of bits: which of them;
2. ``attention_kernel`` walks over the list. One warp loads blocks by TMA, one issues products into tensor memory
   (tcgen05). Two groups of four warps have a tile of 128 rows each, the query heads of one KV head at consecutive
   positions: they turn scores into weights where these lie, a quarter of them by a polynomial. A row that did not
   select a block subtracts infinity. A fourth group rescales what was added up so far, and writes the results.

For head dim 128, any lengths, groups and numbers of blocks, and strides that TMA takes. It is for Blackwell.
"""

import torch
import triton
import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.blackwell import (
    TensorMemoryLayout,
    allocate_tensor_memory,
    fence_async_shared,
    mbarrier,
    tcgen05_commit,
    tcgen05_mma,
    tensor_memory_descriptor,
    tma,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

# These have other names in triton 3.6.
load = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared
reinterpret = getattr(tensor_memory_descriptor, "reinterpret", None) or tensor_memory_descriptor._reinterpret


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
def weights_in(s):
    """Return the view of scores that weights take: the first half of their columns."""
    layout: gl.constexpr = TensorMemoryLayout([s.shape[0], s.shape[1]], col_stride=1)
    return reinterpret(s, gl.bfloat16, [s.shape[0], 2 * s.shape[1]], layout).slice(0, s.shape[1])


@gluon.jit
def score(q_tiles, k_tiles, s, s_ready, tile, GROUP: gl.constexpr):
    k = k_tiles.index(tile % k_tiles.shape[0])
    tcgen05_mma(q_tiles.index(GROUP), k.permute((1, 0)), s.index(GROUP), use_acc=False)
    tcgen05_commit(s_ready.index(GROUP))


@gluon.jit
def weigh(v_tiles, s, o, p_ready, o_ready, tile, GROUP: gl.constexpr):
    v = v_tiles.index(tile % v_tiles.shape[0])
    mbarrier.wait(p_ready.index(GROUP), tile & 1)
    tcgen05_mma(weights_in(s.index(GROUP)), v, o.index(GROUP), use_acc=tile > 0)
    tcgen05_commit(o_ready.index(GROUP))


@gluon.jit
def multiply(q_tiles, k_tiles, v_tiles, s, o, k_ready, v_ready, k_free, v_free, s_ready, p_ready, o_ready, tiles):
    stages: gl.constexpr = k_tiles.shape[0]
    mbarrier.wait(k_ready.index(0), 0)
    score(q_tiles, k_tiles, s, s_ready, 0, 0)
    score(q_tiles, k_tiles, s, s_ready, 0, 1)
    tcgen05_commit(k_free.index(0))
    for tile in range(tiles - 1):
        mbarrier.wait(v_ready.index(tile % stages), tile // stages & 1)
        mbarrier.wait(k_ready.index((tile + 1) % stages), (tile + 1) // stages & 1)
        weigh(v_tiles, s, o, p_ready, o_ready, tile, 0)
        score(q_tiles, k_tiles, s, s_ready, tile + 1, 0)
        weigh(v_tiles, s, o, p_ready, o_ready, tile, 1)
        tcgen05_commit(v_free.index(tile % stages))
        score(q_tiles, k_tiles, s, s_ready, tile + 1, 1)
        tcgen05_commit(k_free.index((tile + 1) % stages))
    mbarrier.wait(v_ready.index((tiles - 1) % stages), (tiles - 1) // stages & 1)
    weigh(v_tiles, s, o, p_ready, o_ready, tiles - 1, 0)
    weigh(v_tiles, s, o, p_ready, o_ready, tiles - 1, 1)


@gluon.jit
def polynomial_exp2(x):
    """2 to the power of x, which is not above 0: of its fraction by a polynomial, within 1e-3 of the result."""
    x = gl.maximum(x, -126.0)
    whole = x + 12582912.0  # 1.5 * 2**23: the last bits are x rounded to an integer
    x = x - (whole - 12582912.0)
    power = ((0.05550411 * x + 0.24022651) * x + 0.69314718) * x + 1.0
    return (power.to(gl.int32, bitcast=True) + (whole.to(gl.int32, bitcast=True) << 23)).to(gl.float32, bitcast=True)


@gluon.jit
def soften(
    s, s_ready, p_ready, scaling, scaling_ready, scaling_free, row_max, row_sum, blocks, members, position, member,
    first, stop, block_size, scale, MASKED: gl.constexpr, GROUP: gl.constexpr,
):  # fmt: skip
    block_n: gl.constexpr = s.shape[1]
    part: gl.constexpr = block_n // 4
    layout: gl.constexpr = gl.BlockedLayout([1, part], [32, 1], [4, 1], [0, 1])
    p = weights_in(s)
    for tile in range(first, stop):
        chosen = (gl.load(members + tile) >> member & 1) != 0
        mbarrier.wait(s_ready.index(GROUP), tile & 1)
        s0, s1 = s.slice(0, part).load(layout), s.slice(part, part).load(layout)
        s2, s3 = s.slice(2 * part, part).load(layout), s.slice(3 * part, part).load(layout)
        if MASKED:
            seen = gl.minimum(position + 1 - gl.load(blocks + tile) * block_size, block_size)
            left = seen[:, None] - gl.arange(0, part, gl.SliceLayout(0, layout))[None, :]
            s0 = gl.where(left > 0, s0, float("-inf"))
            s1 = gl.where(left > part, s1, float("-inf"))
            s2 = gl.where(left > 2 * part, s2, float("-inf"))
            s3 = gl.where(left > 3 * part, s3, float("-inf"))
        most = gl.max(gl.maximum(gl.maximum(s0, s1), gl.maximum(s2, s3)), 1)
        new_max = gl.maximum(row_max, gl.where(chosen, most * scale, float("-inf")))
        subtracted = gl.where(chosen, new_max, float("inf"))[:, None]
        rescale = gl.exp2(row_max - new_max)
        if tile > 0:
            mbarrier.wait(scaling_free.index(GROUP), tile & 1)
            scaling.store(rescale)
            mbarrier.arrive(scaling_ready.index(GROUP), count=1)
        p0 = gl.exp2(s0 * scale - subtracted)
        p.slice(0, part).store(p0.to(gl.bfloat16))
        p1 = gl.exp2(s1 * scale - subtracted)
        p.slice(part, part).store(p1.to(gl.bfloat16))
        p2 = gl.exp2(s2 * scale - subtracted)
        p.slice(2 * part, part).store(p2.to(gl.bfloat16))
        p3 = polynomial_exp2(s3 * scale - subtracted)
        p.slice(3 * part, part).store(p3.to(gl.bfloat16))
        mbarrier.arrive(p_ready.index(GROUP), count=1)
        row_sum = row_sum * rescale + gl.sum((p0 + p1) + (p2 + p3), 1)
        row_max = new_max
    return row_max, row_sum


@gluon.jit
def attend(
    s, s_ready, p_ready, scaling, scaling_ready, scaling_free, lse, blocks, members, start, rows, group, length,
    tiles, whole, block_size, scale, GROUP: gl.constexpr,
):  # fmt: skip
    block_m: gl.constexpr = s.shape[1]
    layout: gl.constexpr = gl.SliceLayout(1, gl.BlockedLayout([1, s.shape[2] // 4], [32, 1], [4, 1], [0, 1]))
    offs = gl.arange(0, block_m, layout)
    row = start + GROUP * rows + offs
    position = row // group
    member = position - start // group
    # Not -inf: a row may have selected none of the first blocks, and its maximum has to be a number.
    row_max = gl.full([block_m], -1.0e30, gl.float32, layout)
    row_sum = gl.full([block_m], 0.0, gl.float32, layout)
    own = scaling.index(GROUP)
    row_max, row_sum = soften(
        s.index(GROUP), s_ready, p_ready, own, scaling_ready, scaling_free, row_max, row_sum, blocks, members, position,
        member, 0, whole, block_size, scale, False, GROUP,
    )  # fmt: skip
    row_max, row_sum = soften(
        s.index(GROUP), s_ready, p_ready, own, scaling_ready, scaling_free, row_max, row_sum, blocks, members, position,
        member, whole, tiles, block_size, scale, True, GROUP,
    )  # fmt: skip
    mbarrier.wait(scaling_free.index(GROUP), tiles & 1)
    own.store(1.0 / row_sum)
    mbarrier.arrive(scaling_ready.index(GROUP), count=1)
    written = (row_max + gl.log2(row_sum)) * 0.6931471805599453
    gl.store(lse + row % group * length + position, written, mask=(offs < rows) & (position < length))


@gluon.jit
def factor_of(o_ready, scaling, scaling_ready, scaling_free, tile, GROUP: gl.constexpr, layout: gl.constexpr):
    """Return what the softmax of a tile says to multiply by, once all before that tile is added up."""
    mbarrier.wait(scaling_ready.index(GROUP), (tile - 1) & 1)
    factor = scaling.index(GROUP).load(gl.SliceLayout(1, layout))
    mbarrier.arrive(scaling_free.index(GROUP), count=1)
    mbarrier.wait(o_ready.index(GROUP), (tile - 1) & 1)
    return factor[:, None]


@gluon.jit
def correct(
    o, o_ready, p_ready, scaling, scaling_ready, scaling_free, tiles, out, head_stride, row_stride, start, rows, group,
    length,
):  # fmt: skip
    half: gl.constexpr = o.shape[2] // 2
    layout: gl.constexpr = gl.BlockedLayout([1, half], [32, 1], [4, 1], [0, 1])
    for turn in gl.static_range(2):
        mbarrier.arrive(p_ready.index(turn), count=1)
    for tile in range(1, tiles):
        for turn in gl.static_range(2):
            factor = factor_of(o_ready, scaling, scaling_ready, scaling_free, tile, turn, layout)
            for i in gl.static_range(2):
                part = o.index(turn).slice(i * half, half)
                part.store(part.load(layout) * factor)
            mbarrier.arrive(p_ready.index(turn), count=1)
    for turn in gl.static_range(2):
        factor = factor_of(o_ready, scaling, scaling_ready, scaling_free, tiles, turn, layout)
        offs = gl.arange(0, o.shape[1], gl.SliceLayout(1, layout))
        row = start + turn * rows + offs
        at = (row % group).to(gl.int64) * head_stride + (row // group).to(gl.int64) * row_stride
        for i in gl.static_range(2):
            part = o.index(turn).slice(i * half, half).load(layout) * factor
            dims = i * half + gl.arange(0, half, gl.SliceLayout(0, layout))
            there = (offs < rows) & (row // group < length)
            gl.store(out + at[:, None] + dims[None, :], part.to(gl.bfloat16), mask=there[:, None])


@gluon.jit
def load_queries(q, q_tile, head_stride, row_stride, first, rows, group, length):
    """Store 128 rows of queries where products read them; zero where there are none."""
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
    STAGES: gl.constexpr,
):  # fmt: skip
    block_m: gl.constexpr = 128
    block_n: gl.constexpr = k_desc.block_type.shape[2]
    dim: gl.constexpr = k_desc.block_type.shape[3]
    pair = gl.num_programs(0) - 1 - gl.program_id(0)  # those with most keys first
    start = pair * 2 * rows
    batch = gl.program_id(1) // kv_heads
    kv_head = gl.program_id(1) % kv_heads
    heads = kv_heads * group
    listed = (gl.program_id(1) * gl.num_programs(0) + pair).to(gl.int64)
    blocks, members = block_lists + listed * most, member_lists + listed * most
    tiles, whole = gl.load(counts + 2 * listed), gl.load(counts + 2 * listed + 1)
    tile_layout: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
    q_tiles = gl.allocate_shared_memory(gl.bfloat16, [2, block_m, dim], tile_layout)
    k_tiles = gl.allocate_shared_memory(gl.bfloat16, [STAGES, block_n, dim], tile_layout)
    v_tiles = gl.allocate_shared_memory(gl.bfloat16, [STAGES, block_n, dim], tile_layout)
    scaling = gl.allocate_shared_memory(gl.float32, [2, block_m], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    s = allocate_tensor_memory(gl.float32, [2, block_m, block_n], TensorMemoryLayout([block_m, block_n], col_stride=1))
    o = allocate_tensor_memory(gl.float32, [2, block_m, dim], TensorMemoryLayout([block_m, dim], col_stride=1))
    s_ready = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    p_ready = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    o_ready = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    scaling_ready = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    scaling_free = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    k_ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    k_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(2):
        mbarrier.init(s_ready.index(i), count=1)
        mbarrier.init(p_ready.index(i), count=2)  # weights are there, and what was added up is rescaled
        mbarrier.init(o_ready.index(i), count=1)
        mbarrier.init(scaling_ready.index(i), count=1)
        mbarrier.init(scaling_free.index(i), count=1)
    for stage in gl.static_range(STAGES):
        mbarrier.init(k_ready.index(stage), count=1)
        mbarrier.init(v_ready.index(stage), count=1)
        mbarrier.init(k_free.index(stage), count=1)
        mbarrier.init(v_free.index(stage), count=1)
    q_first = q + batch.to(gl.int64) * q_batch_stride + (kv_head * group).to(gl.int64) * q_head_stride
    for i in gl.static_range(2):
        load_queries(q_first, q_tiles.index(i), q_head_stride, q_row_stride, start + i * rows, rows, group, length)
    fence_async_shared()
    out_first = out + batch.to(gl.int64) * batch_stride + (kv_head * group).to(gl.int64) * head_stride
    lse_first = lse + (batch * heads + kv_head * group).to(gl.int64) * length
    gl.warp_specialize(
        [
            (
                correct,
                (
                    o, o_ready, p_ready, scaling, scaling_ready, scaling_free, tiles, out_first, head_stride,
                    row_stride, start, rows, group, length,
                ),
            ),
            (
                attend,
                (
                    s, s_ready, p_ready, scaling, scaling_ready, scaling_free, lse_first, blocks, members, start, rows,
                    group, length, tiles, whole, block_size, scale, 0,
                ),
            ),
            (
                attend,
                (
                    s, s_ready, p_ready, scaling, scaling_ready, scaling_free, lse_first, blocks, members, start, rows,
                    group, length, tiles, whole, block_size, scale, 1,
                ),
            ),
            (
                multiply,
                (
                    q_tiles, k_tiles, v_tiles, s, o, k_ready, v_ready, k_free, v_free, s_ready, p_ready,
                    o_ready, tiles,
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
        [4, 4, 1, 1],
        [192, 192, 24, 24],
    )  # fmt: skip


def selected_attention(q, k, v, block_indices, out, lse, *, block_size: int, scale: float) -> None:
    batch, heads, length, dim = q.shape
    kv_heads, blocks = k.shape[1], block_indices.shape[3]
    group = heads // kv_heads
    block_n = max(64, block_size)
    rows = min(128, 16 * group)  # of a tile: a word has bits for 32 positions of two tiles
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
        kv_heads, group, length, rows, most, block_size, scale * 1.4426950408889634, STAGES=2, num_warps=4,
    )  # fmt: skip
