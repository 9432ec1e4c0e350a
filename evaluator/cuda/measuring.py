"""The timing protocol, independent of any GPU: who runs when, how often and on what, and how times become scores."""

import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from evaluator.cuda.contender import Contender, Timed
from evaluator.cuda.device import Clocks, Took
from evaluator.cuda.sequential import ROUNDS, decide
from evaluator.errors import EvaluatorUnavailable
from evaluator.evaluation import CaseScore, Comparison, Fault, Status, Verdict

RUNS = 24
"""Timed runs of each case for a score, in ``PASSES`` passes over all cases."""
PASSES = 3
MOST_WARMUPS = 3
"""Runs that count follow one to this many warm-up runs, a random number; a kernel cannot tell which is which."""
SAME_PAIR = 16
"""Rounds of a comparison that one pair of processes runs. Where code and buffers happen to lie in a process affects all
its rounds; the next pair draws again."""
LAG_S, LAG = 2e-4, 0.1
"""How much longer a run may take by the host's clock than by the device's events: seconds, plus a share of the run."""
Pair = tuple[Contender, Contender]
"""Candidate and incumbent, both ready to run all cases."""
ROOFLINES = 200.0
"""A run that takes this many times its roofline counts as hanging; the limit is kept between the two below."""
LEAST_LIMIT_S, MOST_LIMIT_S = 0.5, 20.0


@dataclass(frozen=True)
class TimedCase:
    """One case to run."""

    name: str
    flops: int
    floor_s: float
    """No run is faster than this: see ``Card.floor_s``."""

    @property
    def limit_s(self) -> float:
        """How long one run may take."""
        return min(MOST_LIMIT_S, max(LEAST_LIMIT_S, ROOFLINES * self.floor_s))

    def impossible(self, seconds: Sequence[float]) -> Fault | None:
        """Return a fault if some run took less time than the card's peak allows."""
        fastest = min(seconds)
        if fastest >= self.floor_s:
            return None
        message = f"took {fastest * 1e6:.1f} us, less than the {self.floor_s * 1e6:.1f} us of its roofline on this card"
        return Fault(Status.INCORRECT, f"case {self.name}: {message}: part of the work is missing")

    def score(self, seconds: Sequence[float]) -> CaseScore:
        """Return the median speed, with the quartiles as its range."""
        quarter, median, three_quarters = statistics.quantiles(seconds, n=4, method="inclusive")
        tflops = [self.flops / time / 1e12 for time in (three_quarters, median, quarter)]
        return CaseScore(self.name, tflops[1], median * 1e6, limiter="", low_tflops=tflops[0], high_tflops=tflops[2])


@dataclass(frozen=True)
class Timing:
    """The scores of a candidate, and the clocks that the card ran at."""

    scores: tuple[CaseScore, ...]
    clocks: tuple[Clocks, ...]


class _Lags:
    """Whether two clocks agree on the runs of one contender."""

    def __init__(self) -> None:
        self._late: list[bool] = []

    def note(self, runs: Sequence[Took]) -> None:
        """Count runs."""
        self._late += [run.wall_s > run.seconds * (1 + LAG) + LAG_S for run in runs]

    def check(self) -> None:
        """Raise ``EvaluatorUnavailable`` if most runs took much longer by the host's clock.

        A busy host may be late now and then. A kernel that can reach the events' memory can make them say anything.
        """
        if 2 * sum(self._late) > len(self._late):
            raise EvaluatorUnavailable(
                "most runs take longer by the host's clock than by the GPU's events: "
                "the machine is too busy to measure on, or a kernel changes what the events say"
            )


class Stopwatch:
    """Times contenders on the same cases. ``chance`` draws what no kernel may foresee.

    Raises ``EvaluatorUnavailable`` where the machine's clocks disagree.
    """

    def __init__(self, cases: Sequence[TimedCase], chance: random.Random) -> None:
        self._cases = tuple(cases)
        self._chance = chance

    def score(self, contender: Contender) -> Timing | Fault:
        """Time ``RUNS`` runs of every case, the cases in random order in each pass."""
        seconds: dict[str, list[float]] = {case.name: [] for case in self._cases}
        clocks: list[Clocks] = []
        lags = _Lags()
        for _ in range(PASSES):
            for case in self._shuffled():
                timed = self._time(contender, case, RUNS // PASSES, lags)
                if isinstance(timed, Fault):
                    return timed
                seconds[case.name] += [run.seconds for run in timed.runs]
                clocks += timed.clocks
        lags.check()
        return Timing(tuple(case.score(seconds[case.name]) for case in self._cases), tuple(clocks))

    def compare(
        self,
        start: Callable[[], AbstractContextManager[Pair | Fault]],
        plan_digest: str,
        alpha: float,
        margin: float,
        until: float = math.inf,
    ) -> Comparison | Fault:
        """Time candidate and incumbent in turn until ``decide`` has a verdict or ``time.monotonic`` reaches ``until``.

        Stopping early makes no verdict less certain. See ``Comparison``.

        ``start`` gives a new pair, or the candidate's fault; ``plan_digest`` is the incumbent's. Raises
        ``EvaluatorUnavailable`` when the incumbent fails, which is not the candidate's fault.
        """
        ratios: list[float] = []
        lags = _Lags(), _Lags()
        verdict, done = Verdict.UNDECIDED, False
        while not done:
            with start() as pair:
                if isinstance(pair, Fault):
                    return pair
                for _ in range(SAME_PAIR):
                    ratio = self._round(pair, lags)
                    if isinstance(ratio, Fault):
                        return ratio
                    ratios.append(ratio)
                    if len(ratios) in ROUNDS:
                        verdict = decide(ratios, alpha, margin)
                        done = verdict is not Verdict.UNDECIDED or len(ratios) == ROUNDS[-1] or time.monotonic() > until
                        if done:
                            break
        for each in lags:
            each.check()
        return Comparison(plan_digest, alpha, tuple(ratios), verdict)

    def _round(self, pair: Pair, lags: tuple[_Lags, _Lags]) -> float | Fault:
        """Return the mean over cases of log(incumbent's time / candidate's time), A-B-B-A or B-A-A-B in each."""
        logs = []
        for case in self._shuffled():
            first = self._chance.randrange(2)
            took: tuple[list[float], list[float]] = [], []
            for i in (first, 1 - first, 1 - first, first):
                timed = self._time(pair[i], case, 1, lags[i])
                if isinstance(timed, Fault):
                    if i == 0:
                        return timed
                    raise EvaluatorUnavailable(f"the incumbent fails on this GPU: {timed.message}")
                took[i].append(timed.runs[0].seconds)
            logs += [math.log(theirs / mine) for mine, theirs in zip(*took, strict=True)]
        return statistics.fmean(logs)

    def _time(self, contender: Contender, case: TimedCase, runs: int, lags: _Lags) -> Timed | Fault:
        warmups = self._chance.randint(1, MOST_WARMUPS)
        timed = contender.time(case.name, [self._chance.getrandbits(62) for _ in range(warmups + runs)], case.limit_s)
        if isinstance(timed, Fault):
            return timed
        if fault := case.impossible([run.seconds for run in timed.runs]):
            return fault
        lags.note(timed.runs)
        return Timed(timed.runs[warmups:], timed.clocks[-runs:])

    def _shuffled(self) -> list[TimedCase]:
        return self._chance.sample(self._cases, len(self._cases))
