"""Where it matters which registers hold which elements, the layouts of blocks are followed as Triton follows them."""

import random
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton._C.libtriton import gluon_ir, ir
from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from avo.evaluator.executor import Allocation, IRError, Launch, UnsupportedOperation, load
from avo.evaluator.executor.chip.registers import held
from avo.evaluator.offline import offline
from avo.evaluator.plan import Pointer

ORACLE = "Triton's linear layouts"

MODULE = """module attributes {{"ttg.num-ctas" = {ctas} : i32, "ttg.num-warps" = {warps} : i32, \
ttg.target = "cuda:90", "ttg.threads-per-warp" = 32 : i32}} {{
  tt.func public @f(%a: tensor<{shape}xf32, {layout}>) {{ tt.return }}
}}"""
LINEAR = "#ttg.linear<{{register = {}, lane = {}, warp = {}, block = []}}>"
PRODUCT = "#ttg.nvidia_mma<{{versionMajor = {}, versionMinor = 0, warpsPerCTA = {}, instrShape = {}}}>"
OPERAND = "#ttg.dot_op<{{opIdx = {}, parent = {}, kWidth = {}}}>"


def by_triton(layout: str, shape: tuple[int, ...], warps: int, ctas: int, folder: Path) -> np.ndarray:
    """Return the elements in the registers of each thread, as Triton itself says."""
    context = ir.context()
    ir.load_dialects(context)
    make_backend(GPUTarget("cuda", 90, 32)).load_dialects(context)
    path = folder / "module.ttgir"
    path.write_text(MODULE.format(ctas=ctas, warps=warps, shape="x".join(map(str, shape)), layout=layout))
    module = ir.parse_mlir_module(str(path), context)
    builder = gluon_ir.GluonOpBuilder(context)
    written = builder.get_gluon_layout_from_tensor(module.get_function("f").args(0))
    found = builder.to_linear_layout(written._to_ir(builder), list(shape))

    def numbers(bases: list[list[int]]) -> np.ndarray:
        sums = np.zeros(1, dtype=np.int64)
        for basis in bases:
            sums = np.concatenate([sums, sums ^ sum(at * prod(shape[axis + 1 :]) for axis, at in enumerate(basis))])
        return sums

    threads = numbers([*found.lane_bases, *found.warp_bases, *found.block_bases])
    return threads[:, None] ^ numbers(found.reg_bases)[None, :]


def linear(chance: random.Random, shape: tuple[int, ...]) -> str:
    """Return a linear layout of a block for four warps, with steps in a random order and copies where it is small."""
    steps = [
        [1 << bit if axis == along else 0 for axis in range(len(shape))]
        for along, extent in enumerate(shape)
        for bit in range(extent.bit_length() - 1)
    ]
    chance.shuffle(steps)
    nothing = [[0] * len(shape)]
    threads = steps[:7] + nothing * (7 - len(steps[:7]))
    return LINEAR.format(steps[7:], threads[:5], threads[5:])


def layouts(chance: random.Random) -> Iterator[tuple[str, tuple[int, ...], int, int]]:
    """Yield layouts with shapes, warps and CTAs: blocked ones and slices of them at random, and those of products."""

    def divided(total: int, rank: int) -> list[int]:
        parts = [1] * rank
        while total > 1:
            parts[chance.randrange(rank)] *= 2
            total //= 2
        return parts

    for number in range(80):
        rank, ctas = chance.choice([1, 2, 2, 3]), 2 if number % 8 == 0 else 1
        order = chance.sample(range(rank), rank)
        sizes = [chance.choice([1, 2, 4]) for _ in range(rank)]
        shape = tuple(chance.choice([8, 32, 128]) for _ in range(rank))
        split = f", CGALayout = {[[int(axis == order[0]) for axis in range(rank)]]}" if ctas == 2 else ""
        layout = (
            f"#ttg.blocked<{{sizePerThread = {sizes}, threadsPerWarp = {divided(32, rank)}, "
            f"warpsPerCTA = {divided(4, rank)}, order = {order}{split}}}>"
        )
        yield layout, shape, 4, ctas
        yield linear(chance, shape), shape, 4, 1
        if rank > 1:
            axis = chance.randrange(rank)
            yield f"#ttg.slice<{{dim = {axis}, parent = {layout}}}>", shape[:axis] + shape[axis + 1 :], 4, ctas
    for version, instruction in ((3, [16, 64, 16]), (3, [16, 128, 16]), (2, [16, 8])):
        for warps in ([4, 1], [8, 1], [2, 2]):
            layout = PRODUCT.format(version, warps, instruction)
            for shape in ((128, 64), (64, 128), (16, 16)):
                yield layout, shape, prod(warps), 1
                yield layout.replace("}>", ", CGALayout = [[1, 0]]}>"), shape, prod(warps), 2
                yield f"#ttg.slice<{{dim = 1, parent = {layout}}}>", shape[:1], prod(warps), 1
                for side, width in ((0, 2), (0, 4), *([(1, 2)] if version == 2 else [])):
                    yield OPERAND.format(side, layout, width), shape, prod(warps), 1


