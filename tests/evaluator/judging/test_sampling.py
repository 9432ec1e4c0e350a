"""Which programs are run at benchmark shapes because they meet others in memory."""

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from evaluator.judging import sampling
from evaluator.judging.stages import Stage


def stage(*kinds: list[list[int]], whole: bool = False) -> Any:
    pairs = tuple(torch.tensor(kind, dtype=torch.int64).view(-1, 2) for kind in kinds)
    return SimpleNamespace(whole=whole, meetings=lambda: pairs)


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
    """The programs whose promises are checked where checking two thousand takes 1 to 4 elements each."""
    asked: list[int] = []
    kernel = SimpleNamespace(
        elements_of_promises=lambda trips, programs: np.arange(programs) % 4 + 1,
        promises=lambda *args, programs, **options: asked.extend(programs.tolist()),
    )
    launch = SimpleNamespace(programs=2000, args=(), grid=(2000, 1, 1))
    run = SimpleNamespace(sound=lambda launch, check: check(kernel), deadline=None)
    stage: Any = SimpleNamespace(launch=launch, run=run, counted=SimpleNamespace(trips=()), memory=(), script=None)
    Stage.keep_promises(stage, random.Random(1), most)
    return asked


def test_promises_of_all_programs_are_checked_unless_that_takes_too_much() -> None:
    assert checked(5000) == list(range(2000))
    some = checked(500)
    assert 496 < sum(program % 4 + 1 for program in some) <= 500
    assert some == sorted(set(some))
    assert len({program // 200 for program in some}) == 10
    assert len(checked(0)) == 1
