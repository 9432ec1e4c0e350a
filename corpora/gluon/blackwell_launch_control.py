"""Flash attention forward for Blackwell in Gluon under cluster launch control: a program that is done takes over the
rows of one that has not started.

One step after the other, without roles. For head dim 128, any lengths, and strides that TMA takes.
"""

import torch
import triton
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.blackwell import (
    TensorMemoryLayout, allocate_tensor_memory, clc, fence_async_shared, mbarrier, tcgen05_commit, tcgen05_mma, tma,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

load = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared  # its name in triton 3.6


@gluon.jit
def attention_kernel(
    q_desc, k_desc, v_desc, out, lse, batch_stride, head_stride, row_stride, heads, group, q_len, kv_len, scale,
    CAUSAL: gl.constexpr,
):
    block_m: gl.constexpr = q_desc.block_type.shape[2]
    block_n: gl.constexpr = k_desc.block_type.shape[2]
    dim: gl.constexpr = q_desc.block_type.shape[3]
    q_tile = gl.allocate_shared_memory(gl.bfloat16, q_desc.block_type.shape, q_desc.layout)
    k_tile = gl.allocate_shared_memory(gl.bfloat16, k_desc.block_type.shape, k_desc.layout)
    v_tile = gl.allocate_shared_memory(gl.bfloat16, v_desc.block_type.shape, v_desc.layout)
    p_layout: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
    p_tile = gl.allocate_shared_memory(gl.bfloat16, [block_m, block_n], p_layout)
    s = allocate_tensor_memory(gl.float32, [block_m, block_n], TensorMemoryLayout([block_m, block_n], col_stride=1))
    o = allocate_tensor_memory(gl.float32, [block_m, dim], TensorMemoryLayout([block_m, dim], col_stride=1))
    answer = gl.allocate_shared_memory(gl.int64, [2], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    loaded = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    multiplied = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    answered = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    mbarrier.init(loaded, count=1)
    mbarrier.init(multiplied, count=1)
    mbarrier.init(answered, count=1)
    layout: gl.constexpr = gl.BlockedLayout([1, block_n], [32, 1], [4, 1], [0, 1])
    o_layout: gl.constexpr = gl.BlockedLayout([1, dim], [32, 1], [4, 1], [0, 1])

    block, batch_head = gl.program_id(0), gl.program_id(1)
    goes_on = True
    loads, products, answers = 0, 0, 0
    while goes_on:
        mbarrier.expect(answered, 16)
        clc.try_cancel(answer, answered)
        first_row, batch, head = block * block_m, batch_head // heads, batch_head % heads
        last = kv_len
        if CAUSAL:
            last = gl.minimum(kv_len, first_row + block_m + kv_len - q_len)
        rows = first_row + gl.arange(0, block_m, gl.SliceLayout(1, layout))
        row_max = gl.full([block_m], float("-inf"), gl.float32, gl.SliceLayout(1, layout))
        row_sum = gl.full([block_m], 0.0, gl.float32, gl.SliceLayout(1, layout))
        mbarrier.expect(loaded, q_desc.block_type.nbytes)
        load(q_desc, [batch, head, first_row, 0], loaded, q_tile)
        mbarrier.wait(loaded, loads & 1)
        loads += 1
        for tile in range(gl.cdiv(last, block_n)):
            mbarrier.expect(loaded, k_desc.block_type.nbytes + v_desc.block_type.nbytes)
            load(k_desc, [batch, head // group, tile * block_n, 0], loaded, k_tile)
            load(v_desc, [batch, head // group, tile * block_n, 0], loaded, v_tile)
            mbarrier.wait(loaded, loads & 1)
            loads += 1
            q, k = q_tile.reshape([block_m, dim]), k_tile.reshape([block_n, dim])
            tcgen05_mma(q, k.permute((1, 0)), s, use_acc=False)
            tcgen05_commit(multiplied)
            mbarrier.wait(multiplied, products & 1)
            products += 1
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
            p_tile.store(p.to(gl.bfloat16))
            if tile > 0:
                o.store(o.load(o_layout) * gl.convert_layout(rescale, gl.SliceLayout(1, o_layout))[:, None])
            fence_async_shared()
            tcgen05_mma(p_tile, v_tile.reshape([block_n, dim]), o, use_acc=tile > 0)
            tcgen05_commit(multiplied)
            mbarrier.wait(multiplied, products & 1)
            products += 1
        gl.store(
            lse + batch_head.to(gl.int64) * q_len + rows,
            (row_max + gl.log2(row_sum)) * 0.6931471805599453,
            mask=rows < q_len,
        )
        out_rows = first_row + gl.arange(0, block_m, gl.SliceLayout(1, o_layout))
        dims = gl.arange(0, dim, gl.SliceLayout(0, o_layout))
        acc = o.load(o_layout) / gl.convert_layout(row_sum, gl.SliceLayout(1, o_layout))[:, None]
        out_head = out + batch.to(gl.int64) * batch_stride + head.to(gl.int64) * head_stride
        places = out_rows.to(gl.int64)[:, None] * row_stride + dims[None, :]
        gl.store(out_head + places, acc.to(gl.bfloat16), mask=out_rows[:, None] < q_len)
        mbarrier.wait(answered, answers & 1)
        answers += 1
        response = clc.load_result(answer)
        goes_on = response.is_canceled()
        block, batch_head = response.program_id(0), response.program_id(1)


def attention(q, k, v, out, lse, *, causal: bool, scale: float) -> None:
    batch, heads, q_len, dim = q.shape
    kv_heads, kv_len = k.shape[1], k.shape[2]
    block_m, block_n = 128, 64

    def descriptor(tensor: torch.Tensor, rows: int) -> TensorDescriptor:
        block = [1, 1, rows, dim]
        layout = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=4)
        return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), block, layout)

    attention_kernel[(triton.cdiv(q_len, block_m), batch * heads)](
        descriptor(q, block_m), descriptor(k, block_n), descriptor(v, block_n), out, lse, *out.stride()[:3], heads,
        heads // kv_heads, q_len, kv_len, scale * 1.4426950408889634, CAUSAL=causal, num_warps=4,
    )
