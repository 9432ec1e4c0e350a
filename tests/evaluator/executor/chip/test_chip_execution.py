"""Kernels in Gluon compute what they say, on shared and tensor memory, in partitions that wait for each other."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.blackwell import (
    TensorMemoryLayout,
    add2,
    allocate_tensor_memory,
    fma2,
    mul2,
    sub2,
    tcgen05_commit,
    tcgen05_copy,
    tcgen05_mma,
)
from triton.experimental.gluon.language.nvidia.blackwell import tma as blackwell_tma
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, tma
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from avo.agents.moves import MOVES
from avo.evaluator.executor import UnsupportedOperation
from avo.evaluator.offline import offline
from avo.evaluator.targets import get_target
from avo.evaluator.work import ALL_ROLES
from avo.seeds import seed_source
from tests.corpus import sample

ORACLE = "torch"

ROOT = Path(__file__).parents[4]
PLAIN = gl.SwizzledSharedLayout(1, 1, 1, [1, 0])
TILE = gl.NVMMASharedLayout(swizzle_byte_width=32, element_bitwidth=16, rank=2)


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool, scale: float) -> torch.Tensor:
    k, v = (each.repeat_interleave(q.shape[1] // each.shape[1], 1).double() for each in (k, v))
    scores = q.double() @ k.transpose(2, 3) * scale
    if causal:
        visible = torch.ones(scores.shape[2:], dtype=torch.bool).tril(k.shape[2] - q.shape[2])
        scores = scores.masked_fill(~visible, -torch.inf)
    return scores.softmax(-1) @ v


@pytest.mark.parametrize(("seed", "target"), sample([("hopper", "h100"), ("blackwell", "b200")], 2))
@pytest.mark.parametrize(("rows", "columns", "causal"), sample([(300, 300, True), (129, 300, False)], 2))
def test_the_seeds_attend(seed: str, target: str, rows: int, columns: int, causal: bool) -> None:
    torch.manual_seed(0)
    q, k, v = (
        torch.randn(1, heads, length, 128).bfloat16() for heads, length in ((2, rows), (1, columns), (1, columns))
    )
    out, lse = torch.empty_like(q), torch.empty(q.shape[:3])
    with offline(target=target) as session:
        module(ROOT / "seeds/mha" / f"{seed}.py").attention(q, k, v, out, lse, causal=causal, scale=0.1)
    assert not session.report().faults
    assert torch.allclose(out.double(), attention(q, k, v, causal, 0.1), atol=0.02)


@pytest.mark.parametrize(("name", "target"), [("hopper_product", "h100"), ("blackwell_product", "b200")])
def test_products_of_tiles_that_tma_brings_add_up(name: str, target: str) -> None:
    torch.manual_seed(0)
    q, k = (torch.randn(1, 2, 256, 64).bfloat16() for _ in "qk")
    out = torch.empty(512, 64, dtype=torch.bfloat16)
    with offline(target=target) as session:
        module(ROOT / "corpora/gluon" / f"{name}.py").attention(q, k, None, out, None, causal=False, scale=1.0)
    a, b = q.view(512, 64).double(), k.view(512, 64).double()
    a = torch.stack([a, torch.zeros_like(a), torch.zeros_like(a)])  # columns beyond the tensor are zero
    assert session.report().clean
    assert torch.allclose(out.double(), a[0] @ b[:64], atol=0.1)


@gluon.jit
def views(x, y, z):
    layout: gl.constexpr = gl.BlockedLayout([1, 4], [8, 4], [4, 1], [1, 0])
    rows, columns = gl.arange(0, 32, gl.SliceLayout(1, layout)), gl.arange(0, 16, gl.SliceLayout(0, layout))
    tiles = gl.allocate_shared_memory(gl.float32, [3, 32, 16], gl.SwizzledSharedLayout(1, 1, 1, [1, 0]))
    program = gl.program_id(0)
    tiles.index(program).store(gl.load(x + rows[:, None] * 16 + columns[None, :]) + program)
    turned: gl.constexpr = gl.BlockedLayout([1, 4], [4, 8], [4, 1], [1, 0])
    i, j = gl.arange(0, 16, gl.SliceLayout(1, turned)), gl.arange(0, 32, gl.SliceLayout(0, turned))
    gl.store(y + program * 512 + i[:, None] * 32 + j[None, :], tiles.index(program).permute((1, 0)).load(turned))
    part = tiles.index(program).slice(16, 16, dim=0)
    k = gl.arange(0, 16, gl.SliceLayout(1, layout))
    gl.store(z + program * 256 + k[:, None] * 16 + columns[None, :], part.load(layout))


def test_views_of_a_buffer_have_its_elements() -> None:
    x, y, z = torch.randn(32, 16), torch.empty(3, 16, 32), torch.empty(3, 16, 16)
    with offline() as session:
        views[(3,)](x, y, z, num_warps=4)
    assert session.report().clean
    for program in range(3):
        assert torch.equal(y[program], (x + program).T)
        assert torch.equal(z[program], x[16:] + program)


@gluon.jit
def gathered(x, index, y, z):
    layout: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])
    i = gl.arange(0, 128, layout)
    held = gl.allocate_shared_memory(gl.float32, [128], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    held.store(gl.load(x + i))
    places = gl.load(index + i)
    gl.store(y + i, held.gather(places, axis=0))
    held.scatter(gl.load(x + i), places, axis=0)
    gl.store(z + i, held.load(layout))


def test_elements_are_gathered_and_scattered_by_index() -> None:
    x, y, z = torch.randn(128), torch.empty(128), torch.empty(128)
    index = torch.randperm(128).int()
    with offline() as session:
        gathered[(1,)](x, index, y, z, num_warps=4)
    assert session.report().clean
    assert torch.equal(y, x[index.long()])
    assert torch.equal(z[index.long()], x)


@gluon.jit
def pipelined(x, y, n):
    layout: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])
    i = gl.arange(0, 128, layout)
    stages = gl.allocate_shared_memory(gl.float32, [2, 128], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    async_copy.async_load(stages.index(0), x + i, mask=i < n)
    async_copy.commit_group()
    total = gl.zeros([128], gl.float32, layout)
    for step in range(3):
        async_copy.async_load(stages.index((step + 1) % 2), x + (step + 1) * 128 + i, mask=(step + 1) * 128 + i < n)
        async_copy.commit_group()
        async_copy.wait_group(1)
        total += stages.index(step % 2).load(layout)
    async_copy.wait_group(0)
    total += stages.index(1).load(layout)
    gl.store(y + i, total)


def test_copies_in_groups_are_there_after_their_wait() -> None:
    x, y = torch.randn(512), torch.empty(128)
    with offline(target="a100") as session:
        pipelined[(1,)](x, y, 500, num_warps=4)
    x[500:] = 0
    assert session.report().clean
    assert torch.allclose(y, x.view(4, 128).sum(0))


@gluon.jit
def carried(x_desc, y_desc):
    held = gl.allocate_shared_memory(gl.float16, x_desc.block_type.shape, x_desc.layout)
    ready = mbarrier.allocate_mbarrier()
    mbarrier.init(ready, count=1)
    row = gl.program_id(0) * x_desc.block_type.shape[0]
    mbarrier.expect(ready, x_desc.block_type.nbytes)
    tma.async_load(x_desc, [row, 8], ready, held)
    mbarrier.wait(ready, 0)
    layout: gl.constexpr = gl.BlockedLayout([1, 4], [8, 4], [4, 1], [1, 0])
    held.store(held.load(layout) + 1.0)
    fence_async_shared()
    tma.async_store(y_desc, [row, 0], held)
    tma.store_wait(0)
    mbarrier.invalidate(ready)


def test_tma_copies_tiles_in_and_out_and_leaves_out_what_is_outside() -> None:
    x, y = torch.randn(40, 16).half(), torch.zeros(40, 16).half()
    a, b = (TensorDescriptor.from_tensor(each, [16, 16], TILE) for each in (x, y))
    with offline() as session:
        carried[(3,)](a, b, num_warps=4)
    assert session.report().clean
    assert torch.equal(y[:, :8], x[:, 8:] + 1)
    assert bool((y[:, 8:] == 1).all())


@gluon.jit
def added(y_desc):
    layout: gl.constexpr = gl.BlockedLayout([1, 4], [8, 4], [4, 1], [1, 0])
    ones = gl.full([16, 16], 1.0, gl.float16, layout)
    held = gl.allocate_shared_memory(gl.float16, [16, 16], y_desc.layout, ones)
    fence_async_shared()
    tma.async_atomic_add(y_desc, [0, 8], held)
    tma.store_wait(0)


def test_tma_adds_what_all_programs_send() -> None:
    y = torch.zeros(16, 16).half()
    with offline() as session:
        added[(5,)](TensorDescriptor.from_tensor(y, [16, 16], TILE), num_warps=4)
    assert session.report().clean
    assert y.sum(0).tolist() == [0.0] * 8 + [5.0 * 16] * 8


@gluon.jit
def rows_carried(x_desc, y_desc, index):
    rows: gl.constexpr = gl.SliceLayout(0, gl.BlockedLayout([1, 4], [32, 1], [1, 4], [1, 0]))
    held = gl.allocate_shared_memory(gl.float16, [32, 16], x_desc.layout)
    ready = mbarrier.allocate_mbarrier()
    mbarrier.init(ready, count=1)
    places = gl.load(index + gl.arange(0, 32, rows))
    mbarrier.expect(ready, 32 * 16 * 2)
    blackwell_tma.async_gather(x_desc, places, 0, ready, held)
    mbarrier.wait(ready, 0)
    blackwell_tma.async_scatter(y_desc, places, 0, held)
    tma.store_wait(0)


def test_tma_gathers_and_scatters_rows() -> None:
    x, y = torch.randn(64, 16).half(), torch.zeros(64, 16).half()
    index = torch.randperm(64)[:32].int()
    a, b = (TensorDescriptor.from_tensor(each, [1, 16], TILE) for each in (x, y))
    with offline(target="b200") as session:
        rows_carried[(1,)](a, b, index, num_warps=4)
    assert session.report().clean
    assert torch.equal(y[index.long()], x[index.long()])
    assert int((y != 0).any(1).sum()) == 32


@gluon.jit
def through_tensor_memory(x, y):
    layout: gl.constexpr = gl.BlockedLayout([1, 32], [32, 1], [4, 1], [0, 1])
    rows, columns = gl.arange(0, 128, gl.SliceLayout(1, layout)), gl.arange(0, 32, gl.SliceLayout(0, layout))
    places = rows[:, None] * 32 + columns[None, :]
    whole = allocate_tensor_memory(gl.float32, [128, 64], TensorMemoryLayout([128, 64], col_stride=1))
    whole.slice(0, 32).store(gl.load(x + places))
    whole.slice(32, 32).store(gl.load(x + places) * 2)
    gl.store(y + places, whole.slice(32, 32).load(layout) - whole.slice(0, 32).load(layout))


def test_tensor_memory_is_written_and_read_in_slices() -> None:
    x, y = torch.randn(128, 32), torch.empty(128, 32)
    with offline(target="b200") as session:
        through_tensor_memory[(1,)](x, y, num_warps=4)
    assert session.report().clean
    assert torch.equal(y, x)


@gluon.jit
def barriers_in_a_slice(y):
    bars = mbarrier.allocate_mbarrier(batch=4)
    for i in gl.static_range(4):
        mbarrier.init(bars.index(i), count=1)
    mbarrier.arrive(bars.slice(2, 2).index(1), count=1)
    mbarrier.wait(bars.index(3), 0)
    gl.store(y, 1)


@gluon.jit
def slices_that_differ(x, y):
    layout: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])
    flat: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    i = gl.arange(0, 128, layout)
    first = gl.allocate_shared_memory(gl.float32, [256], flat)
    first.store(gl.load(x + gl.arange(0, 256, layout)))
    here, there = first.slice(0, 128), first.slice(128, 128)
    for _ in range(gl.program_id(0)):
        here, there = there, here
    gl.store(y + gl.program_id(0) * 128 + i, here.load(layout))


def test_a_slice_of_barriers_counts_from_where_it_starts() -> None:
    y = torch.zeros(1, dtype=torch.int32)
    with offline() as session:
        barriers_in_a_slice[(1,)](y, num_warps=4)
    assert session.report().clean
    assert int(y) == 1


def test_programs_meet_again_with_slices_that_start_elsewhere() -> None:
    x, y = torch.randn(2, 128), torch.empty(3, 128)
    with offline() as session:
        slices_that_differ[(3,)](x, y, num_warps=4)
    assert not session.report().faults
    assert torch.equal(y, x[[0, 1, 0]])


@gluon.jit
def buffers_that_differ(x, y):
    layout: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])
    flat: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    i = gl.arange(0, 128, layout)
    held = gl.allocate_shared_memory(gl.float32, [128], flat, gl.load(x + i))
    if gl.program_id(0) == 1:
        held = gl.allocate_shared_memory(gl.float32, [128], flat, gl.load(x + 128 + i))
    gl.store(y + gl.program_id(0) * 128 + i, held.load(layout))


def test_programs_that_meet_again_with_different_buffers_are_not_executed() -> None:
    x, y = torch.randn(2, 128), torch.empty(3, 128)
    message = "scf.if after which programs that meet again have different on-chip buffers at test_chip_execution.py:"
    with offline(), pytest.raises(UnsupportedOperation, match=message):
        buffers_that_differ[(3,)](x, y, num_warps=4)


@gluon.jit
def count_up(ready, free, held, steps, layout: gl.constexpr):
    for step in range(steps):
        mbarrier.wait(free, (step & 1) ^ 1)
        held.store(gl.full([128], 0, gl.int32, layout) + step)
        mbarrier.arrive(ready)


@gluon.jit
def add_up(ready, free, held, y, steps, odd, layout: gl.constexpr):
    total = gl.zeros([128], gl.int32, layout)
    if odd:
        for step in range(steps):
            mbarrier.wait(ready, step & 1)
            total += held.load(layout)
            mbarrier.arrive(free)
    else:
        for step in range(steps):
            mbarrier.wait(ready, step & 1)
            total -= held.load(layout)
            mbarrier.arrive(free)
    gl.store(y + gl.program_id(0) * 128 + gl.arange(0, 128, layout), total)


@gluon.jit
def handed_over(y):
    layout: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])
    held = gl.allocate_shared_memory(gl.int32, [128], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    ready, free = mbarrier.allocate_mbarrier(), mbarrier.allocate_mbarrier()
    mbarrier.init(ready, count=1)
    mbarrier.init(free, count=1)
    steps = gl.program_id(0) + 1
    gl.warp_specialize(
        [
            (add_up, (ready, free, held, y, steps, gl.program_id(0) % 2 == 1, layout)),
            (count_up, (ready, free, held, steps, layout)),
        ],
        [4],
        [24],
    )


def test_partitions_of_programs_that_go_different_ways_wait_for_each_other() -> None:
    y = torch.empty(4, 128, dtype=torch.int32)
    with offline() as session:
        handed_over[(4,)](y, num_warps=4)
    assert session.report().clean
    assert y[:, 0].tolist() == [0, 1, -3, 6]


@gluon.jit
def copied_by_the_tensor_core(x, y):
    layout: gl.constexpr = gl.BlockedLayout([1, 32], [32, 1], [4, 1], [0, 1])
    rows, columns = gl.arange(0, 128, gl.SliceLayout(1, layout)), gl.arange(0, 32, gl.SliceLayout(0, layout))
    places = rows[:, None] * 32 + columns[None, :]
    held = gl.allocate_shared_memory(gl.float32, [128, 32], gl.NVMMASharedLayout(128, 32, rank=2))
    held.store(gl.load(x + places))
    fence_async_shared()
    target = allocate_tensor_memory(gl.float32, [128, 32], TensorMemoryLayout([128, 32], col_stride=1))
    done = mbarrier.allocate_mbarrier()
    mbarrier.init(done, count=1)
    tcgen05_copy(held, target)
    tcgen05_commit(done)
    mbarrier.wait(done, 0)
    gl.store(y + places, target.load(layout))


def test_the_tensor_core_copies_shared_into_tensor_memory() -> None:
    x, y = torch.randn(128, 32), torch.empty(128, 32)
    with offline(target="b200") as session:
        copied_by_the_tensor_core[(1,)](x, y, num_warps=4)
    assert session.report().clean
    assert torch.equal(y, x)


@gluon.jit
def product_of_bytes(y):
    tile: gl.constexpr = gl.NVMMASharedLayout(128, 8, rank=2)
    spread: gl.constexpr = gl.BlockedLayout([1, 16], [8, 4], [4, 1], [1, 0])
    twos = gl.allocate_shared_memory(gl.int8, [128, 128], tile, gl.full([128, 128], 2, gl.int8, spread))
    acc = allocate_tensor_memory(gl.int32, [128, 128], TensorMemoryLayout([128, 128], col_stride=1))
    done = mbarrier.allocate_mbarrier()
    mbarrier.init(done, count=1)
    fence_async_shared()
    tcgen05_mma(twos, twos, acc, use_acc=False, multicast=True)  # of one CTA to itself
    tcgen05_commit(done, descs=[twos, twos])
    mbarrier.wait(done, 0)
    layout: gl.constexpr = gl.BlockedLayout([1, 128], [32, 1], [4, 1], [0, 1])
    rows, columns = gl.arange(0, 128, gl.SliceLayout(1, layout)), gl.arange(0, 128, gl.SliceLayout(0, layout))
    gl.store(y + rows[:, None] * 128 + columns[None, :], acc.load(layout))


def test_a_product_of_integers_that_begins_at_zero_is_one_of_integers() -> None:
    y = torch.empty(128, 128, dtype=torch.int32)
    with offline(target="b200") as session:
        product_of_bytes[(1,)](y, num_warps=4)
    assert session.report().clean
    assert y.unique().tolist() == [4 * 128]


@gluon.jit
def product_of_one_program(desc, y):
    first = gl.program_id(0) == 0
    tile = gl.allocate_shared_memory(gl.float16, [128, 128], desc.layout)
    acc = allocate_tensor_memory(gl.float32, [128, 128], TensorMemoryLayout([128, 128], col_stride=1))
    ready, done = mbarrier.allocate_mbarrier(), mbarrier.allocate_mbarrier()
    mbarrier.init(ready, count=1)
    mbarrier.init(done, count=1)
    mbarrier.expect(ready, desc.block_type.nbytes)
    tma.async_load(desc, [0, 0], ready, tile)
    mbarrier.wait(ready, 0, pred=first)
    tcgen05_mma(tile, tile, acc, use_acc=False, pred=first)
    tcgen05_commit(done)
    mbarrier.wait(done, 0)
    layout: gl.constexpr = gl.BlockedLayout([1, 128], [32, 1], [4, 1], [0, 1])
    rows, columns = gl.arange(0, 128, gl.SliceLayout(1, layout)), gl.arange(0, 128, gl.SliceLayout(0, layout))
    if first:
        gl.store(y + rows[:, None] * 128 + columns[None, :], acc.load(layout))
    mbarrier.wait(ready, 0)


def test_a_product_reads_nothing_in_programs_that_leave_it_out() -> None:
    x, y = torch.randn(128, 128).half(), torch.empty(128, 128)
    tile = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
    with offline(target="b200") as session:
        product_of_one_program[(2,)](TensorDescriptor.from_tensor(x, [128, 128], tile), y, num_warps=4)
    assert session.report().clean
    assert torch.allclose(y, x.float() @ x.float(), atol=1e-3)
    counted = session.launches[0].counted
    assert counted is not None
    assert counted.outside.dot_flops == 2 * 128**3 / 2


@gluon.jit
def unwritten(y, KIND: gl.constexpr, HOW: gl.constexpr):
    layout: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])
    found = gl.allocate_shared_memory(KIND, [128], gl.SwizzledSharedLayout(1, 1, 1, [0])).load(layout)
    if HOW == "max":
        found = gl.maximum(found, 0)
    elif HOW == "min":
        found = gl.minimum(found, 0)
    else:
        found = found * 0
    gl.store(y + gl.arange(0, 128, layout), found)


@pytest.mark.parametrize(
    ("how", "kind", "dtype"),
    [
        ("max", gl.float32, torch.float32),
        ("min", gl.bfloat16, torch.bfloat16),
        ("scaled", gl.float16, torch.float16),
        ("max", gl.int32, torch.int32),
        ("min", gl.int32, torch.int32),
    ],
)
def test_what_nobody_has_written_passes_for_no_result(how: str, kind: object, dtype: torch.dtype) -> None:
    y = torch.empty(128, dtype=dtype)
    with offline() as session:
        unwritten[(1,)](y, kind, how, num_warps=4)
    assert [note.kind for note in session.report().notes] == ["read of uninitialised memory"]
    assert not y.eq(0).all()


def test_partitions_are_counted_side_by_side() -> None:
    q, k, v, out = (torch.randn(1, 2, 512, 128).bfloat16() for _ in range(4))
    with offline() as session:
        hopper = module(ROOT / "corpora/gluon/hopper_attention.py")
        hopper.attention(q, k, v, out, torch.empty(1, 2, 512), causal=True, scale=0.1)
    counted = session.launches[0].counted
    assert counted is not None
    assert [trips.tolist() for trips in counted.trips] == [[1, 2, 3, 4] * 2] * 2
    assert counted.roles == (0, 1)
    (loop,) = counted.of(session.launches[0].binary, 8).loops
    assert loop.body.dot_flops == 2 * 2 * 128**3
    assert loop.body.load_bytes == 2 * 2 * 128**2
    assert loop.body.shared_bytes == 3 * 2 * 128**2  # queries, keys and values; weights are in registers


@gluon.jit
def barriers_of_each_pass(y):
    outer = mbarrier.allocate_mbarrier()
    mbarrier.init(outer, count=2)
    for _ in range(3):
        inner = mbarrier.allocate_mbarrier()
        mbarrier.init(inner, count=1)
        mbarrier.arrive(inner)
        mbarrier.wait(inner, 0)
        mbarrier.invalidate(inner)
    mbarrier.arrive(outer, count=2)
    mbarrier.wait(outer, 0)
    gl.store(y, 1)


def test_barriers_that_are_allocated_in_a_loop_are_no_others() -> None:
    y = torch.zeros(1, dtype=torch.int32)
    with offline() as session:
        barriers_of_each_pass[(1,)](y, num_warps=4)
    assert session.report().clean
    assert y.tolist() == [1]


@gluon.jit
def in_pairs(x, y):
    layout: gl.constexpr = gl.BlockedLayout([2], [32], [4], [0])
    i = gl.arange(0, 256, layout)
    value = gl.load(x + i)
    gl.store(y + i, sub2(fma2(value, value, add2(value, 1.0)), mul2(value, 0.5)))


def test_arithmetic_in_pairs_is_that_of_elements() -> None:
    x, y = torch.randn(256), torch.empty(256)
    with offline(target="b200") as session:
        in_pairs[(1,)](x, y, num_warps=4)
    assert session.report().clean
    assert torch.allclose(y, x * x + x + 1 - x / 2, atol=1e-6)


@pytest.mark.long
def test_the_loop_in_which_partitions_are_started_is_that_of_all_of_them(tmp_path: Path) -> None:
    persistent = next(move for move in MOVES if move.name == "gluon-persistent")
    (variant,) = persistent.variants(seed_source("mha", "hopper"), get_target("h100"))
    path = tmp_path / "persistent.py"
    path.write_text(variant.source, encoding="utf-8")
    q, k, v, out = (torch.empty(1, 2, 512, 128, dtype=torch.bfloat16) for _ in range(4))
    with offline(execute=False) as session:
        module(path).attention(q, k, v, out, torch.empty(1, 2, 512), causal=True, scale=0.1)
    counted = session.launches[0].counted
    assert counted is not None
    assert counted.roles == (ALL_ROLES, 0, 0, 1, 1, 2)
    assert counted.parents == (None, 0, 0, 0, 0, 0)
