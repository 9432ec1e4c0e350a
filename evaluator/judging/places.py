"""Where the examination before acceptance looks besides at the suites: at cases that are drawn, so nobody knows them.

Lengths cover the range from less than a tile's worth of rows to twice the longest of the problem's, evenly on a
logarithmic scale; half of them fill tiles. The problem draws everything else: strides, scale, number of queries, batch
and heads. Where a candidate's host code changes what it launches with the length, both sides of such lengths are looked
at too, and so is what it launches for few cases only.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise

from avo.evaluator.problem import CROWDED, Case, Problem, longest

Kinds = Callable[[Sequence[Case]], Sequence[str]]
"""Returns the kind of a candidate's plan for each case."""

SHORTEST = 128
"""The shortest length that is drawn."""
LENGTHS = 16
"""Number of cases at drawn lengths, one in each of as many equal parts of the range on a logarithmic scale."""
_GRAIN = 16
"""Lengths at which kernels are compared are multiples of this, so that Triton specialises them alike."""
_STEPS = (64, 128, 256, 512, 1024)
"""Lengths are often multiples of these, and kernels often have a way of their own for lengths that fill all tiles."""
_LINES, _CHANGES = 2, 3
"""The most structures along which host code is followed, and the most changes that are located."""
_LOOKS, _RARE = 3, 3
"""How many times as many cases are drawn to find what is launched for few only, and most of these that are taken."""
_TRIES = 20
"""Most structures that are drawn until one suits all lengths: memory may allow fewer heads at long ones."""
_PARTS = 8
"""Parts into which a range of lengths is cut each time that a change is looked for in it."""


def drawn(problem: Problem, chance: random.Random) -> list[Case]:
    """Return cases all over the range of lengths, each of a structure of its own, and one of few keys."""
    cases = _benchmark_cases(problem)
    chance.shuffle(cases)
    lengths = [*_lengths(problem, chance), chance.randint(1, CROWDED)]
    return [_named(problem.at_length(cases[i % len(cases)], length, chance)) for i, length in enumerate(lengths)]


def changes(problem: Problem, kinds: Kinds, chance: random.Random) -> list[Case]:
    """Return cases on both sides of some lengths at which the kind of the candidate's plan changes.

    ``kinds`` is asked a few times, for at most about thirty cases each; it gets them in no order.
    """
    cases = _benchmark_cases(problem)
    lines = [_line(problem, case, chance) for case in chance.sample(cases, min(_LINES, len(cases)))]
    points = sorted({_rounded(length) for length in _lengths(problem, chance)})
    steps = [step for of_line in _steps([(line, points) for line in lines], kinds, chance) for step in of_line]
    steps = chance.sample(steps, min(len(steps), _CHANGES))
    while any(step.high - step.low > _GRAIN for step in steps):
        found = _steps([(step.line, _between(step.low, step.high)) for step in steps], kinds, chance)
        steps = [chance.choice(closer) for closer in found if closer]
    cases = [step.line.at(step.low - chance.randrange(_GRAIN)) for step in steps]
    return [*cases, *(step.line.at(step.high + chance.randrange(_GRAIN)) for step in steps)]


def rare(problem: Problem, kinds: Kinds, common: Sequence[Case], chance: random.Random) -> list[Case]:
    """Return some cases for which the candidate's plan is of another kind than for all ``common`` ones.

    ``kinds`` should tell kernels apart and not their arguments, which differ with every structure.
    """
    cases = [*common, *(case for _ in range(_LOOKS) for case in drawn(problem, chance))]
    chance.shuffle(cases)
    known = dict(zip(cases, kinds(cases), strict=True))
    usual = {known[case] for case in common}
    found = {kind: case for case, kind in known.items() if kind not in usual}
    return chance.sample(list(found.values()), min(len(found), _RARE))


@dataclass(frozen=True)
class _Line:
    """Cases of one structure, which differ in their lengths."""

    problem: Problem
    case: Case
    seed: int

    def at(self, length: int) -> Case:
        return _named(self.problem.at_length(self.case, length, random.Random(self.seed)))


def _line(problem: Problem, case: Case, chance: random.Random) -> _Line:
    """Return a line along which, if it can be had, only lengths change."""
    ends = SHORTEST, longest(problem)
    for _ in range(_TRIES):
        line = _Line(problem, case, chance.getrandbits(62))
        few, many = (replace(line.at(length), name="", q_len=1, kv_len=1) for length in ends)
        if few == many:
            break
    return line


@dataclass(frozen=True)
class _Step:
    """Two lengths between which the kind of plan changes along a line."""

    line: _Line
    low: int
    high: int


def _steps(ranges: Sequence[tuple[_Line, Sequence[int]]], kinds: Kinds, chance: random.Random) -> list[list[_Step]]:
    """Return, for each range, its neighbouring lengths with plans of different kinds."""
    cases = list(dict.fromkeys(line.at(length) for line, points in ranges for length in points))
    chance.shuffle(cases)
    known = dict(zip(cases, kinds(cases), strict=True))
    return [
        [_Step(line, *both) for both in pairwise(points) if len({known[line.at(length)] for length in both}) > 1]
        for line, points in ranges
    ]


def _between(low: int, high: int) -> list[int]:
    """Return lengths from ``low`` to ``high``, in about equal steps."""
    return sorted({low, high, *(_rounded(low + (high - low) * i / _PARTS) for i in range(1, _PARTS))})


def _lengths(problem: Problem, chance: random.Random) -> list[int]:
    """Return a length from each part of the range, or the multiple of a power of two that is nearest to it."""
    most = longest(problem)
    lengths = [int(SHORTEST * (most / SHORTEST) ** ((i + chance.random()) / LENGTHS)) for i in range(LENGTHS)]
    steps = [[step for step in _STEPS if 2 * step <= length] or [1] for length in lengths]
    return [
        _rounded(length, chance.choice(fitting)) if chance.random() < 0.5 else length
        for length, fitting in zip(lengths, steps, strict=True)
    ]


def _rounded(length: float, step: int = _GRAIN) -> int:
    return max(round(length / step), 1) * step


def _benchmark_cases(problem: Problem) -> list[Case]:
    return list(dict.fromkeys(chain.from_iterable(problem.suites.values())))


def _named(case: Case) -> Case:
    """Return ``case`` with a name that says how it was drawn, for messages when all is over."""
    mask, scale = "causal" if case.causal else "full", f", scale {case.scale:.3g}" if case.scale else ""
    heads = f"{case.batch} x {case.heads}/{case.kv_heads} heads"
    return replace(case, name=f"{case.q_len} queries, {case.kv_len} keys, {heads}, {mask}, {case.layout}{scale}")
