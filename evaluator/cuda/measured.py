"""Measured speed: how long a correct candidate takes on the card, and how it compares with the incumbent."""

import math
import random
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from evaluator.cuda import CASCADE, EQUIVALENCE_MARGIN
from evaluator.cuda.cards import Card
from evaluator.cuda.contender import Contender, start_worker
from evaluator.cuda.device import Clocks
from evaluator.cuda.measuring import Pair, Stopwatch, TimedCase
from evaluator.cuda.nvml import SLOWDOWN, in_words
from evaluator.cuda.sequential import ROUNDS
from evaluator.errors import EvaluatorUnavailable
from evaluator.evaluation import CaseScore, Comparison, Fault, Score, Status, Verdict, geometric_mean
from evaluator.judging.speed import Challenge, CompiledPlan, Predicted
from evaluator.problem import Problem
from evaluator.target import Target

SLOW_SHARE = 0.1
"""There is no score if heat or lack of power slowed the card down in more than this share of the runs."""


class Measured:
    """Speed on this machine's GPU.

    The small cases, each pair of a comparison, and the score get new processes: what ran before, and where code and
    buffers happen to lie, must not favour the same kernel in every comparison of a run.
    """

    def __init__(
        self,
        target: Target,
        *,
        margin: float = EQUIVALENCE_MARGIN,
        cascade: float | None = CASCADE,
        start: Callable[[], Contender] = start_worker,
        chance: random.Random | None = None,
    ) -> None:
        """``margin``: see ``EQUIVALENCE_MARGIN``; ``cascade``: see ``CASCADE``, None to time every candidate."""
        self._target, self._margin, self._cascade, self._start = target, margin, cascade, start
        self._chance = chance or random.Random(secrets.randbits(64))
        self.until = math.inf
        """The latest time at which a comparison ends, by ``time.monotonic``."""

    def score(
        self,
        problem: Problem,
        plans: Sequence[CompiledPlan],
        incumbent: Challenge | None,
        small: Sequence[CompiledPlan] = (),
    ) -> Score | Fault:
        """Return the measured score; see ``Speed.score``.

        Raises ``EvaluatorUnavailable`` when there is no GPU, it was slowed down, or the incumbent does not run on it.
        """
        predicted = self._predict(problem, plans)
        cascade = self._hopeless(problem, predicted, incumbent)
        if isinstance(cascade, Fault):
            return cascade
        card = self._check(problem, small)
        if isinstance(card, Fault):
            return card
        stopwatch = Stopwatch([_timed_case(problem, each, card) for each in plans], self._chance)
        comparison = None if incumbent is None else self._compare(stopwatch, problem, plans, incumbent)
        if isinstance(comparison, Fault):
            return comparison
        with ExitStack() as stack:
            contender = self._opened(problem, plans, stack)
            timing = contender if isinstance(contender, Fault) else stopwatch.score(contender)
        if isinstance(timing, Fault):
            return timing
        _refuse_slowdown(timing.clocks)
        cases = timing.scores
        if not isinstance(predicted, str):  # useful to a search, and no clock tells it
            cases = tuple(replace(case, critical=each.critical) for case, each in zip(cases, predicted, strict=True))
        found = (f"driver {card.driver or 'unknown'}", clocks_in_words(timing.clocks), cascade, _cut_short(comparison))
        conditions = "; ".join(filter(None, found))
        return Score(self._target.kind, self._target.name, cases, comparison, card.name, conditions)

    def _check(self, problem: Problem, small: Sequence[CompiledPlan]) -> Card | Fault:
        """Run the small cases, compare everything they wrote, and return the card that they ran on."""
        with ExitStack() as stack:
            contender = self._started(stack)
            for each in small:
                limit_s = _timed_case(problem, each, contender.card).limit_s
                fault = contender.open(problem, each)
                checked = fault or contender.check(each.case.name, self._chance.getrandbits(62), limit_s)
                if isinstance(checked, Fault):
                    return checked
                contender.forget(each.case.name)
            return contender.card

    def _compare(
        self, stopwatch: Stopwatch, problem: Problem, plans: Sequence[CompiledPlan], incumbent: Challenge
    ) -> Comparison | Fault:
        @contextmanager
        def pair() -> Iterator[Pair | Fault]:
            both = (plans, incumbent.plans)
            with ExitStack() as stack:
                opened = {i: self._opened(problem, both[i], stack) for i in self._chance.sample((0, 1), 2)}
                mine, theirs = opened[0], opened[1]
                if isinstance(theirs, Fault):
                    raise EvaluatorUnavailable(f"the incumbent fails on this GPU: {theirs.message}")
                yield mine if isinstance(mine, Fault) else (mine, theirs)

        return stopwatch.compare(pair, incumbent.plan_digest, incumbent.alpha, self._margin, self.until)

    def _opened(self, problem: Problem, plans: Sequence[CompiledPlan], stack: ExitStack) -> Contender | Fault:
        contender = self._started(stack)
        for each in plans:
            if fault := contender.open(problem, each):
                return fault
        return contender

    def _started(self, stack: ExitStack) -> Contender:
        contender = self._start()
        stack.callback(contender.close)
        return contender

    def _hopeless(
        self, problem: Problem, predicted: tuple[CaseScore, ...] | str, incumbent: Challenge | None
    ) -> Fault | str:
        """Return why the candidate is not worth timing, or in words what the cascade found."""
        if incumbent is None:
            return ""
        if self._cascade is None:
            return "cascade off"
        others = self._predict(problem, incumbent.plans)
        if isinstance(predicted, str) or isinstance(others, str):
            return f"cascade passed: {predicted if isinstance(predicted, str) else others}"
        mine, theirs = (geometric_mean([case.high_tflops for case in each]) for each in (predicted, others))
        found = f"predicted at most {mine:.4g} TFLOPS, the incumbent {theirs:.4g}, margin {self._cascade:g}"
        if mine < theirs * (1 - self._cascade):
            return Fault(Status.NOT_TIMED, f"not timed: {found}")
        return f"cascade passed: {found}"

    def _predict(self, problem: Problem, plans: Sequence[CompiledPlan]) -> tuple[CaseScore, ...] | str:
        """Return what the performance model says for this card, or why it says nothing."""
        score = Predicted(self._target).score(problem, plans, None)
        return score.message if isinstance(score, Fault) else score.cases


