# A product by TMA and tcgen05, one tile a program, accumulated in tensor memory.
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.blackwell import (
    TensorMemoryLayout, allocate_tensor_memory, mbarrier, tcgen05_commit, tcgen05_mma, tma,
)
from triton.experimental.gluon.nvidia.blackwell import TensorDescriptor

load = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared  # its name in triton 3.6


@gluon.jit
def product(a_desc, b_desc, c, steps):
    m: gl.constexpr = a_desc.block_type.shape[0]
    k: gl.constexpr = b_desc.block_type.shape[0]
    n: gl.constexpr = b_desc.block_type.shape[1]
    a = gl.allocate_shared_memory(gl.bfloat16, [m, k], a_desc.layout)
    b = gl.allocate_shared_memory(gl.bfloat16, [k, n], b_desc.layout)
    ready = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    done = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    mbarrier.init(ready, count=1)
    mbarrier.init(done, count=1)
    acc = allocate_tensor_memory(gl.float32, [m, n], TensorMemoryLayout([m, n], col_stride=1))
    for step in range(steps):
        mbarrier.expect(ready, a_desc.block_type.nbytes + b_desc.block_type.nbytes)
        load(a_desc, [gl.program_id(0) * m, step * k], ready, a)
        load(b_desc, [step * k, 0], ready, b)
        mbarrier.wait(ready, step & 1)
        tcgen05_mma(a, b, acc, use_acc=step > 0)
        tcgen05_commit(done)
        mbarrier.wait(done, step & 1)
    layout: gl.constexpr = gl.BlockedLayout([1, n], [32, 1], [4, 1], [0, 1])
    rows = gl.program_id(0) * m + gl.arange(0, m, gl.SliceLayout(1, layout))
    columns = gl.arange(0, n, gl.SliceLayout(0, layout))
    gl.store(c + rows[:, None] * n + columns[None, :], acc.load(layout).to(gl.bfloat16))


def attention(q, k, v, out, lse, *, causal, scale):
    layout = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
    a = TensorDescriptor.from_tensor(q.view(512, 64), [128, 64], layout)
    b = TensorDescriptor.from_tensor(k.view(512, 64), [64, 64], layout)
    product[(4,)](a, b, out, 1 + q.shape[2] // 128, num_warps=4)
