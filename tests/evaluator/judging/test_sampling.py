"""Which programs are run at benchmark shapes because they meet others in memory."""

import random
from types import SimpleNamespace
from typing import Any

import torch

from evaluator.judging import sampling


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