def _timed_case(problem: Problem, compiled: CompiledPlan, card: Card) -> TimedCase:
    flops = problem.flops(compiled.case)
    return TimedCase(compiled.case.name, flops, card.floor_s(flops, problem.least_bytes(compiled.case)))


def _cut_short(comparison: Comparison | None) -> str:
    """Return in words that a comparison ran out of time; nothing if it did not."""
    if comparison is None or comparison.verdict is not Verdict.UNDECIDED or len(comparison.log_ratios) == ROUNDS[-1]:
        return ""
    return f"out of time after {len(comparison.log_ratios)} rounds of the comparison"


def _refuse_slowdown(clocks: Sequence[Clocks]) -> None:
    """Raise ``EvaluatorUnavailable`` if heat or lack of power slowed the card down in more than ``SLOW_SHARE``."""
    slow = sum(bool(sampled.reasons & SLOWDOWN) for sampled in clocks)
    if slow > SLOW_SHARE * len(clocks):
        raise EvaluatorUnavailable(
            f"the card was slowed down in {slow} of {len(clocks)} runs ({clocks_in_words(clocks)}): "
            "check its cooling and power"
        )


def clocks_in_words(clocks: Sequence[Clocks]) -> str:
    """Return the range of the clock over timed runs and everything that ever held it down, in words."""
    if not clocks:
        return "clocks not readable"
    lowest, highest = min(c.sm_mhz for c in clocks), max(c.sm_mhz for c in clocks)
    reasons = 0
    for sampled in clocks:
        reasons |= sampled.reasons
    return f"SM clock {lowest} to {highest} MHz, held down by: {in_words(reasons)}"
