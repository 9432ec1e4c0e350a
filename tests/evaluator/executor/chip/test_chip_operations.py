"""Operations on the chip beyond copies and plain products: scaled ones, atomic ones, and cluster launch control."""

from typing import Literal

import pytest
import torch
from triton import language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.blackwell import (
    TensorMemoryLayout,
    TensorMemoryScalesLayout,
    allocate_tensor_memory,
    clc,
    tcgen05_commit,
    tcgen05_mma_scaled,
)
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, tma
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor, TensorDescriptorIm2Col

from avo.evaluator.executor import UnsupportedOperation
from avo.evaluator.executor.operations.dot_scaled import unpack_e2m1
from avo.evaluator.offline import OfflineError, offline

ORACLE = "torch; plain Python"


@gluon.jit
def scaled(
    a,
    b,
    a_scale,
    b_scale,
    out,
    A: gl.constexpr,
    B: gl.constexpr,
    K_A: gl.constexpr,
    K_B: gl.constexpr,
    GROUPS: gl.constexpr,
):
    spread: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0])
    rows = gl.arange(0, 128, gl.SliceLayout(1, spread))[:, None]
    of_a, of_b = gl.arange(0, K_A, gl.SliceLayout(0, spread)), gl.arange(0, K_B, gl.SliceLayout(0, spread))
    tile: gl.constexpr = gl.NVMMASharedLayout(128 if K_A == 128 else 64, 8, rank=2)
    tile_b: gl.constexpr = gl.NVMMASharedLayout(128 if K_B == 128 else 64, 8, rank=2)
    left = gl.allocate_shared_memory(a.dtype.element_ty, [128, K_A], tile, gl.load(a + rows * K_A + of_a[None, :]))
    right = gl.allocate_shared_memory(b.dtype.element_ty, [128, K_B], tile_b, gl.load(b + rows * K_B + of_b[None, :]))
    kind = a_scale.dtype.element_ty
    left_scale = allocate_tensor_memory(kind, [128, GROUPS], TensorMemoryScalesLayout())
    right_scale = allocate_tensor_memory(kind, [128, GROUPS], TensorMemoryScalesLayout())
    flat: gl.constexpr = left_scale.get_reg_layout()
    i, j = gl.arange(0, 128, gl.SliceLayout(1, flat))[:, None], gl.arange(0, GROUPS, gl.SliceLayout(0, flat))[None, :]
    left_scale.store(gl.load(a_scale + i * GROUPS + j))
    right_scale.store(gl.load(b_scale + i * GROUPS + j))
    acc = allocate_tensor_memory(gl.float32, [128, 128], TensorMemoryLayout([128, 128], col_stride=1))
    done = mbarrier.allocate_mbarrier()
    mbarrier.init(done, count=1)
    fence_async_shared()
    tcgen05_mma_scaled(left, right.permute((1, 0)), acc, left_scale, right_scale, A, B, use_acc=False)
    tcgen05_commit(done)
    mbarrier.wait(done, 0)
    layout: gl.constexpr = acc.get_reg_layout()
    m, n = gl.arange(0, 128, gl.SliceLayout(1, layout)), gl.arange(0, 128, gl.SliceLayout(0, layout))
    gl.store(out + m[:, None] * 128 + n[None, :], acc.load(layout))


