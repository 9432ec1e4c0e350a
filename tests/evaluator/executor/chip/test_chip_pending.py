"""A result of an asynchronous product (wgmma) is used only after a wait has returned it; otherwise that is found. Each
kernel has a clean twin: another form of it."""

import re
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, warpgroup_mma, warpgroup_mma_wait
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from avo.evaluator.executor import IRError, UnsupportedOperation, load
from avo.evaluator.offline import offline
from tests.evaluator.executor.chip.sanitised import EARLY, Case, each, fill, found, judge

ORACLE = "the expected messages and locations"

WGMMA = gl.constexpr(gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16]))
ROWS = gl.constexpr(gl.DotOperandLayout(0, WGMMA, 2))
"""Registers of the left operand of a product."""


@gluon.jit
def filled(desc):
    """A tile that the tensor cores may read."""
    tile = gl.allocate_shared_memory(gl.float16, [64, 64], desc.layout)
    fill(tile)
    fence_async_shared()
    return tile


@gluon.jit
def zeros():
    return gl.zeros([64, 64], gl.float32, WGMMA)


@gluon.jit
def issue(tile, acc):
    return warpgroup_mma(tile, tile, acc, is_async=True)


@gluon.jit
def use(x, value):
    rows, columns = gl.arange(0, 64, gl.SliceLayout(1, WGMMA)), gl.arange(0, 64, gl.SliceLayout(0, WGMMA))
    gl.store(x + rows[:, None] * 64 + columns[None, :], value.to(gl.float16))


@gluon.jit
def scaled_after_a_product(desc, x, LEFT: gl.constexpr):
    acc = warpgroup_mma_wait(LEFT, deps=[issue(filled(desc), zeros())])
    use(x, acc * 2.0)


@gluon.jit
def stored_after_another_product(desc, x, LEFT: gl.constexpr):
    tile = filled(desc)
    first = issue(tile, zeros())
    second = issue(tile, zeros() + 1.0)
    use(x, warpgroup_mma_wait(LEFT, deps=[first]))
    use(x, warpgroup_mma_wait(0, deps=[second]))


@gluon.jit
def converted_to_an_operand(desc, x, LEFT: gl.constexpr):
    tile = filled(desc)
    scores = warpgroup_mma_wait(LEFT, deps=[issue(tile, zeros())])
    acc = warpgroup_mma(gl.convert_layout(scores.to(gl.float16), ROWS), tile, zeros())
    use(x, acc)


@gluon.jit
def rearranged(desc, x, AGAIN: gl.constexpr):
    tile = filled(desc)
    acc = warpgroup_mma_wait(1, deps=[issue(tile, zeros())])
    acc = gl.convert_layout(acc.trans(1, 0).trans(1, 0), WGMMA, assert_trivial=True)
    if AGAIN:
        acc = warpgroup_mma_wait(0, deps=[issue(tile, acc)])
    use(x, acc)


@gluon.jit
def added_to_in_a_loop(desc, x, SCALED: gl.constexpr):
    tile = filled(desc)
    acc = zeros()
    for _ in range(4):
        acc = warpgroup_mma_wait(1, deps=[issue(tile, acc)])
        if SCALED:
            acc = acc * 2.0
    use(x, warpgroup_mma_wait(0, deps=[acc]))


@gluon.jit
def one_pass_behind(desc, x, LEFT: gl.constexpr):
    tile = filled(desc)
    scores = issue(tile, zeros())
    for _ in range(4):
        following = issue(tile, zeros())
        use(x, warpgroup_mma_wait(LEFT, deps=[scores]))
        scores = following
    use(x, warpgroup_mma_wait(0, deps=[scores]))


@gluon.jit
def used_in_the_next_pass(desc, x, LEFT: gl.constexpr):
    tile = filled(desc)
    acc = zeros()
    for _ in range(4):
        use(x, acc)
        acc = warpgroup_mma_wait(LEFT, deps=[issue(tile, zeros())])
    warpgroup_mma_wait(0, deps=[acc])


@gluon.jit
def used_after_a_loop(desc, x, LEFT: gl.constexpr):
    tile = filled(desc)
    acc = zeros()
    for _ in range(gl.num_programs(0)):
        acc = warpgroup_mma_wait(LEFT, deps=[issue(tile, acc)])
    use(x, acc)


@gluon.jit
def used_after_a_while_loop(desc, x, LEFT: gl.constexpr):
    tile = filled(desc)
    acc, step = zeros(), gl.program_id(0)
    while step < 3:
        acc = warpgroup_mma_wait(LEFT, deps=[issue(tile, acc)])
        step += 1
    use(x, acc)