@pytest.mark.long
def test_layouts_are_those_of_triton(tmp_path: Path) -> None:
    tried = 0
    for layout, shape, warps, ctas in layouts(random.Random(0)):
        found = held(layout, shape)
        assert found is not None, layout
        assert np.array_equal(found, by_triton(layout, shape, warps, ctas, tmp_path)), (layout, shape)
        tried += 1
    assert tried > 200


@pytest.mark.parametrize(
    "layout",
    [
        "#ttg.linear<{register = [[99999999999999999999]], lane = [], warp = [], block = []}>",
        LINEAR.format([[1, 0]], [[2]], []),
        "#ttg.slice<{dim = 0, parent = " * 2000 + "}>" * 2000,
        "#ttg.blocked<{sizePerThread = [256], threadsPerWarp = [32], warpsPerCTA = [4], order = [0]}>",
        "#ttg.blocked<{sizePerThread = [3], threadsPerWarp = [32], warpsPerCTA = [4], order = [0]}>",
        "#ttg.blocked<{sizePerThread = [1], threadsPerWarp = [32], order = [0]}>",
        "#ttg.blocked<{sizePerThread = [1], threadsPerWarp = [32], warpsPerCTA = [4], order = [1]}>",
        "#ttg.linear<{register = [[1], [2]], lane = [[4], [8], [16], [32], [4096]], warp = [], block = []}>",
        "#ttg.blocked<{sizePerThread = [1073741824], threadsPerWarp = [1073741824], warpsPerCTA = [4], order = [0]}>",
        "",
    ],
)
def test_other_layouts_are_not_followed(layout: str) -> None:
    assert held(layout, (128,)) is None


@pytest.mark.parametrize(
    "layout",
    [
        PRODUCT.format(2, [2, 2], [8, 8]),  # of double precision
        PRODUCT.format(5, [4, 1], [16, 64, 16]),
        OPERAND.format(0, PRODUCT.format(2, [2, 2], [16, 8]).replace("}>", ", CGALayout = [[0, 1]]}>"), 2),
    ],
)
def test_other_products_are_not_followed(layout: str) -> None:
    assert held(layout, (32, 32)) is None


@gluon.jit
def exchange(out, LAYOUT: gl.constexpr):
    row, column = gl.arange(0, 16, gl.SliceLayout(1, LAYOUT)), gl.arange(0, 32, gl.SliceLayout(0, LAYOUT))
    x = (row[:, None] * 32 + column[None, :]).to(gl.int16)
    y = gl.inline_asm_elementwise("prmt.b32 $0, $1, $1, 0x1032;", "=r,r", [x], gl.int16, True, 2)
    gl.store(out + row[:, None] * 32 + column[None, :], y)


@gluon.jit
def first_of(a, b):
    return a, a


@gluon.jit
def repeat(out, LAYOUT: gl.constexpr):
    row, column = gl.arange(0, 16, gl.SliceLayout(1, LAYOUT)), gl.arange(0, 32, gl.SliceLayout(0, LAYOUT))
    x = row[:, None] * 32 + column[None, :]
    (y,) = gl.map_elementwise(first_of, x, pack=2)
    gl.store(out + x, y.to(gl.int16))


BY_ROWS = gl.BlockedLayout([1, 4], [8, 4], [4, 1], [1, 0])
BY_COLUMNS = gl.BlockedLayout([4, 1], [4, 8], [1, 4], [0, 1])
EIGHT_ROWS_APART = gl.BlockedLayout([1, 1], [2, 16], [4, 1], [1, 0])


