"""Flash attention forward for Hopper in Gluon, after FlashAttention-3 (Shah et al., arXiv 2407.08608).

One warp loads tiles of keys and values by TMA. Two groups of four warps have 64 rows of queries each. They take turns
in giving the tensor cores work, and the softmax of one tile runs beside products: those of the other group, and that of
the tile before. For head dim 128, any lengths, and strides that TMA takes. It is for Hopper.
"""

import torch
import triton
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma, warpgroup_mma, warpgroup_mma_wait
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

load = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared  # its name in triton 3.6

GROUPS = 2
"""Groups of warps that multiply; each has its own rows of queries."""


@gluon.jit
def bring(desc, tiles, ready, free, batch, kv_head, tile):
    stages: gl.constexpr = tiles.shape[0]
    stage = tile % stages
    mbarrier.wait(free.index(stage), (tile // stages & 1) ^ 1)
    mbarrier.expect(ready.index(stage), desc.block_type.nbytes)
    place = tiles.index(stage).reshape(desc.block_type.shape)
    load(desc, [batch, kv_head, tile * tiles.shape[1], 0], ready.index(stage), place)


@gluon.jit
def load_keys_and_values(k_desc, v_desc, k_tiles, v_tiles, k_ready, v_ready, k_free, v_free, batch, kv_head, tiles):
    bring(k_desc, k_tiles, k_ready, k_free, batch, kv_head, 0)
    for tile in range(1, tiles):
        bring(k_desc, k_tiles, k_ready, k_free, batch, kv_head, tile)
        bring(v_desc, v_tiles, v_ready, v_free, batch, kv_head, tile - 1)
    bring(v_desc, v_tiles, v_ready, v_free, batch, kv_head, tiles - 1)


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
def softmax(s, row_max, row_sum, scale, rows, first_column, kv_len, shift, MASKED: gl.constexpr, CAUSAL: gl.constexpr):
    if MASKED:
        columns = first_column + gl.arange(0, s.shape[1], gl.SliceLayout(0, s.type.layout))
        visible = columns[None, :] < kv_len
        if CAUSAL:
            visible = visible & (columns[None, :] <= rows[:, None] + shift)
        s = gl.where(visible, s, float("-inf"))
    new_max = gl.maximum(row_max, gl.max(s, 1) * scale)
    rescale = gl.exp2(row_max - new_max)
    p = gl.exp2(s * scale - new_max[:, None])
    return p, rescale, new_max, row_sum * rescale + gl.sum(p, 1)


@gluon.jit
def walk(
    q, k_tiles, v_tiles, k_ready, v_ready, k_free, v_free, turns, p, acc, row_max, row_sum,
    rows, first, stop, kv_len, shift, scale, MASKED: gl.constexpr, CAUSAL: gl.constexpr, GROUP: gl.constexpr,
):  # fmt: skip
    stages: gl.constexpr = k_tiles.shape[0]
    block_n: gl.constexpr = k_tiles.shape[1]
    o_layout: gl.constexpr = acc.type.layout
    for tile in range(first, stop):
        mbarrier.wait(turns.index(GROUP), (tile - 1) & 1)
        s = scores(q, k_tiles, k_ready, tile)
        acc = weighted(p, acc, v_tiles, v_ready, tile - 1)
        mbarrier.arrive(turns.index(1 - GROUP), count=1)
        s = warpgroup_mma_wait(num_outstanding=1, deps=[s])
        mbarrier.arrive(k_free.index(tile % stages), count=1)
        new, rescale, row_max, row_sum = softmax(
            s, row_max, row_sum, scale, rows, tile * block_n, kv_len, shift, MASKED, CAUSAL
        )
        acc, p = warpgroup_mma_wait(num_outstanding=0, deps=[acc, p])
        mbarrier.arrive(v_free.index((tile - 1) % stages), count=1)
        acc = acc * gl.convert_layout(rescale, gl.SliceLayout(1, o_layout))[:, None]
        p = gl.convert_layout(new.to(gl.bfloat16), gl.DotOperandLayout(0, o_layout, 2))
    return p, acc, row_max, row_sum


@gluon.jit
def attend(
    q_tiles, k_tiles, v_tiles, k_ready, v_ready, k_free, v_free, q_ready, turns, out, lse, row_stride,
    first_row, q_len, kv_len, tiles, unmasked, scale, MASKED: gl.constexpr, CAUSAL: gl.constexpr, GROUP: gl.constexpr,
):  # fmt: skip
    num_warps: gl.constexpr = gl.num_warps()
    block_m: gl.constexpr = q_tiles.shape[1]
    block_n: gl.constexpr = k_tiles.shape[1]
    dim: gl.constexpr = q_tiles.shape[2]
    s_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [num_warps, 1], [16, block_n, 16])
    o_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [num_warps, 1], [16, dim, 16])
    first_row += GROUP * block_m
    shift = kv_len - q_len
    rows = first_row + gl.arange(0, block_m, gl.SliceLayout(1, s_layout))
    row_max = gl.full([block_m], float("-inf"), gl.float32, gl.SliceLayout(1, s_layout))
    row_sum = gl.full([block_m], 0.0, gl.float32, gl.SliceLayout(1, s_layout))
    acc = gl.zeros([block_m, dim], gl.float32, o_layout)
    mbarrier.wait(q_ready, 0)
    q = q_tiles.index(GROUP)
    s = warpgroup_mma_wait(num_outstanding=0, deps=[scores(q, k_tiles, k_ready, 0)])
    mbarrier.arrive(k_free.index(0), count=1)
    new, _, row_max, row_sum = softmax(s, row_max, row_sum, scale, rows, 0, kv_len, shift, MASKED, CAUSAL)
    p = gl.convert_layout(new.to(gl.bfloat16), gl.DotOperandLayout(0, o_layout, 2))
    p, acc, row_max, row_sum = walk(
        q, k_tiles, v_tiles, k_ready, v_ready, k_free, v_free, turns, p, acc, row_max, row_sum,
        rows, 1, unmasked, kv_len, shift, scale, False, CAUSAL, GROUP,
    )  # fmt: skip
    if MASKED:
        p, acc, row_max, row_sum = walk(
            q, k_tiles, v_tiles, k_ready, v_ready, k_free, v_free, turns, p, acc, row_max, row_sum,
            rows, unmasked, tiles, kv_len, shift, scale, True, CAUSAL, GROUP,
        )  # fmt: skip
    acc = warpgroup_mma_wait(num_outstanding=0, deps=[weighted(p, acc, v_tiles, v_ready, tiles - 1)])
    gl.store(lse + rows, (row_max + gl.log2(row_sum)) * 0.6931471805599453, mask=rows < q_len)
    out_rows = first_row + gl.arange(0, block_m, gl.SliceLayout(1, o_layout))
    dims = gl.arange(0, dim, gl.SliceLayout(0, o_layout))
    acc = acc * gl.convert_layout(1.0 / row_sum, gl.SliceLayout(1, o_layout))[:, None]
    places = out_rows.to(gl.int64)[:, None] * row_stride + dims[None, :]
    gl.store(out + places, acc.to(gl.bfloat16), mask=out_rows[:, None] < q_len)


