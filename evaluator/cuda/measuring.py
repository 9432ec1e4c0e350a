"""The timing protocol, independent of any GPU: who runs when, how often and on what, and how times become scores."""

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from avo.evaluator.cuda.contender import Contender
from avo.evaluator.cuda.device import Clocks, Timed
from avo.evaluator.cuda.protocol import STRETCH_S, Lags, TimedCase
from avo.evaluator.cuda.sequential import BLOCK, ROUNDS, between, decide
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import CaseScore, Comparison, Fault, Verdict
from avo.evaluator.evaluators import Progress, Tell

RUNS = 24
"""Timed runs of each case for a score, in ``PASSES`` passes over all cases."""
PASSES = 3
MOST_WARMUPS = 3
"""Runs that count follow one to this many warm-up runs, a random number; a kernel cannot tell which is which."""
Pair = tuple[Contender, Contender]
"""Candidate and incumbent, both ready to run all cases."""
T = TypeVar("T")


@dataclass(frozen=True)
class Timing:
    """The scores of a candidate, and the clocks that the card ran at."""

    scores: tuple[CaseScore, ...]
    clocks: tuple[Clocks, ...]


@dataclass(frozen=True)
class Audience:
    """Who hears what is measured, while it is."""

    tell: Tell = lambda progress: None
    """Hears what is being done, and how far it is."""
    keep: Callable[[Mapping[str, Any]], None] = lambda row: None
    """Gets the runs of every request: ``part``, ``round``, ``side``, ``case``, ``warmups``, ``runs`` and ``clocks``."""


class Ungraphed(Exception):
    """A contender's work could not be recorded as a graph, so all is timed anew without, and in new processes: its own
    has ended.
    """


def alike(attempt: Callable[[], T]) -> T:
    """Return what ``attempt`` finds; where a graph fails in it, what it then finds without any."""
    try:
        return attempt()
    except Ungraphed:
        return attempt()


@dataclass
class _Rounds:
    """What the rounds of a comparison have found so far."""

    ratios: list[float] = field(default_factory=list)
    against_itself: list[float] = field(default_factory=list)
    lags: tuple[Lags, Lags] = field(default_factory=lambda: (Lags(), Lags()))

    def progress(self, what: str, until: float) -> Progress:
        """Return where the next round is, at ``what``, with the ratio, its standard error, and the time left."""
        count = len(self.ratios)
        words = f"round {count + 1} of at most {ROUNDS[-1]}, {what}"
        if count:
            ratio = math.exp(statistics.fmean(self.ratios))
            error = f" ± {ratio * statistics.stdev(self.ratios) / math.sqrt(count):.4f}" if count > 1 else ""
            words += f", {ratio:.4f}{error} times as fast as the incumbent"
        if until < math.inf:
            words += f", {max(0.0, until - time.monotonic()):.0f} s left"
        return Progress(count, ROUNDS[-1], words)


