"""Which programs are run at benchmark shapes: those that a sample depends on, and some that meet others in memory."""

import random
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from avo.evaluator.executor import Allocation
from avo.evaluator.judging import sampling
from avo.evaluator.judging.buffers import Buffers
from avo.evaluator.judging.execution import PlanRun
from avo.evaluator.judging.refusal import Refused
from avo.evaluator.judging.stages import Stage, stages
from avo.evaluator.plan import Buffer, KernelIR, Launch, LaunchPlan, Pointer, Role
from avo.evaluator.problem import TensorSpec


def stage(*kinds: list[list[int]], whole: bool = False) -> Any:
    pairs = tuple(torch.tensor(kind, dtype=torch.int64).view(-1, 2) for kind in kinds)
    return SimpleNamespace(whole=whole, race_candidates=lambda: pairs)


def test_pairs_of_each_kind_are_run_with_both_their_programs() -> None:
    many = [[i, i + 1000] for i in range(500)]
    chosen = sampling._meeting(stage(many, [], [[7, 3000]]), random.Random(1)).tolist()
    assert {7, 3000} < set(chosen)
    first = [program for program in chosen if program not in (7, 3000) and program < 1000]
    assert len(first) == sampling._MEETINGS
    assert all(program + 1000 in chosen for program in first)


def test_where_no_programs_meet_or_all_are_run_anyway_none_are_added() -> None:
    assert sampling._meeting(stage([], [], []), random.Random(1)).numel() == 0
    assert sampling._meeting(stage([[1, 2]], whole=True), random.Random(1)).numel() == 0


def checked(most: float) -> list[int]:
    """The programs whose hints are checked where checking two thousand takes 1 to 4 elements each."""
    asked: list[int] = []
    kernel = SimpleNamespace(
        hint_elements=lambda trips, programs: np.arange(programs) % 4 + 1,
        hint_violations=lambda launch, programs: asked.extend(programs.tolist()),
    )
    launch = SimpleNamespace(programs=2000)
    run = SimpleNamespace(sound=lambda launch, check: check(kernel), deadline=None)
    stage: Any = SimpleNamespace(launch=launch, run=run, counted=SimpleNamespace(trips=()), launched=None)
    Stage.check_hints(stage, random.Random(1), most)
    return asked


