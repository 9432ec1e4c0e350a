"""Flash attention forward for Blackwell in Gluon, after FlashAttention-4 (Dao-AILab, flash_attn/cute).

One warp loads tiles of keys and values by TMA, one issues products into tensor memory (tcgen05). Two groups of four
warps have a tile of 128 queries each: they turn scores into weights where these lie, a quarter of them by a polynomial.
A fourth group rescales what was added up so far, and writes the results. For head dim 128, any lengths, and strides
that TMA takes. It is for Blackwell.
"""

import torch
import triton
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.blackwell import (
    TensorMemoryLayout,
    allocate_tensor_memory,
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
def multiply(
    q_tiles, k_tiles, v_tiles, s, o, q_ready, k_ready, v_ready, k_free, v_free, s_ready, p_ready, o_ready, tiles
):
    stages: gl.constexpr = k_tiles.shape[0]
    mbarrier.wait(q_ready, 0)
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
    s, s_ready, p_ready, scaling, scaling_ready, scaling_free, row_max, row_sum, rows, first, stop,
    kv_len, shift, scale, MASKED: gl.constexpr, CAUSAL: gl.constexpr, GROUP: gl.constexpr,
):  # fmt: skip
    block_n: gl.constexpr = s.shape[1]
    part: gl.constexpr = block_n // 4
    layout: gl.constexpr = gl.BlockedLayout([1, part], [32, 1], [4, 1], [0, 1])
    p = weights_in(s)
    for tile in range(first, stop):
        mbarrier.wait(s_ready.index(GROUP), tile & 1)
        s0, s1 = s.slice(0, part).load(layout), s.slice(part, part).load(layout)
        s2, s3 = s.slice(2 * part, part).load(layout), s.slice(3 * part, part).load(layout)
        if MASKED:
            stop_column = kv_len
            if CAUSAL:
                stop_column = gl.minimum(kv_len, rows[:, None] + shift + 1)
            left = stop_column - (tile * block_n + gl.arange(0, part, gl.SliceLayout(0, layout)))[None, :]
            s0 = gl.where(left > 0, s0, float("-inf"))
            s1 = gl.where(left > part, s1, float("-inf"))
            s2 = gl.where(left > 2 * part, s2, float("-inf"))
            s3 = gl.where(left > 3 * part, s3, float("-inf"))
        most = gl.max(gl.maximum(gl.maximum(s0, s1), gl.maximum(s2, s3)), 1)
        new_max = gl.maximum(row_max, most * scale)
        rescale = gl.exp2(row_max - new_max)
        if tile > 0:
            mbarrier.wait(scaling_free.index(GROUP), tile & 1)
            scaling.store(rescale)
            mbarrier.arrive(scaling_ready.index(GROUP), count=1)
        p0 = gl.exp2(s0 * scale - new_max[:, None])
        p.slice(0, part).store(p0.to(gl.bfloat16))
        p1 = gl.exp2(s1 * scale - new_max[:, None])
        p.slice(part, part).store(p1.to(gl.bfloat16))
        p2 = gl.exp2(s2 * scale - new_max[:, None])
        p.slice(2 * part, part).store(p2.to(gl.bfloat16))
        p3 = polynomial_exp2(s3 * scale - new_max[:, None])
        p.slice(3 * part, part).store(p3.to(gl.bfloat16))
        mbarrier.arrive(p_ready.index(GROUP), count=1)
        row_sum = row_sum * rescale + gl.sum((p0 + p1) + (p2 + p3), 1)
        row_max = new_max
    return row_max, row_sum


