"""Neighbours: kernels that differ from a candidate's in what should not matter, predicted before it is accepted.

Each has independent instructions in another order, as the compiler might have written them, and is played with other
random numbers: when CTAs and roles arrive, how long latencies and stalls are. What a score gains by such an order or by
such a rhythm is not resolved.
"""

from collections.abc import Sequence
from dataclasses import replace

from avo.evaluator.compiling.compiler import Compiler
from avo.evaluator.judging.refusal import passed
from avo.evaluator.judging.speed import CompiledPlan, Predicted
from avo.evaluator.problem import Problem
from avo.evaluator.target import Target

NEIGHBOURS = 6


def neighbours(
    compiler: Compiler, target: Target, problem: Problem, plans: Sequence[CompiledPlan]
) -> tuple[float, ...]:
    """Return the geometric mean of the predicted TFLOPS of each neighbour; raise ``Refused`` where there is none."""
    compiler.begin(closely=True)
    return predicted(target, problem, in_other_orders(compiler, target, plans, NEIGHBOURS))


def predicted(target: Target, problem: Problem, orders: Sequence[Sequence[CompiledPlan]]) -> tuple[float, ...]:
    """Return the geometric mean of the predicted TFLOPS in each order; raise ``Refused`` where there is none."""
    found = [passed(Predicted(target, luck).score(problem, plans, None)) for luck, plans in enumerate(orders, 1)]
    return tuple(score.geomean_tflops for score in found)


def in_other_orders(
    compiler: Compiler, target: Target, plans: Sequence[CompiledPlan], count: int
) -> list[list[CompiledPlan]]:
    """Return the plans ``count`` times, all kernels in other orders; raise ``Refused`` where one does not compile."""
    made = {}
    for each in plans:
        for launch in each.plan.launches:
            kernel = each.plan.kernels[launch.kernel]
            binary = each.binaries[kernel]
            if binary not in made:
                made[binary] = passed(compiler.reordered(kernel, binary, target, count))
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