@gluon.jit
def waited_for_in_one_branch(desc, x, OTHER: gl.constexpr):
    acc = issue(filled(desc), zeros())
    use(x, warpgroup_mma_wait(OTHER, deps=[acc]) if gl.program_id(0) == 0 else warpgroup_mma_wait(0, deps=[acc]))


@gluon.jit
def waited_for_before(desc, x, ALWAYS: gl.constexpr):
    tile = filled(desc)
    other = issue(tile, zeros() + 1.0)
    acc = issue(tile, zeros())
    if ALWAYS or gl.program_id(0) == 0:
        warpgroup_mma_wait(0, deps=[other])
    use(x, warpgroup_mma_wait(1, deps=[acc]))
    use(x, warpgroup_mma_wait(0, deps=[other]))


@gluon.jit
def beside_a_product_of_one_branch(desc, x, LEFT: gl.constexpr):
    tile = filled(desc)
    acc = issue(tile, zeros())
    if gl.program_id(0) == 0:
        warpgroup_mma_wait(1, deps=[issue(tile, zeros() + 1.0)])
    use(x, warpgroup_mma_wait(LEFT, deps=[acc]))


@gluon.jit(noinline=True)
def waited_for(acc, LEFT: gl.constexpr):
    return warpgroup_mma_wait(LEFT, deps=[acc])


@gluon.jit
def waited_for_by_a_function(desc, x, LEFT: gl.constexpr):
    use(x, waited_for(issue(filled(desc), zeros()), LEFT))


@gluon.jit
def multiply(tile, x, LEFT: gl.constexpr):
    use(x, warpgroup_mma_wait(LEFT, deps=[issue(tile, zeros())]))


@gluon.jit
def nothing(tile, x, LEFT: gl.constexpr):
    pass


@gluon.jit
def in_the_default_partition(desc, x, LEFT: gl.constexpr):
    tile = filled(desc)
    gl.warp_specialize([(multiply, (tile, x, LEFT)), (nothing, (tile, x, LEFT))], [4], [24])


@gluon.jit
def in_another_partition(desc, x, LEFT: gl.constexpr):
    tile = filled(desc)
    gl.warp_specialize([(nothing, (tile, x, LEFT)), (multiply, (tile, x, LEFT))], [4], [240])


@gluon.jit
def waited_for_by_another_partition(desc, x, AFTER: gl.constexpr):
    tile = filled(desc)
    acc = issue(tile, zeros())
    gl.warp_specialize([(nothing, (tile, x, 0)), (multiply, (tile, x, 0))], [4], [240])
    use(x, warpgroup_mma_wait(AFTER, deps=[acc]))


@gluon.jit
def waited_for_by_the_way(desc, x, RETURNED: gl.constexpr):
    acc = warpgroup_mma_wait(1, deps=[issue(filled(desc), zeros())])
    later = warpgroup_mma_wait(0, deps=[acc])
    use(x, later if RETURNED else acc)


@gluon.jit
def beside_a_product_that_waits(desc, x, WAITS: gl.constexpr):
    tile = filled(desc)
    first = issue(tile, zeros())
    second = warpgroup_mma(tile, tile, zeros() + 1.0, is_async=not WAITS)
    use(x, warpgroup_mma_wait(2, deps=[first]))
    use(x, warpgroup_mma_wait(0, deps=[second]))


