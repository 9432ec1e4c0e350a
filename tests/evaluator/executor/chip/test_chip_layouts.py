"""A reinterpreted buffer shows what lies at the addresses that its layouts give."""

from collections.abc import Callable

import pytest
import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.blackwell import TensorMemoryLayout, allocate_tensor_memory

from avo.evaluator.executor import UnsupportedOperation
from avo.evaluator.offline import offline

ORACLE = "the definition"

FLAT = gl.SwizzledSharedLayout(1, 1, 1, [0])


@gluon.jit
def in_order(x, y, COLUMNS: gl.constexpr, DTYPE: gl.constexpr, LAYOUT: gl.constexpr):
    layout: gl.constexpr = gl.BlockedLayout([1, 4], [8, 4], [4, 1], [1, 0])
    rows, columns = gl.arange(0, 32, gl.SliceLayout(1, layout)), gl.arange(0, COLUMNS, gl.SliceLayout(0, layout))
    held = gl.allocate_shared_memory(x.dtype.element_ty, [32, COLUMNS], LAYOUT)
    held.store(gl.load(x + rows[:, None] * COLUMNS + columns[None, :]))
    items: gl.constexpr = 32 * COLUMNS * x.dtype.element_ty.primitive_bitwidth // DTYPE.primitive_bitwidth
    flat: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    line: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])
    gl.store(y + gl.arange(0, items, line), held.reinterpret(DTYPE, [items], flat).load(line))


