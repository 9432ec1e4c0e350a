"""Refuses plans that keep sums in memory narrower than float32: tolerances are those of sums that are rounded once."""

from collections import defaultdict
from functools import lru_cache
from itertools import product

from avo.evaluator import executor
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.executor.pointers import behind
from avo.evaluator.executor.sums import Flow, flows
from avo.evaluator.judging.execution import PlanRun
from avo.evaluator.judging.refusal import Refused
from avo.evaluator.plan import Launch

MOST_ROUNDINGS = 4
"""How often what ends in a buffer may be stored in narrow numbers on its way, such as partial sums that are combined:
independent roundings add up in squares, so that so many leave twice the error of one, which is the tolerance."""
_NARROW = ("bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")


@lru_cache(maxsize=64)
def _flows(kernel: executor.Kernel) -> tuple[Flow, ...]:
    return flows(kernel.function)


def check_roundings(run: PlanRun) -> None:
    """Raise ``Refused`` where narrow memory is added to, or sums are rounded more than ``MOST_ROUNDINGS`` times.

    Whatever a kernel may do counts, at any length. A buffer counts as one place.
    """
    rounded: defaultdict[int, int] = defaultdict(int)
    for launch in run.plan.launches:
        kernel, before = run.attempt(launch, lambda kernel: kernel), None
        while before != rounded:
            before = rounded.copy()
            for flow in _flows(kernel):
                _follow(run, launch, kernel, flow, rounded)


def _follow(run: PlanRun, launch: Launch, kernel: executor.Kernel, flow: Flow, rounded: defaultdict[int, int]) -> None:
    """Count the roundings along a flow of a launch once, by buffer."""
    sources, targets = (behind(kernel.function, {param}, launch.args) for param in (flow.source, flow.target))
    for source, target in product(sources, targets):
        narrow, before = (run.plan.buffers[buffer].dtype in _NARROW for buffer in (target, source))
        narrow |= flow.item_bytes < 4 or flow.packed
        times = rounded[source] + (narrow and (flow.summed or not before))
        if times > MOST_ROUNDINGS:
            what = f"adds to {run.plan.buffers[target].name!r} in numbers narrower than float32, rounding each time"
            message = f"kernel {kernel.name} {what}, at {flow.location}: sum in float32, and round the sum once"
            raise Refused(Fault(Status.INCORRECT, message))
        rounded[target] = max(rounded[target], times)