USED = r"uses the result of the product at test_chip_pending\.py:\d+, which the tensor cores may still be writing"
CASES = {
    "a sum": Case(scaled_after_a_product, "h100", EARLY, f"the program {USED}", wrong=1, right=0),
    "a store beside another product": Case(
        stored_after_another_product, "h100", EARLY, f"the program {USED}", wrong=2, right=1
    ),
    "an operand of another product": Case(
        converted_to_an_operand, "h100", EARLY, f"the program {USED}", wrong=1, right=0
    ),
    "a store of what is only laid out otherwise": Case(
        rearranged, "h100", EARLY, f"the program {USED}", wrong=False, right=True
    ),
    "a sum that the next pass adds to": Case(
        added_to_in_a_loop, "h100", EARLY, f"the program {USED}", wrong=True, right=False
    ),
    "a pass behind": Case(one_pass_behind, "h100", EARLY, f"the program {USED}", wrong=2, right=1),
    "the next pass": Case(used_in_the_next_pass, "h100", EARLY, f"the program {USED}", wrong=1, right=0),
    "after a loop": Case(used_after_a_loop, "h100", EARLY, f"the program {USED}", wrong=1, right=0),
    "after a while loop": Case(used_after_a_while_loop, "h100", EARLY, f"the program {USED}", wrong=1, right=0),
    "one branch of two": Case(waited_for_in_one_branch, "h100", EARLY, f"the program {USED}", wrong=1, right=0),
    "a wait for another product in one branch": Case(
        waited_for_before, "h100", EARLY, f"the program {USED}", wrong=False, right=True
    ),
    "another product in one branch": Case(
        beside_a_product_of_one_branch, "h100", EARLY, f"the program {USED}", wrong=1, right=0
    ),
    "a wait of a function": Case(
        waited_for_by_a_function, "h100", EARLY, f"the program {USED}", wrong=1, right=0
    ),
    "the default partition": Case(
        in_the_default_partition, "h100", EARLY, f"the default partition {USED}", wrong=1, right=0
    ),
    "another partition": Case(in_another_partition, "h100", EARLY, f"partition 0 {USED}", wrong=1, right=0),
    "a wait of another partition": Case(
        waited_for_by_another_partition, "h100", EARLY, f"the default partition {USED}", wrong=1, right=0
    ),
    "a value that a wait has not returned": Case(
        waited_for_by_the_way, "h100", EARLY, f"the program {USED}.*use what that returns", wrong=False, right=True
    ),
    "a product that waits for all": Case(
        beside_a_product_that_waits, "h100", EARLY, f"the program {USED}", wrong=False, right=True
    ),
}  # fmt: skip


@each(CASES)
def test_what_the_tensor_cores_may_still_be_writing_is_not_used_and_its_clean_twin_is_clean(what: str) -> None:
    judge(CASES[what])


def test_a_finding_names_the_line_of_the_use_and_that_of_the_product() -> None:
    lines = Path(__file__).read_text().splitlines()
    product = next(i for i, line in enumerate(lines, 1) if "return warpgroup_mma(tile, tile, acc" in line)
    used = next(i for i, line in enumerate(lines, 1) if "use(x, acc * 2.0)" in line)
    ((_, message),) = found(CASES["a sum"], 1)
    at = rf"{EARLY} in scaled_after_a_product at test_chip_pending\.py:{used}: the program uses the result"
    assert re.fullmatch(rf"{at} of the product at test_chip_pending\.py:{product}, .*, program \(0, 0, 0\)", message)


@pytest.mark.parametrize(("spelt", "otherwise"), [("tt.return", "cf.br ^bb9"), ("pendings = 0", "pendings = few")])
def test_text_that_no_compiler_writes_is_refused(spelt: str, otherwise: str) -> None:
    desc = TensorDescriptor.from_tensor(torch.zeros(64, 64).half(), [64, 64], gl.NVMMASharedLayout(128, 16, rank=2))
    with offline(target="h100") as session:
        scaled_after_a_product[(1,)](desc, torch.zeros(4096).half(), 0, num_warps=4)
    text = session.launches[0].ir
    assert spelt in text
    with pytest.raises((IRError, UnsupportedOperation)):
        load(text.replace(spelt, otherwise))


@triton.jit
def product(a, b, c, steps, SIZE: tl.constexpr, KIND: tl.constexpr):
    i = tl.arange(0, SIZE)
    left, right = a + i[:, None] * (steps * SIZE) + i[None, :], b + i[:, None] * SIZE + i[None, :]
    total = tl.zeros([SIZE, SIZE], tl.float32)
    for step in tl.range(steps):
        factor = tl.load(left)
        if KIND == "registers":
            factor = (factor * 2.0).to(tl.float16)
        if KIND == "chained":
            total = tl.dot(tl.dot(factor, tl.load(right)).to(tl.float16), tl.load(right), total)
        else:
            total = tl.dot(factor, tl.load(right), total)
        if KIND == "read now and then" and step % 2 == 1:
            tl.store(c + i[:, None] * SIZE + i[None, :], total)
        left += SIZE
        right += SIZE * SIZE
    tl.store(c + i[:, None] * SIZE + i[None, :], total)


@pytest.mark.parametrize("kind", ["shared memory", "registers", "chained", "read now and then"])
def test_nothing_is_found_in_products_that_the_compiler_makes_asynchronous(kind: str) -> None:
    size, steps = 64, 5
    a, b = torch.randn(size, steps * size).half(), torch.randn(steps * size, size).half()
    with offline("h100", level="compiled") as session:
        product[(1,)](a, b, torch.zeros(size, size), steps, size, kind, num_stages=3)
    (launch,) = session.launches
    assert "isAsync = true" in launch.ir
    assert session.report().faults == ()
