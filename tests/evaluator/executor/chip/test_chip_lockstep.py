"""Programs in lockstep have what each would have alone, also where they would wait for each other."""

from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

from avo.evaluator.executor.code import Code
from avo.evaluator.executor.lockstep import Pace
from avo.evaluator.executor.memory import Memory
from avo.evaluator.offline import offline

ORACLE = "the expected values"


@triton.jit
def uneven(x, out):
    program = tl.program_id(0)
    passes = tl.load(x + program)
    rows, sums, first = tl.arange(0, 4), tl.zeros([4], tl.int32), program * 100
    for i in range(program, 2 * passes + program, 2):
        first, sums = first + 1, sums * 3 + first + i
        for j in range(i % 3):
            sums += j * rows
    tl.store(out + program * 8 + rows, sums)
    tl.store(out + program * 8 + 4, first)


@pytest.mark.parametrize("passes", [[3, 0, 5, 2, 5, 1], [0, 4, 4, 0, 2, 2], [1, 2, 3, 4, 5, 6]])
@pytest.mark.parametrize("pace", Pace)
def test_uneven_loops_give_the_same_at_each_pace(executor: Any, pace: Pace, passes: list[int]) -> None:
    out = torch.zeros(6, 8, dtype=torch.int32)
    launch = executor.prepare(uneven, torch.tensor(passes, dtype=torch.int32), out, grid=(6,))
    Code(launch.kernel.function, launch.kernel.function).passes(Memory(launch.memory), launch, pace=pace)
    for program, count in enumerate(passes):
        sums, first = torch.zeros(4, dtype=torch.int32), program * 100
        for i in range(program, 2 * count + program, 2):
            first, sums = first + 1, sums * 3 + first + i
            sums += sum(range(i % 3)) * torch.arange(4, dtype=torch.int32)
        assert out[program].tolist() == [*sums.tolist(), first, 0, 0, 0]


LINE = gl.constexpr(gl.SwizzledSharedLayout(1, 1, 1, [0]))


@gluon.jit
def fill(ready, free, tiles):
    for tile in range(tiles):
        mbarrier.wait(free, (tile & 1) ^ 1)
        mbarrier.arrive(ready, count=1)


@gluon.jit
def empty(ready, free, out, total, first, tiles, SWAP: gl.constexpr):
    taken = 0
    one = gl.allocate_shared_memory(gl.int32, [128], LINE)
    other = gl.allocate_shared_memory(gl.int32, [128], LINE)
    for tile in range(first):
        mbarrier.wait(ready, tile & 1)
        taken += 1
        if SWAP:
            one, other = other, one
        mbarrier.arrive(free, count=1)
    for tile in range(first, tiles):
        mbarrier.wait(ready, tile & 1)
        taken += 100
        mbarrier.arrive(free, count=1)
    gl.store(out + gl.program_id(0), gl.load(out + gl.program_id(0)) + taken)
    one.store(gl.full([128], 1, gl.int32, gl.BlockedLayout([1], [32], [4], [0])))


@gluon.jit
def handed(out, total, HALF: gl.constexpr, SWAP: gl.constexpr):
    tiles = 3 + 5 * gl.program_id(0)
    first = tiles // 2 if HALF else tiles - 2
    ready, free = mbarrier.allocate_mbarrier(), mbarrier.allocate_mbarrier()
    mbarrier.init(ready, count=1)
    mbarrier.init(free, count=1)
    gl.atomic_add(total, tiles)
    given = (ready, free, out, total, first, tiles, SWAP)
    gl.warp_specialize([(empty, given), (fill, (ready, free, tiles))], [4], [24])


@pytest.mark.parametrize(
    ("half", "swap", "taken", "tried"),
    [
        (False, False, [201, 206, 211], [Pace.START, Pace.END]),
        (True, False, [201, 404, 706], list(Pace)),
        (False, True, [201, 206, 211], list(Pace)),  # buffers of programs that are in other passes are not the same
    ],
)
def test_programs_that_get_stuck_in_lockstep_end_loops_together_or_go_on_alone(
    half: bool, swap: bool, taken: list[int], tried: list[Pace], monkeypatch: pytest.MonkeyPatch
) -> None:
    paces = []
    passes = Code.passes

    def noted(code: Code, *args: Any, **options: Any) -> torch.Tensor:
        if "pace" in options:
            paces.append(options["pace"])
        return passes(code, *args, **options)

    monkeypatch.setattr(Code, "passes", noted)
    out, total = torch.zeros(3, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    with offline("h100"):
        handed[(3,)](out, total, half, swap)
    assert (out.tolist(), total.item()) == (taken, 3 + 8 + 13)
    assert paces == tried
