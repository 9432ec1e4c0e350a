"""Neighbours: kernels that differ from a candidate's in what should not matter, predicted before it is accepted.

Each has independent instructions in another order, as the compiler might have written them, and is played with other
random numbers: when CTAs and roles arrive, how long latencies and stalls are. What a score gains by such an order or by
such a rhythm is not resolved.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import cycle, islice

from avo.evaluator.binary import Binary
from avo.evaluator.compiling.compiler import Compiler
from avo.evaluator.compiling.residency import ctas_per_sm
from avo.evaluator.evaluation import Fault, geometric_mean
from avo.evaluator.judging.cases import Tools
from avo.evaluator.judging.speed import CompiledPlan
from avo.evaluator.performance import ModelError, predict_time
from avo.evaluator.problem import Problem
from avo.evaluator.target import Target

NEIGHBOURS = 6


def neighbours(tools: Tools, problem: Problem, plans: Sequence[CompiledPlan]) -> tuple[tuple[float, ...], ...]:
    """Return ``Score.neighbours``."""
    tools.compiler.begin(closely=True)
    return predicted(tools.target, problem, in_other_orders(tools.compiler, tools.target, plans, NEIGHBOURS))


def predicted(
    target: Target, problem: Problem, orders: Sequence[Sequence[CompiledPlan]]
) -> tuple[tuple[float, ...], ...]:
    """Return ``Score.neighbours`` for plans in these orders."""
    found = []
    for luck, order in enumerate(orders, 1):
        with suppress(ModelError):  # the model may be able to follow fewer orders
            found.append(_geomeans(target, problem, order, luck))
    return tuple(found)


def _geomeans(target: Target, problem: Problem, plans: Sequence[CompiledPlan], luck: int) -> tuple[float, ...]:
    """Return the geometric mean of TFLOPS in each joint draw. Raises ``ModelError``."""
    cases = []
    for each in plans:
        time = predict_time(each.works, target, least_bytes=problem.least_bytes(each.case), luck=luck)
        cases.append([problem.flops(each.case) / us / 1e6 for us in time.draws_us])
    return tuple(map(geometric_mean, zip(*cases, strict=True)))


def in_other_orders(
    compiler: Compiler, target: Target, plans: Sequence[CompiledPlan], count: int
) -> list[list[CompiledPlan]]:
    """Return the plans ``count`` times, all kernels in other orders. One that does not compile so is as it was.

    An order in which fewer CTAs fit an SM, or more is spilled, makes a difference, and is left out.
    """
    made = {}
    for each in plans:
        for launch in each.plan.launches:
            kernel = each.plan.kernels[launch.kernel]
            binary = each.binaries[kernel]
            if binary not in made:
                others = compiler.reordered(kernel, binary, target, count)
                made[binary] = _alike(binary, target, (binary,) * count if isinstance(others, Fault) else others)
    return [
        [
            replace(
                each,
                binaries={kernel: made[binary][order] for kernel, binary in each.binaries.items() if binary in made},
                works=tuple(replace(work, binary=made[work.binary][order]) for work in each.works),
            )
            for each in plans
        ]
        for order in range(count)
    ]


def _alike(binary: Binary, target: Target, others: Sequence[Binary]) -> list[Binary]:
    """Return as many of the orders as there are ``others``: those that take what the kernel takes, again and again."""
    own = ctas_per_sm(binary, target)
    same = [each for each in others if ctas_per_sm(each, target) == own and each.spill_bytes <= binary.spill_bytes]
    return [*islice(cycle(same or [binary]), len(others))]