@gluon.jit
def extremes(x, out, found, MAX: gl.constexpr, SIZES: gl.constexpr, NAN: gl.constexpr):
    tile = allocate_tensor_memory(gl.float32, [128, 64], TensorMemoryLayout([128, 64], col_stride=1))
    layout: gl.constexpr = tile.get_reg_layout()
    m, n = gl.arange(0, 128, gl.SliceLayout(1, layout)), gl.arange(0, 64, gl.SliceLayout(0, layout))
    at = m[:, None] * 64 + n[None, :]
    tile.store(gl.load(x + at))
    if MAX:
        loaded, extreme = tile.load_max(abs=SIZES, propagate_nan=NAN)
    else:
        loaded, extreme = tile.load_min(abs=SIZES, propagate_nan=NAN)
    gl.store(out + at, loaded)
    gl.store(found + m, gl.convert_layout(extreme, m.type.layout))


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("sizes", [True, False])
@pytest.mark.parametrize("kept", [True, False], ids=["with-nan", "without-nan"])
def test_a_load_from_tensor_memory_finds_the_extreme_of_each_row(largest: bool, sizes: bool, kept: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(128, 64)
    x[3, 5], x[4] = float("nan"), float("nan")
    out, found = torch.zeros(128, 64), torch.zeros(128)
    with offline(target="b300"):
        nan = tl.PropagateNan.ALL if kept else tl.PropagateNan.NONE
        extremes[(1,)](x, out, found, largest, sizes, nan)
    assert torch.equal(out.nan_to_num(9), x.nan_to_num(9))
    for row, here in zip(found.tolist(), (x.abs() if sizes else x).tolist(), strict=True):
        numbers = [value for value in here if value == value]
        if not numbers or (kept and len(numbers) < len(here)):
            assert row != row
        else:
            assert row == (max(numbers) if largest else min(numbers))


@gluon.jit(noinline=True)
def arrive(bar):
    mbarrier.arrive(bar, count=1)


@gluon.jit(noinline=True)
def stored(out, value):
    gl.store(out, value)


@gluon.jit
def calls(out, value):
    bar = mbarrier.allocate_mbarrier()
    mbarrier.init(bar, count=1)
    arrive(bar)
    mbarrier.wait(bar, 0)
    stored(out, value * 2)


@pytest.mark.parametrize("level", ["source", "compiled"])
def test_functions_that_are_called_take_barriers_pointers_and_numbers(level: Literal["source", "compiled"]) -> None:
    out = torch.zeros(4)
    with offline(level=level) as session:
        calls[(1,)](out, 1.5)
    assert session.report().clean
    assert out.tolist() == [3, 0, 0, 0]
    assert session.launches[0].ir.count("tt.func private") == 2


@gluon.jit
def fused_product(x, out):
    flat: gl.constexpr = gl.BlockedLayout([1, 4], [8, 4], [4, 1], [1, 0])
    i, j = gl.arange(0, 64, gl.SliceLayout(1, flat)), gl.arange(0, 64, gl.SliceLayout(0, flat))
    at = i[:, None] * 64 + j[None, :]
    held = gl.load(x + at)
    left = gl.convert_layout(held, gl.DotOperandLayout(0, flat, 0))
    right = gl.convert_layout(held, gl.DotOperandLayout(1, flat, 0))
    gl.store(out + at, gl.dot_fma(left, right, gl.zeros([64, 64], gl.float32, flat)))


@pytest.mark.parametrize("level", ["source", "compiled"])
def test_a_product_of_fmas_shortens_no_operand(level: Literal["source", "compiled"]) -> None:
    torch.manual_seed(0)
    x, out = torch.randn(64, 64), torch.zeros(64, 64)
    with offline(level=level) as session:
        fused_product[(1,)](x, out)
    assert "inputPrecision = tf32" in session.launches[0].ir
    torch.testing.assert_close(out.double(), x.double() @ x.double(), rtol=0, atol=1e-4)


def numbers(form: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an operand [128, K] as a kernel takes it, and its 128 columns as numbers."""
    if form == "e2m1":
        packed = torch.randint(0, 256, (128, 64), dtype=torch.uint8)
        return packed, unpack_e2m1(packed, 1).double()
    held = torch.randn(128, 128).to(torch.float8_e4m3fn if form == "e4m3" else torch.float8_e5m2)
    return held, held.double()


@pytest.mark.parametrize(("forms", "group"), [(("e4m3", "e5m2"), 32), (("e2m1", "e2m1"), 32), (("e2m1", "e2m1"), 16)])
def test_a_scaled_product_is_that_of_scaled_numbers(forms: tuple[str, str], group: int) -> None:
    torch.manual_seed(0)
    (a, left), (b, right) = map(numbers, forms)
    if group == 32:
        scales = [torch.randint(120, 134, (128, 4), dtype=torch.uint8) for _ in "ab"]
        factors = [torch.exp2(scale.double() - 127) for scale in scales]
    else:
        scales = [torch.rand(128, 8).to(torch.float8_e4m3fn) for _ in "ab"]
        factors = [scale.double() for scale in scales]
    out = torch.empty(128, 128)
    with offline(target="b200") as session:
        scaled[(1,)](a, b, *scales, out, *forms, a.shape[1], b.shape[1], 128 // group, num_warps=4)
    left, right = (x * f.repeat_interleave(group, 1) for x, f in zip((left, right), factors, strict=True))
    assert session.report().clean
    expected = left @ right.T
    assert bool(((out - expected).abs() <= 1e-6 * expected.abs().max()).all())


def test_the_work_of_a_scaled_product_is_counted() -> None:
    (a, _), (b, _) = numbers("e2m1"), numbers("e2m1")
    scales = [torch.full((128, 4), 127, dtype=torch.uint8) for _ in "ab"]
    with offline(target="b200") as session:
        scaled[(1,)](a, b, *scales, torch.empty(128, 128), "e2m1", "e2m1", 64, 64, 4, num_warps=4)
    counted_work = session.launches[0].counted
    assert counted_work is not None
    assert counted_work.outside.dot_flops == 2 * 128**3


@gluon.jit
def counted(index, values, held, before, KIND: gl.constexpr):
    layout: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])
    i = gl.arange(0, 128, layout)
    bins = gl.allocate_shared_memory(gl.int32, [128], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    bins.store(gl.full([128], 1, gl.int32, layout))
    at, value = gl.load(index + i), gl.load(values + i)
    if KIND == "add":
        gl.store(before + i, bins.atomic_scatter_add(value, at, axis=0, mask=i < 100))
    else:
        gl.store(before + i, bins.atomic_scatter_max(value, at, axis=0, mask=i < 100))
    gl.store(held + i, bins.load(layout))


@pytest.mark.parametrize("kind", ["add", "max"])
def test_elements_that_meet_in_shared_memory_are_all_counted(kind: str) -> None:
    torch.manual_seed(0)
    index, values = torch.randint(0, 8, (128,), dtype=torch.int32), torch.randint(0, 9, (128,), dtype=torch.int32)
    held, before = torch.empty(128, dtype=torch.int32), torch.empty(128, dtype=torch.int32)
    with offline() as session:
        counted[(1,)](index, values, held, before, kind, num_warps=4)
    assert session.report().clean
    for one in range(8):
        here = (index == one) & (torch.arange(128) < 100)
        found = sorted([*before[here].tolist(), int(held[one])])
        if kind == "add":
            assert int(held[one]) == 1 + int(values[here].sum())
            assert sum(found) - sum(before[here].tolist()) == int(held[one])
        else:
            assert int(held[one]) == max(1, int(values[here].max()))
        assert found[0] == 1
    assert bool((held[8:] == 1).all())


@gluon.jit
def taken_over(out, by):
    layout: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    answer = gl.allocate_shared_memory(gl.int64, [2], layout)
    ready = mbarrier.allocate_mbarrier()
    mbarrier.init(ready, count=1)
    own = gl.program_id(0) + 4 * gl.program_id(1)
    here, phase, goes_on = own, 0, True
    while goes_on:
        gl.atomic_add(out + here, 1)
        gl.store(by + here, own)
        mbarrier.expect(ready, 16)
        clc.try_cancel(answer, ready)
        mbarrier.wait(ready, phase)
        phase ^= 1
        response = clc.load_result(answer)
        goes_on = response.is_canceled()
        here = response.program_id(0) + 4 * response.program_id(1)


def test_each_program_runs_or_is_taken_over_once() -> None:
    out, by = torch.zeros(12, dtype=torch.int32), torch.empty(12, dtype=torch.int32)
    with offline(target="b200") as session:
        taken_over[(4, 3)](out, by, num_warps=4)
    assert not session.report().faults
    assert out.tolist() == [1] * 12
    assert by.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]
    execution = session.launches[0].execution
    assert execution is not None
    assert [list(trips) for trips in execution.trips] == [[2] * 6 + [0] * 6]
    assert execution.work is not None
    assert [list(trips) for trips in execution.work.trips] == [[1] * 12], "each does the work of its own"


@gluon.jit
def works_for_others(out):
    answer = gl.allocate_shared_memory(gl.int64, [2], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    ready = mbarrier.allocate_mbarrier()
    mbarrier.init(ready, count=1)
    mbarrier.expect(ready, 16)
    clc.try_cancel(answer, ready)
    mbarrier.wait(ready, 0)
    if clc.load_result(answer).is_canceled():
        gl.store(out, gl.exp2(gl.load(out)))


def test_what_is_done_only_by_those_who_take_over_is_counted() -> None:
    with offline(target="b200") as session:
        works_for_others[(4,)](torch.zeros(1), num_warps=4)
    execution = session.launches[0].execution
    assert execution is not None
    assert execution.work is not None
    assert execution.work.outside.exponentials > 0


def test_a_program_alone_takes_over_all_others() -> None:
    out, by = torch.zeros(12, dtype=torch.int32), torch.empty(12, dtype=torch.int32)
    with offline(target="b200", temporaries_bytes=0) as session:
        taken_over[(4, 3)](out, by, num_warps=4)
    assert not session.report().faults
    assert by.tolist() == [0] * 12


@gluon.jit
def take_over(answer, answered, number, told, taken):
    one: gl.constexpr = gl.BlockedLayout([1], [32], [1], [0])
    block, turn = gl.program_id(0), 0
    while block >= 0:
        mbarrier.wait(taken, (turn & 1) ^ 1)
        number.store(gl.full([1], block, gl.int32, one))
        mbarrier.arrive(told, count=1)
        mbarrier.expect(answered, 16)
        clc.try_cancel(answer, answered)
        mbarrier.wait(answered, turn & 1)
        response = clc.load_result(answer)
        block = gl.where(response.is_canceled(), response.program_id(0), -1)
        turn += 1
    mbarrier.wait(taken, (turn & 1) ^ 1)
    number.store(gl.full([1], block, gl.int32, one))
    mbarrier.arrive(told, count=1)


@gluon.jit
def square(y, number, told, taken, num_warps: gl.constexpr):
    one: gl.constexpr = gl.BlockedLayout([1], [32], [num_warps], [0])
    block, turn = 0, 0
    while block >= 0:
        mbarrier.wait(told, turn & 1)
        block = gl.max(number.load(one), 0)
        mbarrier.arrive(taken, count=1)
        for i in range(block):
            gl.store(y + block * gl.num_programs(0) + i, i.to(gl.float32))
        turn += 1


@gluon.jit
def squares(y, num_warps: gl.constexpr):
    answer = gl.allocate_shared_memory(gl.int64, [2], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    number = gl.allocate_shared_memory(gl.int32, [1], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    answered = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    told = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    taken = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    mbarrier.init(answered, count=1)
    mbarrier.init(told, count=1)
    mbarrier.init(taken, count=1)
    gl.warp_specialize(
        [(square, (y, number, told, taken, num_warps)), (take_over, (answer, answered, number, told, taken))], [1], [24]
    )


def test_work_that_a_program_takes_over_and_hands_on_is_executed_and_not_counted() -> None:
    with offline(target="b200") as session:
        y = torch.full((6, 6), -1.0, device="cuda")
        squares[(6,)](y, num_warps=4)
    assert torch.equal(y >= 0, torch.ones(6, 6).tril(-1).bool())
    told = "depends on shared memory, where programs take over the work of others"
    with pytest.raises(OfflineError, match=told):
        session.launches[0].predict()
    with offline(target="b200", execute=False), pytest.raises(UnsupportedOperation, match=told):
        squares[(6,)](torch.empty(6, 6, device="cuda"), num_warps=4)


@gluon.jit
def pixels(image, out_desc, N, H, W, C, DY: gl.constexpr, DX: gl.constexpr):
    tile = gl.allocate_shared_memory(gl.float32, [32, 32], image.layout)
    ready = mbarrier.allocate_mbarrier()
    mbarrier.init(ready, count=1)
    mbarrier.expect(ready, image.block_type.nbytes)
    tma.async_load_im2col(image, [N, H, W, C], [DY, DX], ready, tile)
    mbarrier.wait(ready, 0)
    tma.async_store(out_desc, [0, 0], tile)
    tma.store_wait(0)


@pytest.mark.parametrize(("step", "start"), [(1, (0, 0, 0)), (1, (1, 1, 2)), (2, (0, 2, 4))])
def test_tma_walks_over_the_pixels_of_images(step: int, start: tuple[int, int, int]) -> None:
    """A filter of 3 x 3 with a border of 1: from a place on, row by row and image by image, its tap (2, 0)."""
    x, out = torch.randn(3, 6, 7, 64), torch.empty(32, 32)
    layout = gl.NVMMASharedLayout(128, 32, rank=2)
    box = {"pixel_box_lower_corner": [-1, -1], "pixel_box_upper_corner": [-1, -1]}
    image = TensorDescriptorIm2Col.from_tensor(x, [32, 32], layout, element_strides=[1, step, step, 1], **box)
    n, y, x_at = start
    with offline() as session:
        target = TensorDescriptor.from_tensor(out, [32, 32], layout)
        pixels[(1,)](image, target, n, y - 1, x_at - 1, 32, 2, 0, num_warps=4)
    padded = torch.nn.functional.pad(x, (0, 0, 1, 1, 1, 1))
    every = [
        padded[i, top + 2, left, 32:] if i < 3 else torch.zeros(32)
        for i in range(5)
        for top in range(0, 6, step)
        for left in range(0, 7, step)
    ]
    wide, high = len(range(0, 7, step)), len(range(0, 6, step))
    first = (n * high + y // step) * wide + x_at // step
    assert not session.report().faults
    assert torch.equal(out, torch.stack(every[first : first + 32]))