def test_promises_of_all_programs_are_checked_unless_that_takes_too_much() -> None:
    assert checked(5000) == list(range(2000))
    some = checked(500)
    assert 496 < sum(program % 4 + 1 for program in some) <= 500
    assert some == sorted(set(some))
    assert len({program // 200 for program in some}) == 10
    assert len(checked(0)) == 1


STORE = "tt.store %target, %value : !tt.ptr<i32>"
COPY = f"""\
module {{
  tt.func public @copy(%from: !tt.ptr<i32>, %to: !tt.ptr<i32>) {{
    %id = tt.get_program_id x : i32
    %true = arith.constant true
    %false = arith.constant false
    %source = tt.addptr %from, %id : !tt.ptr<i32>, i32
    %target = tt.addptr %to, %id : !tt.ptr<i32>, i32
    %value = tt.load %source : !tt.ptr<i32>
    {STORE}
    tt.return
  }}
}}
"""


def copies(*places: tuple[int, int, int, int, int], again: str = STORE) -> sampling.BenchmarkCheck:
    """A check of launches of ``COPY``, of a problem whose output has rows of one element.

    Each copies four elements: its kernel, the buffer and offset to copy from, and those to copy to. The second kernel
    stores with ``again``.
    """
    sizes = {"in": (4, Role.INPUT), "out": (8, Role.OUTPUT), "scratch": (4, Role.SCRATCH)}
    buffers = tuple(Buffer(name, "int32", size, role) for name, (size, role) in sizes.items())
    memory = tuple(Allocation(b.name, torch.zeros(b.size, dtype=torch.int32), None, b.name == "in") for b in buffers)
    kernels = tuple(KernelIR("copy", COPY.replace(STORE, how), ()) for how in (STORE, again))
    launches = tuple(Launch(kernel, (4, 1, 1), (Pointer(*place[:2]), Pointer(*place[2:]))) for kernel, *place in places)
    run = PlanRun(LaunchPlan("case", buffers, kernels, launches), Buffers(memory, {}), float("inf"))
    spec = TensorSpec("out", "int32", (1, 1, 8), (8, 8, 1), 8, Role.OUTPUT)
    problem: Any = SimpleNamespace(
        outputs=(SimpleNamespace(name="out", rows="queries"),), call=lambda case: SimpleNamespace(tensors=(spec,))
    )
    case: Any = None
    return sampling.BenchmarkCheck(problem, case, {}, run, stages(run))


def makers(row: int, again: str = STORE) -> list[list[int]]:
    """The programs of four launches that a row of the output depends on: the input goes through four elements of
    scratch to the first four rows, then to the last four. ``again`` is how it gets there the second time.
    """
    check = copies((0, 0, 0, 2, 0), (0, 2, 0, 1, 0), (1, 0, 0, 2, 0), (0, 2, 0, 1, 16), again=again)
    wanted = {"queries": (torch.arange(8) == row).view(1, 1, 8)}
    return [programs.tolist() for programs in check._makers(wanted, [sampling._NONE] * 4)]


def test_a_row_depends_on_nothing_that_is_stored_over_before_it_is_read() -> None:
    assert makers(1) == [[1], [1], [], []]
    assert makers(5) == [[], [], [1], [1]]


@pytest.mark.parametrize(
    "again",
    [
        "%old = tt.atomic_rmw add, acq_rel, gpu, %target, %value, %true : (!tt.ptr<i32>, i32, i1) -> i32",
        "%half = tt.bitcast %target : !tt.ptr<i32> -> !tt.ptr<i16>\n    %low = arith.trunci %value : i32 to i16\n"
        "    tt.store %half, %low : !tt.ptr<i16>",
        "%old = tt.load %target : !tt.ptr<i32>\n    %sum = arith.addi %old, %value : i32\n"
        "    tt.store %target, %sum : !tt.ptr<i32>",
    ],
    ids=["added", "stored in part", "read before"],
)
def test_a_row_depends_on_what_is_not_wholly_stored_over(again: str) -> None:
    assert makers(5, again) == [[1], [], [1], [1]]


def test_a_row_depends_on_what_a_masked_store_leaves() -> None:
    assert makers(5, "tt.store %target, %value, %false : !tt.ptr<i32>") == [[1], [], [], [1]]


@pytest.mark.parametrize("races", [False, True])
def test_the_first_and_the_last_program_are_checked_for_stray_accesses_with_every_sample(races: bool) -> None:
    within, beyond = copies((0, 0, 0, 1, 0)), copies((0, 0, 4, 1, 0))
    for check in (within, beyond):
        object.__setattr__(check, "sample", replace(check.sample, races=races))
    for chosen in ([torch.tensor([1])], [sampling._NONE]):
        within._check_accesses(chosen, random.Random(1))
        with pytest.raises(Refused) as refused:
            beyond._check_accesses(chosen, random.Random(1))
        assert "read out of bounds in copy" in refused.value.fault.message


@pytest.mark.parametrize(
    ("how", "same"),
    [
        (STORE, True),
        (f"%other = arith.select %true, %target, %source : !tt.ptr<i32>\n    {STORE.replace('target', 'other')}", True),
        (f"%number = tt.ptr_to_int %target : !tt.ptr<i32> -> i64\n    {STORE}", False),
        (
            "%number = arith.constant 4096 : i64\n    %made = tt.int_to_ptr %number : i64 -> !tt.ptr<i32>\n"
            f"    %other = arith.select %true, %target, %made : !tt.ptr<i32>\n    {STORE.replace('target', 'other')}",
            False,
        ),
        (
            '%other = tt.elementwise_inline_asm "and.b64 $0, $1, -8;" {constraints = "=l,l", packed_element = 1 : i32, '
            f"pure = true}} %target : !tt.ptr<i32> -> !tt.ptr<i32>\n    {STORE.replace('target', 'other')}",
            False,
        ),
    ],
    ids=["stored", "chosen", "made a number", "made of a number", "rounded in assembly"],
)
def test_programs_count_as_run_where_their_accesses_were_checked_unless_they_see_addresses(
    how: str, same: bool
) -> None:
    check = copies((1, 0, 0, 1, 0), again=how)
    object.__setattr__(check, "sample", replace(check.sample, races=True))
    source, target, _ = check.run.buffers.allocations
    source.data.copy_(torch.arange(1, 5))
    assert check._check_accesses([torch.tensor([2])], random.Random(1)) is same
    assert target.data.tolist()[2] == 3  # left even so, where another execution writes it again
    object.__setattr__(check, "sample", replace(check.sample, races=False))
    assert not check._check_accesses([torch.tensor([2])], random.Random(1))


def left(first: list[int], second: list[int]) -> tuple[list[int], list[int]]:
    """The elements of the output that are left of these programs of two launches that store the same, and of others."""
    check = copies((0, 0, 0, 1, 0), (0, 0, 0, 1, 0))
    chosen, others = check._stored([torch.tensor(each, dtype=torch.int64) for each in (first, second)])
    return chosen[1].nonzero().flatten().tolist(), others[1].nonzero().flatten().tolist()


def test_what_a_sample_stores_over_is_not_left_of_other_programs() -> None:
    assert left([], [1]) == ([1], [0, 2, 3])
    assert left([1], []) == ([1], [0, 1, 2, 3])
    assert left([1], [1]) == ([1], [0, 2, 3])
