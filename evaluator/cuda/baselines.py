"""The speed of libraries on this card: each has a worker of its own, and is timed and verified as candidates are.

A library returns tensors of its own, which are compared after the clock has stopped. Most libraries do not return lse:
it is computed here, so only their out is judged. In a backward pass the gradients alone are timed, from an out that the
library computed before. None of this has run on a GPU yet.
"""

import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial

from avo.evaluator.cuda.contender import Contender
from avo.evaluator.cuda.device import Clocks
from avo.evaluator.cuda.libraries import Library
from avo.evaluator.cuda.measured import conditions
from avo.evaluator.cuda.measuring import Stopwatch, Timing, alike
from avo.evaluator.cuda.protocol import TimedCase
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import CaseScore, Fault
from avo.evaluator.evaluators import Progress, Tell
from avo.evaluator.problem import Case, Problem

FIRST_S = 120.0
"""How long a library may be imported, and run a case a first time, for which it may compile."""


@dataclass(frozen=True)
class Found:
    """What was found about one library."""

    name: str
    version: str
    cases: tuple[CaseScore, ...] = ()
    conditions: str = ""
    trouble: str = ""
    """Why figures are missing; nothing where none are."""


def measure(
    start: Callable[[], Contender],
    problem: Problem,
    cases: Sequence[Case],
    library: Library,
    chance: random.Random,
    *,
    sustained: bool = True,
    tell: Tell = lambda progress: None,
) -> Found:
    """Return the speed of ``library`` on ``cases``: all those that it computes, whatever it does with others.

    ``start`` returns a worker that is starting: the next one where a case has ended the last. ``tell`` hears which case
    is timed.
    """
    workers: list[Contender] = []
    scores: list[CaseScore] = []
    clocks: list[Clocks] = []
    failed: dict[str, list[str]] = {}
    ungraphed = ""
    scored: Contender | None = None

    def timed(case: Case, stack: ExitStack) -> Timing | Fault:
        nonlocal ungraphed
        if not workers or workers[-1].ended:
            workers.append(stack.enter_context(closing(start())))
        worker = workers[-1]
        stopwatch = Stopwatch([TimedCase.of(problem, case, worker.card)], chance, sustained=sustained)
        stopwatch.ungraphed = ungraphed
        fault = worker.call(problem, case, library.name, case.name, FIRST_S)
        first = fault or worker.time(case.name, [chance.getrandbits(62)], FIRST_S, graph=False)
        try:
            return first if isinstance(first, Fault) else stopwatch.score(worker)
        finally:
            ungraphed = stopwatch.ungraphed

    with ExitStack() as stack:
        for number, case in enumerate(cases):
            tell(Progress(number, len(cases), f"{library.name}, {case.name}"))
            try:
                timing = alike(partial(timed, case, stack))
            except EvaluatorUnavailable as error:
                failed.setdefault(str(error), []).append(case.name)
                if not workers or workers[-1].ended:  # the machine's fault, which the next worker meets, too
                    break
                continue
            if isinstance(timing, Fault):
                failed.setdefault(timing.message.removeprefix(f"case {case.name}: "), []).append(case.name)
            else:
                scored = workers[-1]
                scores += timing.scores
                clocks += timing.clocks
        told = ""
        if scored:
            told = conditions(scored.card, scored.setup, clocks, sustained=sustained, ungraphed=ungraphed)
    trouble = "; ".join(f"{', '.join(names)}: {why}" for why, names in failed.items())
    return Found(library.name, library.release or "not installed", tuple(scores), told, trouble)
