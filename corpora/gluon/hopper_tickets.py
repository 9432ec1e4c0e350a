"""Flash attention forward for Hopper in Gluon, as FlashAttention-3 schedules it: the warp that loads draws tiles from a
counter and hands their numbers to the warps that multiply, through shared memory.

For head dim 128, any lengths, and strides that TMA takes. It is for Hopper.
"""

import torch
import triton
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma, warpgroup_mma
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

load = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared  # its name in triton 3.6


@gluon.jit
def place(ticket, blocks, heads, q_len, kv_len, block_m: gl.constexpr, block_n: gl.constexpr, CAUSAL: gl.constexpr):
    first_row = ticket % blocks * block_m
    batch, head = ticket // blocks // heads, ticket // blocks % heads
    last = kv_len
    if CAUSAL:
        last = gl.minimum(kv_len, first_row + block_m + kv_len - q_len)
    return batch, head, first_row, gl.cdiv(last, block_n)


@gluon.jit
def draw_and_load(
    counter, tickets, blocks, heads, group, q_len, kv_len, q_desc, k_desc, v_desc, q_tile, k_tiles, v_tiles, q_ready,
    k_ready, v_ready, q_free, k_free, v_free, handed, told, taken, CAUSAL: gl.constexpr,
):
    stages: gl.constexpr = k_tiles.shape[0]
    block_m: gl.constexpr = q_tile.shape[2]
    block_n: gl.constexpr = k_tiles.shape[3]
    one: gl.constexpr = gl.BlockedLayout([1], [32], [1], [0])
    drawn, loads, goes_on = 0, 0, True
    while goes_on:
        ticket = gl.atomic_add(counter, 1)
        mbarrier.wait(taken, (drawn & 1) ^ 1)
        handed.store(gl.full([1], ticket, gl.int32, one))
        mbarrier.arrive(told, count=1)
        goes_on = ticket < tickets
        if goes_on:
            batch, head, first_row, tiles = place(ticket, blocks, heads, q_len, kv_len, block_m, block_n, CAUSAL)
            mbarrier.wait(q_free, (drawn & 1) ^ 1)
            mbarrier.expect(q_ready, q_desc.block_type.nbytes)
            load(q_desc, [batch, head, first_row, 0], q_ready, q_tile)
            for tile in range(tiles):
                stage = loads % stages
                phase = (loads // stages) & 1
                mbarrier.wait(k_free.index(stage), phase ^ 1)
                mbarrier.expect(k_ready.index(stage), k_desc.block_type.nbytes)
                load(k_desc, [batch, head // group, tile * block_n, 0], k_ready.index(stage), k_tiles.index(stage))
                mbarrier.wait(v_free.index(stage), phase ^ 1)
                mbarrier.expect(v_ready.index(stage), v_desc.block_type.nbytes)
                load(v_desc, [batch, head // group, tile * block_n, 0], v_ready.index(stage), v_tiles.index(stage))
                loads += 1
        drawn += 1


@gluon.jit
def take(handed, told, taken, turn, num_warps: gl.constexpr):
    one: gl.constexpr = gl.BlockedLayout([1], [32], [num_warps], [0])
    mbarrier.wait(told, turn & 1)
    ticket = gl.max(handed.load(one), 0)
    mbarrier.arrive(taken, count=1)
    return ticket


@gluon.jit
def attend(
    out, lse, batch_stride, head_stride, row_stride, tickets, blocks, heads, q_len, kv_len, q_tile, k_tiles, v_tiles,
    q_ready, k_ready, v_ready, q_free, k_free, v_free, handed, told, taken, scale, CAUSAL: gl.constexpr,
    num_warps: gl.constexpr,
):
    stages: gl.constexpr = k_tiles.shape[0]
    block_m: gl.constexpr = q_tile.shape[2]
    block_n: gl.constexpr = k_tiles.shape[3]
    dim: gl.constexpr = q_tile.shape[3]
    s_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [num_warps, 1], [16, block_n, 16])
    o_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [num_warps, 1], [16, dim, 16])
    p_layout: gl.constexpr = gl.DotOperandLayout(0, o_layout, 2)
    turn, loads = 0, 0
    ticket = take(handed, told, taken, turn, num_warps)
    while ticket < tickets:
        batch, head, first_row, tiles = place(ticket, blocks, heads, q_len, kv_len, block_m, block_n, CAUSAL)
        rows = first_row + gl.arange(0, block_m, gl.SliceLayout(1, s_layout))
        row_max = gl.full([block_m], float("-inf"), gl.float32, gl.SliceLayout(1, s_layout))
        row_sum = gl.full([block_m], 0.0, gl.float32, gl.SliceLayout(1, s_layout))
        acc = gl.zeros([block_m, dim], gl.float32, o_layout)
        mbarrier.wait(q_ready, turn & 1)
        q = q_tile.reshape([block_m, dim])
        for tile in range(tiles):
            stage = loads % stages
            phase = (loads // stages) & 1
            mbarrier.wait(k_ready.index(stage), phase)
            k = k_tiles.index(stage).reshape([block_n, dim]).permute((1, 0))
            s = warpgroup_mma(q, k, gl.zeros([block_m, block_n], gl.float32, s_layout), use_acc=False)
            mbarrier.arrive(k_free.index(stage), count=1)
            columns = tile * block_n + gl.arange(0, block_n, gl.SliceLayout(0, s_layout))
            visible = columns[None, :] < kv_len
            if CAUSAL:
                visible = visible & (columns[None, :] <= rows[:, None] + (kv_len - q_len))
            s = gl.where(visible, s * scale, float("-inf"))
            new_max = gl.maximum(row_max, gl.max(s, 1))
            rescale = gl.exp2(row_max - new_max)
            p = gl.exp2(s - new_max[:, None])
            row_sum = row_sum * rescale + gl.sum(p, 1)
            row_max = new_max
            acc = acc * gl.convert_layout(rescale, gl.SliceLayout(1, o_layout))[:, None]
            mbarrier.wait(v_ready.index(stage), phase)
            v = v_tiles.index(stage).reshape([block_n, dim])
            acc = warpgroup_mma(gl.convert_layout(p.to(gl.bfloat16), p_layout), v, acc)
            mbarrier.arrive(v_free.index(stage), count=1)
            loads += 1
        mbarrier.arrive(q_free, count=1)
        lse_rows = (batch * heads + head).to(gl.int64) * q_len + rows
        gl.store(lse + lse_rows, (row_max + gl.log2(row_sum)) * 0.6931471805599453, mask=rows < q_len)
        out_rows = first_row + gl.arange(0, block_m, gl.SliceLayout(1, o_layout))
        dims = gl.arange(0, dim, gl.SliceLayout(0, o_layout))
        acc = acc / gl.convert_layout(row_sum, gl.SliceLayout(1, o_layout))[:, None]
        out_head = out + batch.to(gl.int64) * batch_stride + head.to(gl.int64) * head_stride
        places = out_rows.to(gl.int64)[:, None] * row_stride + dims[None, :]
        gl.store(out_head + places, acc.to(gl.bfloat16), mask=out_rows[:, None] < q_len)
        turn += 1
        ticket = take(handed, told, taken, turn, num_warps)


@gluon.jit
def attention_kernel(
    counter, q_desc, k_desc, v_desc, out, lse, batch_stride, head_stride, row_stride, tickets, blocks, heads, group,
    q_len, kv_len, scale, CAUSAL: gl.constexpr, STAGES: gl.constexpr, num_warps: gl.constexpr,
):
    block_n: gl.constexpr = k_desc.block_type.shape[2]
    dim: gl.constexpr = q_desc.block_type.shape[3]
    q_tile = gl.allocate_shared_memory(gl.bfloat16, q_desc.block_type.shape, q_desc.layout)
    k_tiles = gl.allocate_shared_memory(gl.bfloat16, [STAGES, 1, 1, block_n, dim], k_desc.layout)
    v_tiles = gl.allocate_shared_memory(gl.bfloat16, [STAGES, 1, 1, block_n, dim], v_desc.layout)
    handed = gl.allocate_shared_memory(gl.int32, [1], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    q_ready = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    k_ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    q_free = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    k_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    told = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    taken = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    mbarrier.init(q_ready, count=1)
    mbarrier.init(q_free, count=1)
    mbarrier.init(told, count=1)
    mbarrier.init(taken, count=1)
    for stage in gl.static_range(STAGES):
        mbarrier.init(k_ready.index(stage), count=1)
        mbarrier.init(v_ready.index(stage), count=1)
        mbarrier.init(k_free.index(stage), count=1)
        mbarrier.init(v_free.index(stage), count=1)
    gl.warp_specialize(
        [
            (attend, (
                out, lse, batch_stride, head_stride, row_stride, tickets, blocks, heads, q_len, kv_len, q_tile,
                k_tiles, v_tiles, q_ready, k_ready, v_ready, q_free, k_free, v_free, handed, told, taken, scale,
                CAUSAL, num_warps,
            )),
            (draw_and_load, (
                counter, tickets, blocks, heads, group, q_len, kv_len, q_desc, k_desc, v_desc, q_tile, k_tiles,
                v_tiles, q_ready, k_ready, v_ready, q_free, k_free, v_free, handed, told, taken, CAUSAL,
            )),
        ],
        [1],
        [24],
    )


def attention(q, k, v, out, lse, *, causal: bool, scale: float) -> None:
    batch, heads, q_len, dim = q.shape
    kv_heads, kv_len = k.shape[1], k.shape[2]
    block_m, block_n = 128, 128
    blocks = triton.cdiv(q_len, block_m)
    tickets = blocks * batch * heads
    processors = torch.cuda.get_device_properties(q.device).multi_processor_count

    def descriptor(tensor: torch.Tensor, rows: int) -> TensorDescriptor:
        block = [1, 1, rows, dim]
        layout = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=4)
        return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), block, layout)

    attention_kernel[(min(processors, triton.cdiv(tickets, 2)),)](
        torch.zeros(1, dtype=torch.int32, device=q.device), descriptor(q, block_m), descriptor(k, block_n),
        descriptor(v, block_n), out, lse, *out.stride()[:3], tickets, blocks, heads, heads // kv_heads, q_len, kv_len,
        scale * 1.4426950408889634, CAUSAL=causal, STAGES=2, num_warps=8,
    )