class Stopwatch:
    """Times contenders on the same cases. ``chance`` draws what no kernel may foresee.

    ``sustained``: each kernel runs for ``STRETCH_S`` before each of its runs, instead of some warm-up runs. If the work
    of one contender cannot be recorded as a graph, all are timed without; ``ungraphed`` then says why.

    Raises ``EvaluatorUnavailable`` where the machine's clocks disagree; they are not compared with ``trusting``.
    """

    def __init__(
        self,
        cases: Sequence[TimedCase],
        chance: random.Random,
        *,
        sustained: bool = True,
        trusting: bool = False,
        audience: Audience | None = None,
    ) -> None:
        self._cases = tuple(cases)
        self._chance = chance
        self._sustained, self._trusting, self._audience = sustained, trusting, audience or Audience()
        self.ungraphed = ""

    def score(self, contender: Contender, passes: int = PASSES) -> Timing | Fault:
        """Time ``RUNS`` runs of every case in ``PASSES`` passes, in fewer passes fewer, the cases in random order in
        each. Raises ``Ungraphed`` once.
        """
        seconds: dict[str, list[float]] = {case.name: [] for case in self._cases}
        clocks: list[Clocks] = []
        lags = Lags()
        began, done, of = time.monotonic(), 0, passes * len(self._cases)
        for number in range(1, passes + 1):
            for case in self._shuffled():
                left_s = (time.monotonic() - began) * (of - done) / max(1, done)
                left = f", about {left_s:.0f} s left" if done else ""
                words = f"timing {case.name} for the score, pass {number} of {passes}{left}"
                self._audience.tell(Progress(done, of, words))
                done += 1
                told = {"part": "score", "round": number, "side": "candidate"}
                timed = self._time(contender, case, RUNS // PASSES, lags, told)
                if isinstance(timed, Fault):
                    return timed
                seconds[case.name] += [run.seconds for run in timed.runs]
                clocks += timed.clocks
        if not self._trusting:
            lags.check()
        return Timing(tuple(case.score(seconds[case.name]) for case in self._cases), tuple(clocks))

    def compare(
        self,
        start: Callable[[], AbstractContextManager[Pair | Fault]],
        plan_digest: str,
        alpha: float,
        margin: float,
        until: float = math.inf,
        least: int = 0,
    ) -> Comparison | Fault:
        """Time candidate and incumbent in turn until ``decide`` has a verdict after ``least`` rounds or more, or
        ``time.monotonic`` reaches ``until``.

        Stopping early makes no verdict less certain. See ``Comparison``.

        ``start`` gives a new pair, or the candidate's fault; ``plan_digest`` is the incumbent's. Raises
        ``EvaluatorUnavailable`` when the incumbent fails, which is not the candidate's fault.
        """
        found = alike(lambda: self._rounds(start, alpha, margin, until, least))
        if isinstance(found, Fault):
            return found
        rounds, verdict = found
        for each in () if self._trusting else rounds.lags:
            each.check()
        ratios, same = tuple(rounds.ratios), tuple(rounds.against_itself)
        return Comparison(plan_digest, alpha, ratios, verdict, same, between(ratios))

    def _rounds(
        self,
        start: Callable[[], AbstractContextManager[Pair | Fault]],
        alpha: float,
        margin: float,
        until: float,
        least: int,
    ) -> tuple[_Rounds, Verdict] | Fault:
        found = _Rounds()
        while True:
            self._audience.tell(found.progress("starting new processes", until))
            with start() as pair:
                if isinstance(pair, Fault):
                    return pair
                for _ in range(BLOCK):
                    if fault := self._round(pair, found, until):
                        return fault
            verdict = decide(found.ratios, alpha, margin)
            decided = verdict is not Verdict.UNDECIDED and len(found.ratios) >= least
            if decided or len(found.ratios) == ROUNDS[-1] or time.monotonic() > until:
                return found, verdict

    def _round(self, pair: Pair, found: _Rounds, until: float) -> Fault | None:
        """Add the mean over cases of log(incumbent's time / candidate's time), A-B-B-A or B-A-A-B in each."""
        logs, same = [], []
        for case in self._shuffled():
            self._audience.tell(found.progress(case.name, until))
            first = self._chance.randrange(2)
            took: tuple[list[float], list[float]] = [], []
            for i in (first, 1 - first, 1 - first, first):
                told = {"part": "comparison", "round": len(found.ratios) + 1, "side": ("candidate", "incumbent")[i]}
                timed = self._time(pair[i], case, 1, found.lags[i], told)
                if isinstance(timed, Fault):
                    if i == 0:
                        return timed
                    raise EvaluatorUnavailable(f"the incumbent fails on this GPU: {timed.message}")
                took[i].append(timed.runs[0].seconds)
            logs += [math.log(theirs / mine) for mine, theirs in zip(*took, strict=True)]
            same.append(math.log(took[1][0] / took[1][1]))
        found.ratios.append(statistics.fmean(logs))
        found.against_itself.append(statistics.fmean(same))
        return None

    def _time(
        self, contender: Contender, case: TimedCase, runs: int, lags: Lags, told: Mapping[str, Any]
    ) -> Timed | Fault:
        warmups = 0 if self._sustained else self._chance.randint(1, MOST_WARMUPS)
        stretch_s = STRETCH_S * self._chance.uniform(0.8, 1.2) if self._sustained else 0.0
        seeds = [self._chance.getrandbits(62) for _ in range(warmups + runs)]
        timed = contender.time(case.name, seeds, case.limit_s, stretch_s, not self.ungraphed)
        if isinstance(timed, Fault):
            return timed
        row = {"case": case.name, "warmups": warmups, "stretch_s": stretch_s, **asdict(timed)}
        self._audience.keep({**told, **row})
        if timed.ungraphed and not self.ungraphed:
            self.ungraphed = timed.ungraphed
            raise Ungraphed
        if fault := case.impossible([run.seconds for run in timed.runs]):
            return fault
        lags.note(timed)
        return Timed(timed.runs[warmups:], timed.clocks[-runs:])

    def _shuffled(self) -> list[TimedCase]:
        return self._chance.sample(self._cases, len(self._cases))
