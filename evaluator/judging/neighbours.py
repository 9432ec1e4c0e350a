"""Neighbours: kernels that differ from a candidate's in what should not matter, predicted before it is accepted.

Each has independent instructions in another order, as the compiler might have written them, and is played with other
random numbers: when CTAs and roles arrive, how long latencies and stalls are. What a score gains by such an order or by
such a rhythm is not resolved.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import cycle, islice

from avo.evaluator.binary import Binary
from avo.evaluator.compiling.compiler import Compiler
from avo.evaluator.compiling.residency import ctas_per_sm
from avo.evaluator.evaluation import Fault, Score, geometric_mean
from avo.evaluator.judging.speed import CompiledPlan, Predicted
from avo.evaluator.problem import Problem
from avo.evaluator.resolution import standard_error
from avo.evaluator.target import Target

_BATCH = 6
"""Neighbours that are made at a time."""
_MOST = 24
_SURE = 0.0025
"""Standard error of the mean of the logarithms of their speeds with which no more are made."""


def neighbours(
    compiler: Compiler, target: Target, problem: Problem, plans: Sequence[CompiledPlan]
) -> tuple[tuple[float, ...], ...]:
    """Return ``Score.neighbours``: six, or as many more as it takes to know their mean, up to 24."""
    compiler.begin(closely=True)
    return settled(target, problem, in_other_orders(compiler, target, plans))


def settled(
    target: Target, problem: Problem, batches: Iterable[Sequence[Sequence[CompiledPlan]]]
) -> tuple[tuple[float, ...], ...]:
    """Return ``Score.neighbours`` for plans in batches of other orders, of which it takes as many as are needed."""
    found: list[tuple[float, ...]] = []
    for number, orders in enumerate(batches):
        for luck, plans in enumerate(orders, number * _BATCH + 1):
            score = Predicted(target, luck).score(problem, plans, None)
            if isinstance(score, Score):  # the model may be able to follow fewer orders
                found.append(tuple(map(geometric_mean, zip(*(case.draws for case in score.cases), strict=True))))
        if standard_error(found) <= _SURE:
            break
    return tuple(found)


def in_other_orders(
    compiler: Compiler, target: Target, plans: Sequence[CompiledPlan]
) -> Iterator[list[list[CompiledPlan]]]:
    """Make batches of the plans with all kernels in other orders. One that does not compile so is as it was.

    An order in which fewer CTAs fit an SM, or more is spilled, makes a difference, and is left out.
    """
    for first in range(0, _MOST, _BATCH):
        yield _batch(compiler, target, plans, range(first, first + _BATCH))


def _batch(compiler: Compiler, target: Target, plans: Sequence[CompiledPlan], seeds: range) -> list[list[CompiledPlan]]:
    made = {}
    for each in plans:
        for launch in each.plan.launches:
            kernel = each.plan.kernels[launch.kernel]
            binary = each.binaries[kernel]
            if binary not in made:
                others = compiler.reordered(kernel, binary, target, seeds)
                made[binary] = _alike(binary, target, (binary,) * len(seeds) if isinstance(others, Fault) else others)
    return [
        [
            replace(
                each,
                binaries={kernel: made[binary][order] for kernel, binary in each.binaries.items() if binary in made},
                works=tuple(replace(work, binary=made[work.binary][order]) for work in each.works),
            )
            for each in plans
        ]
        for order in range(len(seeds))
    ]


def _alike(binary: Binary, target: Target, others: Sequence[Binary]) -> list[Binary]:
    """Return as many of the orders as there are ``others``: those that take what the kernel takes, again and again."""
    own = ctas_per_sm(binary, target)
    same = [each for each in others if ctas_per_sm(each, target) == own and each.spill_bytes <= binary.spill_bytes]
    return [*islice(cycle(same or [binary]), len(others))]