@pytest.mark.parametrize(("layout", "step"), [(BY_ROWS, 1), (BY_COLUMNS, 32), (EIGHT_ROWS_APART, 16)])
def test_elements_are_packed_as_their_layout_says(layout: object, step: int) -> None:
    out, numbers = torch.zeros(512, dtype=torch.int16), torch.arange(512, dtype=torch.int16)
    with offline() as session:
        exchange[(1,)](out, layout, num_warps=4)
        assert torch.equal(out, numbers ^ step)
        repeat[(1,)](out, layout, num_warps=4)
    assert session.report().clean
    assert torch.equal(out, numbers & ~step)


def test_registers_that_hold_copies_are_packed_in_no_way_that_is_followed() -> None:
    copies = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])  # 64 columns a row, where the block has 32
    with offline(), pytest.raises(UnsupportedOperation, match="depend on which elements are packed together"):
        exchange[(1,)](torch.zeros(512, dtype=torch.int16), copies, num_warps=4)


@triton.jit
def by_the_compiler(x, out):
    row, column = tl.arange(0, 16)[:, None], tl.arange(0, 16)[None, :]
    y = tl.load(x + row * 16 + column)
    y = tl.inline_asm_elementwise("prmt.b32 $0, $1, $1, 0x1032;", "=r,r", [y], tl.int16, True, 2)
    tl.store(out + row * 16 + column, y)


def test_what_the_compiler_chose_is_followed_at_its_level_and_refused_before() -> None:
    x, out = torch.arange(256, dtype=torch.int16), torch.zeros(256, dtype=torch.int16)
    with offline(level="compiled") as session:
        by_the_compiler[(1,)](x, out, num_warps=4)
    assert session.report().clean
    assert torch.equal(out, x ^ 1)
    with offline(), pytest.raises(UnsupportedOperation, match="depend on which elements are packed together"):
        by_the_compiler[(1,)](x, out, num_warps=4)


RESHAPED = """
#by_rows = #ttg.blocked<{sizePerThread = [1, 2], threadsPerWarp = [2, 16], warpsPerCTA = [4, 1], order = [1, 0]}>
#line = #ttg.blocked<{sizePerThread = [1], threadsPerWarp = [32], warpsPerCTA = [4], order = [0]}>
#two = #ttg.blocked<{sizePerThread = [2], threadsPerWarp = [32], warpsPerCTA = [4], order = [0]}>
module attributes {"ttg.num-ctas" = 1 : i32, "ttg.num-warps" = 4 : i32} {
  tt.func public @k(%out: !tt.ptr<i32>) {
    %i = tt.make_range {end = 256 : i32, start = 0 : i32} : tensor<256xi32, LAYOUT>
    %x = tt.reshape %i allow_reorder : tensor<256xi32, LAYOUT> -> tensor<8x32xi32, #by_rows>
    %y = tt.reshape %x : tensor<8x32xi32, #by_rows> -> tensor<256xi32, #two>
    %j = tt.make_range {end = 256 : i32, start = 0 : i32} : tensor<256xi32, #two>
    %p = tt.splat %out : !tt.ptr<i32> -> tensor<256x!tt.ptr<i32>, #two>
    %q = tt.addptr %p, %j : tensor<256x!tt.ptr<i32>, #two>, tensor<256xi32, #two>
    tt.store %q, %y : tensor<256x!tt.ptr<i32>, #two>
    tt.return
  }
}"""


@pytest.mark.parametrize("layout", ["#line", "#two"])
def test_a_reshape_that_may_reorder_leaves_elements_in_their_registers(layout: str) -> None:
    out = torch.zeros(256, dtype=torch.int32)
    kernel = load(RESHAPED.replace("LAYOUT", layout))
    memory = [Allocation("out", out, torch.zeros(256, dtype=torch.bool), False)]
    assert kernel.run(Launch(memory, [Pointer(0, 0)], (1, 1, 1))).faults == ()
    thread, register = torch.arange(256) // 2, torch.arange(256) % 2
    assert torch.equal(out, thread + 128 * register if layout == "#line" else torch.arange(256))


def test_a_reshape_to_a_block_of_another_size_is_no_reshape() -> None:
    with pytest.raises(IRError, match="does not make"):
        load(RESHAPED.replace("LAYOUT", "#line").replace("tensor<256xi32, #line>", "tensor<128xi32, #line>"))


def test_a_reshape_between_layouts_that_are_not_followed_shows_no_order() -> None:
    odd = "#ttg.amd_wmma<{version = 1, warpsPerCTA = [4]}>"
    with pytest.raises(UnsupportedOperation, match=r"of elements in any order, after tt\.reshape"):
        load(RESHAPED.replace("LAYOUT", odd))
