"""Measured speed: how long a correct candidate takes on the card, and how it compares with the incumbent."""

import math
import random
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, replace
from datetime import UTC, datetime

from avo.evaluator.cuda.cards import Card
from avo.evaluator.cuda.contender import Contender, start_worker
from avo.evaluator.cuda.device import Clocks, Setup
from avo.evaluator.cuda.measuring import PASSES, Audience, Pair, Stopwatch, Timing, alike
from avo.evaluator.cuda.nvml import SLOWDOWN, in_words
from avo.evaluator.cuda.protocol import TimedCase
from avo.evaluator.cuda.sequential import ROUNDS
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import CaseScore, Comparison, Fault, Score, Status, Verdict, geometric_mean
from avo.evaluator.evaluators import CASCADE, EQUIVALENCE_MARGIN, Progress
from avo.evaluator.judging.planning import digest_of
from avo.evaluator.judging.speed import Challenge, CompiledPlan, Predicted
from avo.evaluator.problem import Problem
from avo.evaluator.target import Target

SLOW_SHARE = 0.1
"""There is no score if heat or lack of power slowed the card down in more than this share of the runs."""


class Measured:
    """Speed on this machine's GPU.

    The small cases, each pair of a comparison, and the score get new processes: what ran before, and where code and
    buffers happen to lie, must not favour the same kernel in every comparison of a run. The next ones import what they
    need while others run, and touch the GPU when they are used: most of a process's start is importing.
    """

    def __init__(
        self,
        target: Target,
        *,
        margin: float = EQUIVALENCE_MARGIN,
        cascade: float | None = CASCADE,
        start: Callable[[], Contender] = start_worker,
        chance: random.Random | None = None,
        sustained: bool = True,
        profiler: str = "",
        audience: Audience | None = None,
        turn: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """``margin``: see ``EQUIVALENCE_MARGIN``; ``cascade``: see ``CASCADE``, None to time every candidate.

        ``start`` returns a process that is starting; ``sustained``: see ``Stopwatch``; ``profiler``: what the processes
        run under, so that their times mean nothing; ``turn`` returns a context in which no other judge uses the card.
        """
        self._target, self._margin, self._cascade, self._start = target, margin, cascade, start
        self._chance = chance or random.Random(secrets.randbits(64))
        self._sustained, self._profiler, self._audience = sustained, profiler, audience or Audience()
        self._turn = turn
        self._starting: deque[Contender] = deque()
        self.until = math.inf
        """The latest time at which a comparison ends, by ``time.monotonic``."""
        self.compare_s = math.inf
        """How long a comparison may take."""
        self.least_rounds = 0
        """How many rounds a comparison has where there is time, whatever the first ones show."""

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
        self._start_ahead(1)  # it imports while others have the card
        with self._turn():
            found = self._scored(problem, plans, incumbent, small, predicted, cascade)
            if isinstance(found, Fault) and found.status is Status.CRASHED:
                self._check_card(problem, incumbent, found)
            return found

    def _check_card(self, problem: Problem, incumbent: Challenge | None, crash: Fault) -> None:
        """Raise ``EvaluatorUnavailable`` if what ran before a candidate's crash does not run after it: in a new process
        the empty kernel, and the incumbent, if there is one.
        """
        with ExitStack() as stack:
            contender = self._started(stack)
            card = contender.card
            if incumbent is None:
                return
            first, *_ = incumbent.plans
            limit_s, seeds = TimedCase.of(problem, first.case, card).limit_s, [self._chance.getrandbits(62)]
            ran = contender.open(problem, first) or contender.time(first.case.name, seeds, limit_s, graph=False)
        if isinstance(ran, Fault):
            raise EvaluatorUnavailable(
                f"the card runs nothing any more: after a candidate crashed ({crash.message}), the incumbent does not "
                f"run either: {ran.message}: nvidia-smi --gpu-reset, or restart the machine"
            )

    def _scored(
        self,
        problem: Problem,
        plans: Sequence[CompiledPlan],
        incumbent: Challenge | None,
        small: Sequence[CompiledPlan],
        predicted: tuple[CaseScore, ...] | str,
        cascade: str,
    ) -> Score | Fault:
        card = self._check(problem, small, ahead=2 if incumbent else 1)
        if isinstance(card, Fault):
            return card
        self._audience.keep(
            {
                "part": "evaluation",
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "card": asdict(card),
                "problem": problem.name,
                "plans": digest_of([[each.plan for each in plans]]),
                "incumbent": incumbent and incumbent.plan_digest,
            }
        )
        stopwatch = Stopwatch(
            [TimedCase.of(problem, each.case, card) for each in plans],
            self._chance,
            sustained=self._sustained,
            trusting=bool(self._profiler),
            audience=self._audience,
        )
        comparison = None if incumbent is None else self._compare(stopwatch, problem, plans, incumbent)
        if isinstance(comparison, Fault):
            return comparison
        passes = PASSES if comparison is None or comparison.verdict is Verdict.FASTER else 1  # nobody cites a loser's
        timed = alike(lambda: self._timed(stopwatch, problem, plans, passes))
        if isinstance(timed, Fault):
            return timed
        setup, timing = timed
        _refuse_slowdown(timing.clocks)
        cases = timing.scores
        if not isinstance(predicted, str):  # useful to a search, and no clock tells it
            cases = tuple(replace(case, critical=each.critical) for case, each in zip(cases, predicted, strict=True))
        found = (
            f"under {self._profiler}: these times mean nothing" if self._profiler else "",
            conditions(card, setup, timing.clocks, sustained=self._sustained, ungraphed=stopwatch.ungraphed),
            cascade,
            _cut_short(comparison),
        )
        told = "; ".join(filter(None, found))
        return Score(self._target.kind, self._target.name, cases, comparison, card.name, told)

    def _timed(
        self, stopwatch: Stopwatch, problem: Problem, plans: Sequence[CompiledPlan], passes: int
    ) -> tuple[Setup, Timing] | Fault:
        """Time the score in a new process."""
        with ExitStack() as stack:
            contender = self._opened(problem, plans, stack)
            if isinstance(contender, Fault):
                return contender
            timing = stopwatch.score(contender, passes)
            return timing if isinstance(timing, Fault) else (contender.setup, timing)

    def _check(self, problem: Problem, small: Sequence[CompiledPlan], ahead: int) -> Card | Fault:
        """Run the small cases, compare everything they wrote, and return the card that they ran on.

        Meanwhile ``ahead`` processes start.
        """
        with ExitStack() as stack:
            contender = self._started(stack)
            self._start_ahead(ahead)
            for number, each in enumerate(small):
                self._audience.tell(Progress(number, len(small), f"checking {each.case.name} on the GPU"))
                limit_s = TimedCase.of(problem, each.case, contender.card).limit_s
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
                self._start_ahead(2)
                mine, theirs = opened[0], opened[1]
                if isinstance(theirs, Fault):
                    raise EvaluatorUnavailable(f"the incumbent fails on this GPU: {theirs.message}")
                yield mine if isinstance(mine, Fault) else (mine, theirs)

        until = min(self.until, time.monotonic() + self.compare_s)
        return stopwatch.compare(pair, incumbent.plan_digest, incumbent.alpha, self._margin, until, self.least_rounds)

    def _opened(self, problem: Problem, plans: Sequence[CompiledPlan], stack: ExitStack) -> Contender | Fault:
        contender = self._started(stack)
        for each in plans:
            if fault := contender.open(problem, each):
                return fault
        return contender

    def _started(self, stack: ExitStack) -> Contender:
        self._start_ahead(1)
        contender = self._starting.popleft()
        stack.callback(contender.close)
        return contender

    def _start_ahead(self, count: int) -> None:
        """Let ``count`` processes start or be ready; one that is not used now serves the next candidate."""
        while len(self._starting) < count:
            self._starting.append(self._start())

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


def conditions(card: Card, setup: Setup, clocks: Sequence[Clocks], *, sustained: bool, ungraphed: str) -> str:
    """Return in words what times depend on besides the kernel; ``ungraphed``: why they are not those of graphs."""
    parts = (
        f"driver {card.driver or 'unknown'}, {setup.versions}",
        "sustained clock" if sustained else "burst clock",
        clocks_in_words(clocks),
        setup_in_words(setup),
        f"without a CUDA graph: {ungraphed}" if ungraphed else "",
    )
    return "; ".join(filter(None, parts))


def clocks_in_words(clocks: Sequence[Clocks]) -> str:
    """Return the range of the clock over timed runs and everything that ever held it down, in words."""
    if not clocks:
        return "clocks not readable"
    mhz = [c.sm_mhz if c.mean_mhz is None else c.mean_mhz for c in clocks]
    reasons = 0
    for sampled in clocks:
        reasons |= sampled.reasons
    parts = [f"SM clock {min(mhz):.0f} to {max(mhz):.0f} MHz", f"held down by: {in_words(reasons)}"]
    celsius = [sampled.celsius for sampled in clocks if sampled.celsius is not None]
    parts.append(f"{min(celsius)} to {max(celsius)} C" if celsius else "temperature not readable")
    watts = [sampled.watts for sampled in clocks if sampled.watts is not None]
    parts.append(f"{min(watts):.0f} to {max(watts):.0f} W" if watts else "power not readable")
    if others := sorted({each for sampled in clocks for each in sampled.others}):
        parts.append(f"others on the card: {', '.join(others)}")
    return ", ".join(parts)


def setup_in_words(setup: Setup) -> str:
    """Return the power limit, and what is in every time besides the kernel."""
    limit = "not readable" if setup.power_limit_w is None else f"{setup.power_limit_w:.0f} W"
    return f"power limit {limit}, {setup.overhead_s * 1e6:.1f} us of each time is what an empty graph takes"
