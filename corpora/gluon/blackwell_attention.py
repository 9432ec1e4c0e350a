"""Flash attention forward for Blackwell in Gluon: one warp loads tiles of keys and values by TMA, one issues products
into tensor memory (tcgen05), four keep the softmax.

For head dim 128, any lengths, and strides that TMA takes. It is for Blackwell.
"""

import torch
import triton
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.blackwell import (
    TensorMemoryLayout, allocate_tensor_memory, fence_async_shared, mbarrier, tcgen05_commit, tcgen05_mma, tma,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

load = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared  # its name in triton 3.6


@gluon.jit
def load_keys_and_values(k_desc, v_desc, k_tiles, v_tiles, k_ready, v_ready, k_free, v_free, batch, kv_head, tiles):
    stages: gl.constexpr = k_tiles.shape[0]
    block_n: gl.constexpr = k_tiles.shape[3]
    for tile in range(tiles):
        stage = tile % stages
        phase = (tile // stages) & 1
        mbarrier.wait(k_free.index(stage), phase ^ 1)
        mbarrier.expect(k_ready.index(stage), k_desc.block_type.nbytes)
        load(k_desc, [batch, kv_head, tile * block_n, 0], k_ready.index(stage), k_tiles.index(stage))
        mbarrier.wait(v_free.index(stage), phase ^ 1)
        mbarrier.expect(v_ready.index(stage), v_desc.block_type.nbytes)
        load(v_desc, [batch, kv_head, tile * block_n, 0], v_ready.index(stage), v_tiles.index(stage))


@gluon.jit
def multiply(
    q_tile, k_tiles, v_tiles, p_tile, s, o, q_ready, k_ready, v_ready, k_free, v_free, s_ready, p_ready, o_ready, tiles
):
    stages: gl.constexpr = k_tiles.shape[0]
    block_m: gl.constexpr = q_tile.shape[2]
    block_n: gl.constexpr = k_tiles.shape[3]
    dim: gl.constexpr = q_tile.shape[3]
    mbarrier.wait(q_ready, 0)
    q = q_tile.reshape([block_m, dim])
    for tile in range(tiles):
        stage = tile % stages
        phase = (tile // stages) & 1
        mbarrier.wait(k_ready.index(stage), phase)
        tcgen05_mma(q, k_tiles.index(stage).reshape([block_n, dim]).permute((1, 0)), s, use_acc=False)
        tcgen05_commit(s_ready)
        tcgen05_commit(k_free.index(stage))
        mbarrier.wait(v_ready.index(stage), phase)
        mbarrier.wait(p_ready, tile & 1)
        tcgen05_mma(p_tile, v_tiles.index(stage).reshape([block_n, dim]), o, use_acc=tile > 0)
        tcgen05_commit(o_ready)
        tcgen05_commit(v_free.index(stage))


@gluon.jit
def attend(
    p_tile, s, o, s_ready, p_ready, o_ready, out, lse, row_stride, first_row, q_len, kv_len, tiles, scale,
    CAUSAL: gl.constexpr,
):
    block_m: gl.constexpr = s.shape[0]
    block_n: gl.constexpr = s.shape[1]
    dim: gl.constexpr = o.shape[1]
    layout: gl.constexpr = gl.BlockedLayout([1, block_n], [32, 1], [4, 1], [0, 1])
    o_layout: gl.constexpr = gl.BlockedLayout([1, dim], [32, 1], [4, 1], [0, 1])
    rows = first_row + gl.arange(0, block_m, gl.SliceLayout(1, layout))
    row_max = gl.full([block_m], float("-inf"), gl.float32, gl.SliceLayout(1, layout))
    row_sum = gl.full([block_m], 0.0, gl.float32, gl.SliceLayout(1, layout))
    for tile in range(tiles):
        mbarrier.wait(s_ready, tile & 1)
        columns = tile * block_n + gl.arange(0, block_n, gl.SliceLayout(0, layout))
        visible = columns[None, :] < kv_len
        if CAUSAL:
            visible = visible & (columns[None, :] <= rows[:, None] + (kv_len - q_len))
        scores = gl.where(visible, s.load(layout) * scale, float("-inf"))
        new_max = gl.maximum(row_max, gl.max(scores, 1))
        rescale = gl.exp2(row_max - new_max)
        p = gl.exp2(scores - new_max[:, None])
        row_sum = row_sum * rescale + gl.sum(p, 1)
        row_max = new_max
        mbarrier.wait(o_ready, (tile & 1) ^ 1)
        p_tile.store(p.to(gl.bfloat16))
        o.store(o.load(o_layout) * gl.convert_layout(rescale, gl.SliceLayout(1, o_layout))[:, None])
        fence_async_shared()
        mbarrier.arrive(p_ready, count=1)
    mbarrier.wait(o_ready, (tiles & 1) ^ 1)
    gl.store(lse + rows, (row_max + gl.log2(row_sum)) * 0.6931471805599453, mask=rows < q_len)
    out_rows = first_row + gl.arange(0, block_m, gl.SliceLayout(1, o_layout))
    dims = gl.arange(0, dim, gl.SliceLayout(0, o_layout))
    acc = o.load(o_layout) / gl.convert_layout(row_sum, gl.SliceLayout(1, o_layout))[:, None]
    places = out_rows.to(gl.int64)[:, None] * row_stride + dims[None, :]
    gl.store(out + places, acc.to(gl.bfloat16), mask=out_rows[:, None] < q_len)


@gluon.jit
def attention_kernel(
    q_desc, k_desc, v_desc, out, lse, batch_stride, head_stride, row_stride, heads, group, q_len, kv_len, scale,
    CAUSAL: gl.constexpr, STAGES: gl.constexpr,
):
    block_m: gl.constexpr = q_desc.block_type.shape[2]
    block_n: gl.constexpr = k_desc.block_type.shape[2]
    dim: gl.constexpr = q_desc.block_type.shape[3]
    first_row = gl.program_id(0) * block_m
    batch = gl.program_id(1) // heads
    head = gl.program_id(1) % heads
    p_layout: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
    q_tile = gl.allocate_shared_memory(gl.bfloat16, q_desc.block_type.shape, q_desc.layout)
    k_tiles = gl.allocate_shared_memory(gl.bfloat16, [STAGES, 1, 1, block_n, dim], k_desc.layout)
    v_tiles = gl.allocate_shared_memory(gl.bfloat16, [STAGES, 1, 1, block_n, dim], v_desc.layout)
    p_tile = gl.allocate_shared_memory(gl.bfloat16, [block_m, block_n], p_layout)
    s = allocate_tensor_memory(gl.float32, [block_m, block_n], TensorMemoryLayout([block_m, block_n], col_stride=1))
    o = allocate_tensor_memory(gl.float32, [block_m, dim], TensorMemoryLayout([block_m, dim], col_stride=1))
    single = gl.allocate_shared_memory(gl.int64, [4, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(4):
        mbarrier.init(single.index(i), count=1)
    q_ready, s_ready, p_ready, o_ready = single.index(0), single.index(1), single.index(2), single.index(3)
    k_ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    k_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(k_ready.index(stage), count=1)
        mbarrier.init(v_ready.index(stage), count=1)
        mbarrier.init(k_free.index(stage), count=1)
        mbarrier.init(v_free.index(stage), count=1)
    mbarrier.expect(q_ready, q_desc.block_type.nbytes)
    load(q_desc, [batch, head, first_row, 0], q_ready, q_tile)
    last = kv_len
    if CAUSAL:
        last = gl.minimum(kv_len, first_row + block_m + kv_len - q_len)
    tiles = gl.cdiv(last, block_n)
    out_head = out + batch.to(gl.int64) * batch_stride + head.to(gl.int64) * head_stride
    lse_head = lse + gl.program_id(1).to(gl.int64) * q_len
    gl.warp_specialize(
        [
            (attend, (
                p_tile, s, o, s_ready, p_ready, o_ready, out_head, lse_head, row_stride, first_row, q_len, kv_len,
                tiles, scale, CAUSAL,
            )),
            (multiply, (
                q_tile, k_tiles, v_tiles, p_tile, s, o, q_ready, k_ready, v_ready, k_free, v_free, s_ready, p_ready,
                o_ready, tiles,
            )),
            (load_keys_and_values, (
                k_desc, v_desc, k_tiles, v_tiles, k_ready, v_ready, k_free, v_free, batch, head // group, tiles,
            )),
        ],
        [1, 1],
        [24, 24],
    )


def attention(q, k, v, out, lse, *, causal: bool, scale: float) -> None:
    batch, heads, q_len, dim = q.shape
    kv_heads, kv_len = k.shape[1], k.shape[2]
    block_m, block_n = 128, 128

    def descriptor(tensor: torch.Tensor, rows: int) -> TensorDescriptor:
        block = [1, 1, rows, dim]
        layout = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=4)
        return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), block, layout)

    attention_kernel[(triton.cdiv(q_len, block_m), batch * heads)](
        descriptor(q, block_m), descriptor(k, block_n), descriptor(v, block_n), out, lse, *out.stride()[:3], heads,
        heads // kv_heads, q_len, kv_len, scale * 1.4426950408889634, CAUSAL=causal, STAGES=2, num_warps=4,
    )