@pytest.mark.parametrize(
    ("layout", "place"),
    [
        (gl.SwizzledSharedLayout(1, 1, 1, [1, 0]), lambda r, c: r * 128 + c),
        (gl.SwizzledSharedLayout(1, 1, 1, [0, 1]), lambda r, c: c * 32 + r),
        (gl.SwizzledSharedLayout(8, 2, 4, [1, 0]), lambda r, c: r * 128 + (c ^ 8 * (r // 2 % 4))),
        (gl.NVMMASharedLayout(128, 16, 2), lambda r, c: c // 64 * 2048 + r * 64 + (c % 64 ^ 8 * (r % 8))),
        (gl.NVMMASharedLayout(32, 16, 2), lambda r, c: c // 16 * 512 + r * 16 + (c % 16 ^ 8 * (r // 4 % 2))),
    ],
    ids=["rows", "columns", "swizzled", "nvmma128", "nvmma32"],
)
def test_shared_memory_lies_as_its_layout_says(layout: object, place: Callable[[int, int], int]) -> None:
    x, y = torch.randn(32, 128).half(), torch.empty(4096, dtype=torch.int16)
    with offline() as session:
        in_order[(1,)](x, y, 128, gl.int16, layout, num_warps=4)
    assert session.report().clean
    places = torch.tensor([[place(r, c) for c in range(128)] for r in range(32)])
    assert torch.equal(y[places], x.view(torch.int16))


def test_a_large_buffer_lies_as_its_layout_says() -> None:
    x, y = torch.randn(32, 1024), torch.empty(32 * 1024)
    with offline() as session:
        in_order[(1,)](x, y, 1024, gl.float32, gl.SwizzledSharedLayout(1, 1, 1, [0, 1]), num_warps=4)
    assert session.report().clean
    assert torch.equal(y.view(1024, 32), x.T)


@gluon.jit
def parts_of_a_tile(x, y):
    layout: gl.constexpr = gl.BlockedLayout([1, 4], [8, 4], [4, 1], [1, 0])
    rows, columns = gl.arange(0, 64, gl.SliceLayout(1, layout)), gl.arange(0, 64, gl.SliceLayout(0, layout))
    held = gl.allocate_shared_memory(gl.float16, [64, 64], gl.NVMMASharedLayout(128, 16, 2))
    held.store(gl.load(x + rows[:, None] * 64 + columns[None, :]))
    part = held.reinterpret(gl.float16, [16, 4, 64], gl.SwizzledSharedLayout(1, 1, 1, [1, 0])).index(1)
    r = gl.arange(0, 4, gl.SliceLayout(1, layout))
    gl.store(y + r[:, None] * 64 + columns[None, :], part.load(layout))


def test_buffers_that_are_swizzled_unlike_each_other_are_refused() -> None:
    with (
        offline(),
        pytest.raises(UnsupportedOperation, match="memdesc_index of buffers that lie unlike each other at"),
    ):
        parts_of_a_tile[(1,)](torch.randn(64, 64).half(), torch.empty(4, 64).half(), num_warps=4)


def test_an_item_that_lies_in_pieces_is_refused() -> None:
    x, y = torch.randn(32, 128).half(), torch.empty(2048)
    with (
        offline(),
        pytest.raises(UnsupportedOperation, match=r"memdesc_reinterpret of .*: an item lies .* in pieces at"),
    ):
        in_order[(1,)](x, y, 128, gl.float32, gl.SwizzledSharedLayout(1, 1, 4, [1, 0]), num_warps=4)


@gluon.jit
def written_in_place(x, y, LAYOUT: gl.constexpr):
    layout: gl.constexpr = gl.BlockedLayout([1, 4], [8, 4], [4, 1], [1, 0])
    rows, columns = gl.arange(0, 32, gl.SliceLayout(1, layout)), gl.arange(0, 64, gl.SliceLayout(0, layout))
    held = gl.allocate_shared_memory(gl.float16, [2, 32, 64], LAYOUT)
    other = held.index(gl.program_id(0)).reinterpret(gl.float16, [32, 64], gl.SwizzledSharedLayout(1, 1, 1, [1, 0]))
    here = rows[:, None] * 64 + columns[None, :]
    other.store(gl.load(x + here))
    kept = held.index(gl.program_id(0))
    turned: gl.constexpr = gl.BlockedLayout([1, 4], [8, 4], [4, 1], [1, 0])
    i, j = gl.arange(0, 64, gl.SliceLayout(1, turned)), gl.arange(0, 16, gl.SliceLayout(0, turned))
    part = kept.slice(16, 16, dim=0).permute((1, 0))
    gl.store(y + gl.program_id(0) * 1024 + i[:, None] * 16 + j[None, :], part.load(turned))


def test_what_is_written_through_a_view_without_steps_is_read_through_others() -> None:
    x, y = torch.randn(32, 64).half(), torch.empty(2, 64, 16).half()
    with offline() as session:
        written_in_place[(2,)](x, y, gl.NVMMASharedLayout(128, 16, 2), num_warps=4)
    assert not session.report().faults
    rows, columns = torch.arange(32)[:, None], torch.arange(64)
    expected = x[rows, columns ^ 8 * (rows % 8)][16:].T
    assert torch.equal(y, expected.expand(2, -1, -1))


@gluon.jit
def through_tensor_memory(x, y, M: gl.constexpr, BLOCK: gl.constexpr, DTYPE: gl.constexpr, COLUMNS: gl.constexpr):
    layout: gl.constexpr = gl.BlockedLayout([1, 32], [32, 1], [4, 1], [0, 1])
    rows, columns = gl.arange(0, M, gl.SliceLayout(1, layout)), gl.arange(0, 64, gl.SliceLayout(0, layout))
    held = allocate_tensor_memory(gl.float32, [2, M, 64], TensorMemoryLayout([M, BLOCK], col_stride=1))
    value = gl.load(x + rows[:, None] * 64 + columns[None, :])
    held.index(1).store(gl.convert_layout(value, held.index(1).get_reg_layout()))
    seen = held.index(1).reinterpret(DTYPE, [128, COLUMNS], TensorMemoryLayout([128, COLUMNS], col_stride=1))
    r, c = gl.arange(0, 128, gl.SliceLayout(1, layout)), gl.arange(0, COLUMNS, gl.SliceLayout(0, layout))
    gl.store(y + r[:, None] * COLUMNS + c[None, :], seen.load(layout))


def test_a_lane_of_tensor_memory_holds_a_row_whatever_its_type() -> None:
    x, y = torch.randn(128, 64), torch.empty(128, 128).half()
    with offline(target="b200") as session:
        through_tensor_memory[(1,)](x, y, 128, 64, gl.float16, 128, num_warps=4)
    assert session.report().clean
    assert torch.equal(y.view(torch.int16), x.view(torch.int16))


def test_blocks_of_64_rows_share_the_lanes_of_each_warp() -> None:
    x, y = torch.randn(64, 64), torch.empty(128, 32)
    with offline(target="b200") as session:
        through_tensor_memory[(1,)](x, y, 64, 32, gl.float32, 32, num_warps=4)
    assert session.report().clean
    for lane in range(128):
        row, second = lane // 32 * 16 + lane % 16, lane % 32 // 16
        assert torch.equal(y[lane], x[row, 32 * second : 32 * second + 32])


@gluon.jit
def halves_in_order(x, y, PLACE: gl.constexpr):
    layout: gl.constexpr = gl.BlockedLayout([1, 4], [8, 4], [4, 1], [1, 0], cga_layout=[[1, 0]])
    rows, columns = gl.arange(0, 64, gl.SliceLayout(1, layout)), gl.arange(0, 64, gl.SliceLayout(0, layout))
    held = gl.allocate_shared_memory(gl.float16, [64, 64], gl.NVMMASharedLayout(128, 16, 2, cga_layout=[[1, 0]]))
    held.store(gl.load(x + rows[:, None] * 64 + columns[None, :]))
    flat: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0], cga_layout=[[PLACE]])
    line: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0], cga_layout=[[PLACE]])
    items: gl.constexpr = 4096 if PLACE else 2048
    gl.store(y + gl.arange(0, items, line), held.reinterpret(gl.int16, [items], flat).load(line))


def test_each_cta_of_a_cluster_holds_its_part_as_the_layout_says() -> None:
    x, y = torch.randn(64, 64).half(), torch.empty(4096, dtype=torch.int16)
    with offline() as session:
        halves_in_order[(1,)](x, y, 1, num_warps=4, num_ctas=2)
    assert session.report().clean
    rows, columns = torch.arange(64)[:, None], torch.arange(64)
    assert torch.equal(y[rows // 32 * 2048 + rows % 32 * 64 + (columns ^ 8 * (rows % 8))], x.view(torch.int16))


def test_parts_that_are_reinterpreted_as_copies_are_refused() -> None:
    told = "memdesc_reinterpret of .*: CTAs hold copies of one and parts of the other at"
    with offline(), pytest.raises(UnsupportedOperation, match=told):
        halves_in_order[(1,)](torch.randn(64, 64).half(), torch.empty(2048).short(), 0, num_warps=4, num_ctas=2)


@gluon.jit
def through_tensor_memory_of_two(x, y):
    here: gl.constexpr = TensorMemoryLayout([128, 64], col_stride=1, cga_layout=((1, 0),), two_ctas=True)
    there: gl.constexpr = TensorMemoryLayout([128, 128], col_stride=1, cga_layout=((1, 0),), two_ctas=True)
    held = allocate_tensor_memory(gl.float32, [256, 64], here)
    layout: gl.constexpr = held.get_reg_layout()
    rows, columns = gl.arange(0, 256, gl.SliceLayout(1, layout)), gl.arange(0, 64, gl.SliceLayout(0, layout))
    held.store(gl.load(x + rows[:, None] * 64 + columns[None, :]))
    seen = held.reinterpret(gl.float16, [256, 128], there)
    wide: gl.constexpr = seen.get_reg_layout()
    r, c = gl.arange(0, 256, gl.SliceLayout(1, wide)), gl.arange(0, 128, gl.SliceLayout(0, wide))
    gl.store(y + r[:, None] * 128 + c[None, :], seen.load(wide))


def test_a_lane_of_each_cta_holds_a_row_whatever_its_type() -> None:
    x, y = torch.randn(256, 64), torch.empty(256, 128).half()
    with offline(target="b200") as session:
        through_tensor_memory_of_two[(1,)](x, y, num_warps=4, num_ctas=2)
    assert session.report().clean
    assert torch.equal(y.view(torch.int16), x.view(torch.int16))