@gluon.jit
def attend(
    s, s_ready, p_ready, scaling, scaling_ready, scaling_free, lse, first_row, q_len, kv_len, tiles, unmasked, scale,
    CAUSAL: gl.constexpr, GROUP: gl.constexpr,
):  # fmt: skip
    block_m: gl.constexpr = s.shape[1]
    layout: gl.constexpr = gl.SliceLayout(1, gl.BlockedLayout([1, s.shape[2] // 4], [32, 1], [4, 1], [0, 1]))
    rows = first_row + GROUP * block_m + gl.arange(0, block_m, layout)
    row_max = gl.full([block_m], float("-inf"), gl.float32, layout)
    row_sum = gl.full([block_m], 0.0, gl.float32, layout)
    own = scaling.index(GROUP)
    row_max, row_sum = soften(
        s.index(GROUP), s_ready, p_ready, own, scaling_ready, scaling_free, row_max, row_sum, rows, 0, unmasked,
        kv_len, kv_len - q_len, scale, False, CAUSAL, GROUP,
    )  # fmt: skip
    row_max, row_sum = soften(
        s.index(GROUP), s_ready, p_ready, own, scaling_ready, scaling_free, row_max, row_sum, rows, unmasked, tiles,
        kv_len, kv_len - q_len, scale, True, CAUSAL, GROUP,
    )  # fmt: skip
    mbarrier.wait(scaling_free.index(GROUP), tiles & 1)
    own.store(1.0 / row_sum)
    mbarrier.arrive(scaling_ready.index(GROUP), count=1)
    gl.store(lse + rows, (row_max + gl.log2(row_sum)) * 0.6931471805599453, mask=rows < q_len)


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
    o, o_ready, p_ready, scaling, scaling_ready, scaling_free, tiles, out, row_stride, first_row, q_len,
):  # fmt: skip
    half: gl.constexpr = o.shape[2] // 2
    layout: gl.constexpr = gl.BlockedLayout([1, half], [32, 1], [4, 1], [0, 1])
    for group in gl.static_range(2):
        mbarrier.arrive(p_ready.index(group), count=1)
    for tile in range(1, tiles):
        for group in gl.static_range(2):
            factor = factor_of(o_ready, scaling, scaling_ready, scaling_free, tile, group, layout)
            for i in gl.static_range(2):
                part = o.index(group).slice(i * half, half)
                part.store(part.load(layout) * factor)
            mbarrier.arrive(p_ready.index(group), count=1)
    for group in gl.static_range(2):
        factor = factor_of(o_ready, scaling, scaling_ready, scaling_free, tiles, group, layout)
        rows = first_row + group * o.shape[1] + gl.arange(0, o.shape[1], gl.SliceLayout(1, layout))
        for i in gl.static_range(2):
            part = o.index(group).slice(i * half, half).load(layout) * factor
            dims = i * half + gl.arange(0, half, gl.SliceLayout(0, layout))
            places = rows.to(gl.int64)[:, None] * row_stride + dims[None, :]
            gl.store(out + places, part.to(gl.bfloat16), mask=rows[:, None] < q_len)


@gluon.jit(do_not_specialize=["heads", "q_len", "kv_len"])  # to know their divisors gains nothing
def attention_kernel(
    q_desc, k_desc, v_desc, out, lse, batch_stride, head_stride, row_stride, heads, group, q_len, kv_len, scale,
    CAUSAL: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    block_m: gl.constexpr = q_desc.block_type.shape[2]
    block_n: gl.constexpr = k_desc.block_type.shape[2]
    dim: gl.constexpr = q_desc.block_type.shape[3]
    first_row = (gl.num_programs(0) - 1 - gl.program_id(0)) * (2 * block_m)  # those with most keys first
    batch = gl.program_id(1) // heads
    head = gl.program_id(1) % heads
    tile_layout: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
    q_tiles = gl.allocate_shared_memory(gl.bfloat16, [2, block_m, dim], tile_layout)
    k_tiles = gl.allocate_shared_memory(gl.bfloat16, [STAGES, block_n, dim], tile_layout)
    v_tiles = gl.allocate_shared_memory(gl.bfloat16, [STAGES, block_n, dim], tile_layout)
    scaling = gl.allocate_shared_memory(gl.float32, [2, block_m], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    s = allocate_tensor_memory(gl.float32, [2, block_m, block_n], TensorMemoryLayout([block_m, block_n], col_stride=1))
    o = allocate_tensor_memory(gl.float32, [2, block_m, dim], TensorMemoryLayout([block_m, dim], col_stride=1))
    q_ready = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    s_ready = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    p_ready = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    o_ready = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    scaling_ready = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    scaling_free = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    k_ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    k_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    mbarrier.init(q_ready, count=1)
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
    mbarrier.expect(q_ready, 2 * q_desc.block_type.nbytes)
    for i in gl.static_range(2):
        place = q_tiles.index(i).reshape(q_desc.block_type.shape)
        load(q_desc, [batch, head, first_row + i * block_m, 0], q_ready, place)
    last = kv_len
    unmasked = kv_len // block_n
    if CAUSAL:
        last = gl.minimum(kv_len, first_row + 2 * block_m + kv_len - q_len)
        unmasked = gl.minimum(kv_len, first_row + 1 + kv_len - q_len) // block_n
    tiles = gl.maximum(gl.cdiv(last, block_n), 1)
    unmasked = gl.maximum(unmasked, 0)
    out_head = out + batch.to(gl.int64) * batch_stride + head.to(gl.int64) * head_stride
    lse_head = lse + gl.program_id(1).to(gl.int64) * q_len
    gl.warp_specialize(
        [
            (
                correct,
                (
                    o, o_ready, p_ready, scaling, scaling_ready, scaling_free, tiles, out_head, row_stride,
                    first_row, q_len,
                ),
            ),
            (
                attend,
                (
                    s, s_ready, p_ready, scaling, scaling_ready, scaling_free, lse_head, first_row, q_len, kv_len,
                    tiles, unmasked, scale, CAUSAL, 0,
                ),
            ),
            (
                attend,
                (
                    s, s_ready, p_ready, scaling, scaling_ready, scaling_free, lse_head, first_row, q_len, kv_len,
                    tiles, unmasked, scale, CAUSAL, 1,
                ),
            ),
            (
                multiply,
                (
                    q_tiles, k_tiles, v_tiles, s, o, q_ready, k_ready, v_ready, k_free, v_free, s_ready, p_ready,
                    o_ready, tiles,
                ),
            ),
            (
                load_keys_and_values,
                (k_desc, v_desc, k_tiles, v_tiles, k_ready, v_ready, k_free, v_free, batch, head // group, tiles),
            ),
        ],
        [4, 4, 1, 1],
        [192, 192, 24, 24],
    )  # fmt: skip


def attention(q, k, v, out, lse, *, causal: bool, scale: float) -> None:
    batch, heads, q_len, dim = q.shape
    kv_heads, kv_len = k.shape[1], k.shape[2]
    block_m, block_n = 128, 128

    def descriptor(tensor: torch.Tensor, rows: int) -> TensorDescriptor:
        block = [1, 1, rows, dim]
        layout = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=4)
        return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), block, layout)

    attention_kernel[(triton.cdiv(q_len, 2 * block_m), batch * heads)](
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
        CAUSAL=causal,
        STAGES=2,
        num_warps=4,
    )
