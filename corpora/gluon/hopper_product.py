# A product by TMA and wgmma, one tile a program.
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma, warpgroup_mma, warpgroup_mma_wait
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

load = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared  # its name in triton 3.6


@gluon.jit
def product(a_desc, b_desc, c, steps, num_warps: gl.constexpr):
    m: gl.constexpr = a_desc.block_type.shape[0]
    k: gl.constexpr = b_desc.block_type.shape[0]
    n: gl.constexpr = b_desc.block_type.shape[1]
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [num_warps, 1], [16, n, 16])
    a = gl.allocate_shared_memory(gl.bfloat16, [m, k], a_desc.layout)
    b = gl.allocate_shared_memory(gl.bfloat16, [k, n], b_desc.layout)
    ready = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    mbarrier.init(ready, count=1)
    acc = gl.zeros([m, n], gl.float32, layout)
    for step in range(steps):
        mbarrier.expect(ready, a_desc.block_type.nbytes + b_desc.block_type.nbytes)
        load(a_desc, [gl.program_id(0) * m, step * k], ready, a)
        load(b_desc, [step * k, 0], ready, b)
        mbarrier.wait(ready, step & 1)
        acc = warpgroup_mma_wait(0, deps=(warpgroup_mma(a, b, acc, is_async=True),))
    rows = gl.program_id(0) * m + gl.arange(0, m, gl.SliceLayout(1, layout))
    columns = gl.arange(0, n, gl.SliceLayout(0, layout))
    gl.store(c + rows[:, None] * n + columns[None, :], acc.to(gl.bfloat16))


def attention(q, k, v, out, lse, *, causal, scale):
    layout = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
    a, b = (TensorDescriptor.from_tensor(x.view(512, 64), [64, 64], layout) for x in (q, k))
    product[(8,)](a, b, out, 1 + q.shape[2] // 128, num_warps=4)
