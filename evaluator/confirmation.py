"""Confirmation: what a measurement says of each kernel of a run, beside what was predicted of it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, combinations
from statistics import fmean

from avo.evaluator.evaluation import REFUSED, Status
from avo.evaluator.known import known
from avo.evaluator.measurement import UNMEASURED, BadMeasurement, Entrant, Measurement, Range, Speed

MARGIN = 0.01
"""What two processes of one kernel may lastingly differ by. Less is no difference between kernels."""
ALPHA = 0.05
"""Probability that a kernel which is no faster by more than ``MARGIN`` is confirmed, or a faster one called slower."""
FAULTS = (*REFUSED, Status.DOES_NOT_FIT, Status.TIMED_OUT, Status.CRASHED)
"""What refutes a kernel. Other faults, such as a front end that refuses it, may be those of the machine's Triton."""


class Confirmation(StrEnum):
    """Whether a card bears out what was predicted of a kernel."""

    CONFIRMED = "confirmed"
    REFUTED = "refuted"
    UNMEASURED = "unmeasured"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a measurement says of one kernel."""

    entrant: str
    """Its name in the shortlist: ``v12`` or ``a38``."""
    attempt_id: int
    confirmation: Confirmation
    reason: str
    """Why, in words."""
    status: str
    """Of its entrant: a ``Status`` or ``UNMEASURED``."""
    predicted: Range
    """For the run's target."""
    measured: Range | None
    """None where it has not run every case."""
    times_start: float | None
    """Times as fast as the kernel that the run began with, by rounds that both ran; None where there are none."""
    cases: Mapping[str, Speed]

    @property
    def of_predicted(self) -> float | None:
        """Measured speed divided by predicted speed; None where it was not measured."""
        return self.measured.tflops / self.predicted.tflops if self.measured else None

    @property
    def within(self) -> bool:
        """Whether the measured speed lies in the predicted range."""
        return self.measured is not None and self.predicted.low <= self.measured.tflops <= self.predicted.high


def findings(measurement: Measurement) -> tuple[Finding, ...]:
    """Return what a measurement says of each kernel, in its order.

    A kernel is *confirmed* if it ran right on a card like the run's target and is more than ``MARGIN`` faster there
    than the kernel that the run began with: who bets on the rounds (``sequential.evidence``) has multiplied the capital
    by 1 / ``ALPHA`` at the end. The kernel that the run began with is confirmed if it ran right. A kernel is *refuted*
    if it has one of ``FAULTS`` there, or bets that it is slower, or that it is as fast within ``MARGIN``, win as much.
    All else is *unmeasured*, for the reason given. Raises ``BadMeasurement`` for figures that cannot be true.

    A session is one process of each kernel, and five minutes have too few to bet on sessions, as the judge does: the
    margin stands for what all rounds of a session share.
    """
    measurement.check()
    cases = {case.name for case in measurement.cases}
    for each in measurement.kernels:
        predicted = each.predicted or {}
        if predicted.keys() != cases or not all(0 < value < math.inf for value in chain(*predicted.values())):
            raise BadMeasurement(f"{each.name} has no prediction of each case")
    return tuple(_finding(measurement, each) for each in measurement.kernels)


def unlike(measurement: Measurement) -> str:
    """Return why the card says nothing about the run's target, in words; empty if it is of that kind.

    It is if it has the compute capability and the number of multiprocessors of the target.
    """
    target, name = known(measurement.target), measurement.card_name
    if target is None:
        return f"the run's target {measurement.target} names no kind of card to which {name} could belong"
    arch, sms = measurement.card.get("arch"), measurement.card.get("sms")
    if (arch, sms) == (target.arch, target.sms):
        return ""
    return f"{name} (sm_{arch}, {sms} SMs) is no {target.name} (sm_{target.arch}, {target.sms} SMs)"


def times_start(measurement: Measurement, entrant: str) -> float | None:
    """Return how many times as fast an entrant is as the run's start; None without a round of both."""
    ratios = measurement.ratios(entrant)
    return math.exp(fmean(ratios)) if ratios else None


def agreement(found: Iterable[Finding]) -> tuple[int, int]:
    """Return how many pairs of measured kernels have the predicted order, and how many pairs there are.

    A pair with the same prediction is left out.
    """
    speeds = [(each.predicted.tflops, each.measured.tflops) for each in found if each.measured]
    signs = [(p - q) * (m - n) for (p, m), (q, n) in combinations(speeds, 2) if p != q]
    return sum(sign > 0 for sign in signs), len(signs)


def _finding(measurement: Measurement, entrant: Entrant) -> Finding:
    assert entrant.attempt is not None, "it is a kernel"
    assert entrant.predicted_range is not None, "of every case"
    confirmation, reason = _judged(measurement, entrant, measurement.ratios(entrant.name))
    return Finding(
        entrant.name, entrant.attempt, confirmation, reason, entrant.status, entrant.predicted_range,
        measurement.reached(entrant.name), times_start(measurement, entrant.name), measurement.speeds(entrant.name),
    )  # fmt: skip


def _judged(measurement: Measurement, entrant: Entrant, ratios: Sequence[float]) -> tuple[Confirmation, str]:
    """Return the verdict on a kernel and its reason; ``ratios`` are logarithms, one a round."""
    start, other = measurement.start, unlike(measurement)
    if entrant.status == UNMEASURED:
        return Confirmation.UNMEASURED, entrant.message or "it has not run"
    if entrant.status != Status.CORRECT:
        fault = f"{Status(entrant.status).words} on {measurement.card_name}: {entrant.message}".removesuffix(": ")
        if entrant.status in FAULTS and not other:
            return Confirmation.REFUTED, fault
        return Confirmation.UNMEASURED, "; ".join(filter(None, (fault, other)))
    if other:
        return Confirmation.UNMEASURED, f"it ran right, but {other}"
    if entrant.name == start:
        return Confirmation.CONFIRMED, "it ran right, and the run began with it"
    (began,) = (each for each in measurement.kernels if each.name == start)
    if began.status != Status.CORRECT or not ratios:
        return Confirmation.UNMEASURED, f"it ran right, but there is no round of it beside a right one of {start}"
    return _compared(ratios, start)


def _compared(ratios: Sequence[float], start: str) -> tuple[Confirmation, str]:
    """Return what the rounds show, against the kernel called ``start``."""
    import numpy as np

    from avo.evaluator.cuda.sequential import evidence

    logs, edge, times = np.asarray(ratios), np.log1p(MARGIN), math.exp(fmean(ratios))
    rounds = f"{len(ratios)} round{'s' * (len(ratios) > 1)}"

    def shown(gains: np.ndarray) -> bool:
        return bool(evidence(gains)[-1] >= 1 / ALPHA)

    if shown(logs - edge):
        return Confirmation.CONFIRMED, f"{times:.3f} times as fast as {start} in {rounds}"
    if shown(-logs):
        return Confirmation.REFUTED, f"slower than {start}: {times:.3f} times as fast in {rounds}"
    if shown(edge - logs) and shown(logs + edge):
        return Confirmation.REFUTED, f"as fast as {start} within {MARGIN:.0%}, in {rounds}"
    told = f"{rounds} cannot tell whether it is over {MARGIN:.0%} faster than {start}"
    return Confirmation.UNMEASURED, f"{told}: {times:.3f} times as fast so far"
