"""Kernels whose faults only a GPU shows, each followed by a correct one: is the fault found, and the other accepted?"""

import statistics
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from avo.evaluator.cuda.contender import Contender
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import Fault
from avo.evaluator.judging.speed import CompiledPlan
from avo.evaluator.problems.mha import MHA
from avo.evaluator.target import Target
from tests.evaluator.cuda import gpu_attacks
from tests.evaluator.cuda.on_gpu import CASE, LIMIT_S, plans

Start = Callable[[], Contender]
FAULTS = {
    "hangs": (gpu_attacks.HANGS, "timed_out"),
    "writes far away": (gpu_attacks.WRITES_FAR_AWAY, "crashed"),
    "reads far away": (gpu_attacks.READS_FAR_AWAY, "crashed"),
    "writes beside a buffer": (gpu_attacks.WRITES_JUST_BESIDE, "out_of_bounds"),
    "writes an input": (gpu_attacks.WRITES_AN_INPUT, "forbidden"),
    "spoils one row": (gpu_attacks.SPOILS_ONE_ROW, "incorrect"),
    "leaves NaN": (gpu_attacks.LEAVES_NAN, "incorrect"),
}
"""Sources by what is wrong with them, with the status that is right."""
TRICKS = {"evict last": gpu_attacks.KEEPS_IN_L2, "launch_pdl": gpu_attacks.STARTS_EARLY}
"""Sources that would gain from the run before, if they could."""
RUNS = 20


AHEAD = 3
"""Workers that start while others work: most of a start is importing, and each kernel gets a worker of its own."""


def try_all(target: Target, start: Start) -> Iterator[dict[str, Any]]:
    """Yield what becomes of each kernel, and of the seed after it."""
    waiting = deque(start() for _ in range(AHEAD))

    def next_one() -> Contender:
        waiting.append(start())
        return waiting.popleft()

    try:
        yield from _tried(target, next_one)
    finally:
        for each in waiting:
            each.close()


def _tried(target: Target, start: Start) -> Iterator[dict[str, Any]]:
    (right,) = plans(gpu_attacks.SEED, target, CASE)
    yield {"kernel": "the seed", **_checked(start, right)}
    for name, (source, expected) in FAULTS.items():
        (wrong,) = plans(source, target, CASE)
        yield {"kernel": name, "expected": expected, **_checked(start, wrong)}
        yield {"kernel": f"the seed after: {name}", **_checked(start, right)}
    yield {"kernel": "the seed, its worker killed", "expected": "crashed", **_checked(start, right, kill=True)}
    yield {"kernel": "the seed after: a killed worker", **_checked(start, right)}
    for name, source in {"the seed": gpu_attacks.SEED, **TRICKS}.items():
        (plan,) = plans(source, target, gpu_attacks.FITS_IN_L2)
        yield {"kernel": name, "case": gpu_attacks.FITS_IN_L2.name, **_timed(start, plan)}


def _checked(start: Start, plan: CompiledPlan, *, kill: bool = False) -> dict[str, Any]:
    def check(contender: Contender) -> Any:
        if kill:
            contender.kill()
        return contender.check(plan.case.name, 11, LIMIT_S)

    return _outcome(start, plan, check)


def _timed(start: Start, plan: CompiledPlan) -> dict[str, Any]:
    seconds: Sequence[float] = ()

    def time(contender: Contender) -> Any:
        nonlocal seconds
        timed = contender.time(plan.case.name, range(RUNS), LIMIT_S)
        if not isinstance(timed, Fault):
            seconds = [run.seconds for run in timed.runs]
        return timed

    found = _outcome(start, plan, time)
    return {**found, "median_us": statistics.median(seconds) * 1e6} if seconds else found


def _outcome(start: Start, plan: CompiledPlan, use: Callable[[Contender], Any]) -> dict[str, Any]:
    contender = start()
    try:
        outcome = contender.open(MHA, plan) or use(contender)
    except EvaluatorUnavailable as error:
        return {"status": "no verdict", "message": str(error)}
    finally:
        contender.close()
    if isinstance(outcome, Fault):
        return {"status": outcome.status, "message": outcome.message}
    return {"status": "correct", "message": ""}