@gluon.jit(do_not_specialize=["heads", "q_len", "kv_len"])  # to know their divisors gains nothing
def attention_kernel(
    q_desc, k_desc, v_desc, out, lse, batch_stride, head_stride, row_stride, heads, group, q_len, kv_len, scale,
    MASKED: gl.constexpr, CAUSAL: gl.constexpr, STAGES: gl.constexpr, GROUPS: gl.constexpr,
):  # fmt: skip
    block_m: gl.constexpr = q_desc.block_type.shape[2]
    block_n: gl.constexpr = k_desc.block_type.shape[2]
    dim: gl.constexpr = q_desc.block_type.shape[3]
    first_row = (gl.num_programs(0) - 1 - gl.program_id(0)) * (GROUPS * block_m)  # those with most keys first
    batch = gl.program_id(1) // heads
    head = gl.program_id(1) % heads
    tile_layout: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
    q_tiles = gl.allocate_shared_memory(gl.bfloat16, [GROUPS, block_m, dim], tile_layout)
    k_tiles = gl.allocate_shared_memory(gl.bfloat16, [STAGES, block_n, dim], tile_layout)
    v_tiles = gl.allocate_shared_memory(gl.bfloat16, [STAGES, block_n, dim], tile_layout)
    q_ready = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    turns = gl.allocate_shared_memory(gl.int64, [GROUPS, 1], mbarrier.MBarrierLayout())
    k_ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    k_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    mbarrier.init(q_ready, count=1)
    for i in gl.static_range(GROUPS):
        mbarrier.init(turns.index(i), count=1)
    for stage in gl.static_range(STAGES):
        mbarrier.init(k_ready.index(stage), count=1)
        mbarrier.init(v_ready.index(stage), count=1)
        mbarrier.init(k_free.index(stage), count=GROUPS)
        mbarrier.init(v_free.index(stage), count=GROUPS)
    mbarrier.arrive(turns.index(0), count=1)
    mbarrier.expect(q_ready, GROUPS * q_desc.block_type.nbytes)
    for i in gl.static_range(GROUPS):
        place = q_tiles.index(i).reshape(q_desc.block_type.shape)
        load(q_desc, [batch, head, first_row + i * block_m, 0], q_ready, place)
    last = kv_len
    unmasked = kv_len // block_n
    if CAUSAL:
        last = gl.minimum(kv_len, first_row + GROUPS * block_m + kv_len - q_len)
        unmasked = gl.minimum(kv_len, first_row + 1 + kv_len - q_len) // block_n
    tiles = gl.maximum(gl.cdiv(last, block_n), 1)
    unmasked = gl.maximum(unmasked, 1)  # the first tile comes before both loops
    out_head = out + batch.to(gl.int64) * batch_stride + head.to(gl.int64) * head_stride
    lse_head = lse + gl.program_id(1).to(gl.int64) * q_len
    gl.warp_specialize(
        [
            (
                attend,
                (
                    q_tiles, k_tiles, v_tiles, k_ready, v_ready, k_free, v_free, q_ready, turns, out_head, lse_head,
                    row_stride, first_row, q_len, kv_len, tiles, unmasked, scale, MASKED, CAUSAL, 0,
                ),
            ),
            (
                attend,
                (
                    q_tiles, k_tiles, v_tiles, k_ready, v_ready, k_free, v_free, q_ready, turns, out_head, lse_head,
                    row_stride, first_row, q_len, kv_len, tiles, unmasked, scale, MASKED, CAUSAL, 1,
                ),
            ),
            (
                load_keys_and_values,
                (k_desc, v_desc, k_tiles, v_tiles, k_ready, v_ready, k_free, v_free, batch, head // group, tiles),
            ),
        ],
        [4, 1],
        [240, 24],
    )  # fmt: skip


def attention(q, k, v, out, lse, *, causal: bool, scale: float) -> None:
    batch, heads, q_len, dim = q.shape
    kv_heads, kv_len = k.shape[1], k.shape[2]
    block_m, block_n = 64, 128

    def descriptor(tensor: torch.Tensor, rows: int) -> TensorDescriptor:
        block = [1, 1, rows, dim]
        layout = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=4)
        return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), block, layout)

    attention_kernel[(triton.cdiv(q_len, GROUPS * block_m), batch * heads)](
        descriptor(q, block_m),
        descriptor(k, block_n),
        descriptor(v, block_n),
        out,
        lse,
        *out.stride()[:3],
        heads,
        heads // kv_heads,
        q_len,
        kv_len,
        scale * 1.4426950408889634,
        MASKED=causal or kv_len % block_n != 0,
        CAUSAL=causal,
        STAGES=2,
        GROUPS=GROUPS,
        num_warps=4,
    )
