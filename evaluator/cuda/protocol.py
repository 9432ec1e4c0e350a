"""What every timed run on a card keeps to, whoever asks for it: stretch, limit, floor, and a second clock."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from avo.evaluator.cuda.cards import Card
from avo.evaluator.cuda.device import Timed
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import CaseScore, Fault, Status
from avo.evaluator.measurement import MeasuredCase
from avo.evaluator.problem import Case, Problem

LAG_S, LAG = 2e-4, 0.1
"""How far a run's times by the host's clock and by the device's events may differ: seconds, plus a share of the run."""
STRETCH_S = 0.1
"""How long a kernel runs before a run that counts, where the clock is the sustained one: as long as triton.testing's
``do_bench`` repeats by default. Single runs with light work between them see the boost clock, and published figures are
means over repeated runs.
"""
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

    @classmethod
    def of(cls, problem: Problem, case: Case, card: Card) -> Self:
        """Return ``case`` of ``problem`` on ``card``."""
        flops = problem.flops(case)
        return cls(case.name, flops, card.floor_s(flops, problem.least_bytes(case)))

    @property
    def measured(self) -> MeasuredCase:
        """The case as a file of measurements has it."""
        return MeasuredCase(self.name, self.flops, self.floor_s * 1e6)

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


def late(seconds: float, wall_s: float) -> bool:
    """Return whether two clocks disagree on a run: the device's events and the host's."""
    return abs(wall_s - seconds) > seconds * LAG + LAG_S


class Lags:
    """Whether two clocks agree on the runs of one contender."""

    def __init__(self) -> None:
        self._apart: list[bool] = []
        self._others: set[str] = set()

    def note(self, timed: Timed) -> None:
        """Count runs."""
        self._apart += [late(run.seconds, run.wall_s) for run in timed.runs]
        self._others.update(*(sampled.others for sampled in timed.clocks))

    def check(self) -> None:
        """Raise ``EvaluatorUnavailable`` if most runs took much longer, or less, by the host's clock.

        A busy host may be late now and then. A kernel that can reach the events' memory can make them say anything.
        """
        if 2 * sum(self._apart) > len(self._apart):
            by = f" (on the card: {', '.join(sorted(self._others))})" if self._others else ""
            raise EvaluatorUnavailable(
                "most runs take another time by the host's clock than by the GPU's events: "
                f"the machine is too busy to measure on{by}, or a kernel changes what the events say"
            )
