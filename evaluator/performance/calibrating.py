"""Fits the constants in which cards of a kind differ to times of one card: how well, and what the times do not say.

A constant is fitted as a place in its published range, 0 the slow end and 1 the fast end, by least squares on the
logarithms of times. A normal prior in the middle of the range, whose ends are two standard deviations away, keeps what
the times do not determine.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, combinations

import numpy as np
import numpy.typing as npt

from avo.evaluator.binary import Binary
from avo.evaluator.errors import EvaluatorError
from avo.evaluator.performance.constants import Figure, constants_of, figures
from avo.evaluator.performance.kernel import Conditions, measure
from avo.evaluator.performance.memory import Timing
from avo.evaluator.performance.model import predict_time, time_case
from avo.evaluator.performance.passes import PlayedKernel
from avo.evaluator.target import Fitted, Target
from avo.evaluator.work import LaunchWork

LEAST_KERNELS = 4
"""Fewest kernels that a card is calibrated by."""
CLOCK = "sustained_clock_ratio"
CONSTANTS = {
    "clock under load": (CLOCK,),
    "power of arithmetic": ("arithmetic_power",),
    "rate of L2": ("l2_bytes",),
    "rate of HBM": ("hbm_share",),
    "launch": ("launch_us", "event_us", "graph_us"),
}
"""What is fitted, each with the figures that move together."""
_NOT_PLAYED = ("arithmetic_power", "hbm_share", "launch_us", "event_us", "graph_us")
"""Figures that do not change how a kernel is played on an SM."""
_PRIOR = 0.25
"""Standard deviation of the prior."""
_DETERMINED = 0.7
"""A constant is determined if the times leave less than this share of the prior's standard deviation: about where they
say as much as the prior does.
"""
_NOISE = 0.02
"""Least spread that residuals are taken to have: no prediction follows times more closely."""
_OUTLIER = 1.5
"""Spreads from which a residual counts for less (Huber, Robust Estimation of a Location Parameter, 1964)."""
_STEP = 0.2
_ROUNDS = 8
_STILL = 0.01
_FALLS = 0.95
"""The error of the half that is not used must fall to this share: what is learnt of one half holds for the other."""
_UNEXPLAINED = 0.3
"""Mean error after the fit from which times are not those of such a card: twice that of published measurements."""

Values = npt.NDArray[np.float64]


class NotCalibrated(EvaluatorError):
    """Times from which a card cannot be learnt; ``str()`` says why in one line."""


@dataclass(frozen=True, slots=True)
class Timed:
    """What one kernel took in one case."""

    kernel: str
    """Halves are made of kernels, not of cases."""
    case: str
    launches: tuple[LaunchWork, ...]
    least_bytes: int
    us: float
    timing: Timing


@dataclass(frozen=True, slots=True)
class Constant:
    """What the times say of one constant."""

    name: str
    published: Fitted
    """The first of its figures, for cards of this kind."""
    found: Fitted | None
    """The same as the times have it; None where they do not determine it, so that it stays as it was."""

    @property
    def at_end(self) -> bool:
        """Whether the times would have it beyond an end of its published range."""
        return self.found is not None and self.found.value in (self.published.slow, self.published.fast)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How predictions agree with times."""

    error: float
    """Mean of \\|log(predicted / measured)\\|."""
    order: float | None
    """Share of the pairs of kernels whose times in one case are predicted in the right order; None without pairs."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A card as its times have it."""

    card: Target
    """Fitted to all times."""
    constants: tuple[Constant, ...]
    kernels: int
    times: int
    before: Agreement
    """Of the half that nothing is fitted to."""
    after: Agreement
    """The same with constants fitted to the other half."""
    left: float
    """Mean error that is left where all times are fitted."""

    def check(self) -> None:
        """Raise ``NotCalibrated`` unless the times teach something about the card."""
        if self.left > _UNEXPLAINED:
            raise NotCalibrated(
                f"the times contradict the model: fitted to all, its mean error is still {self.left:.0%}"
            )
        if self.after.error > _FALLS * self.before.error:
            found = ", ".join(each.name for each in self.constants if each.found) or "no constant"
            raise NotCalibrated(
                f"the times of {self.kernels} kernels are too few, too much alike or contradict each other: they "
                f"determine {found}, and the mean error on the other half is {self.after.error:.1%}, "
                f"{self.before.error:.1%} without"
            )


def calibrate(times: Sequence[Timed], base: Target, known: Target | None = None) -> Calibration:
    """Return ``base`` with constants fitted to times of one card. Errors before are those for ``known``, by default
    ``base``.

    Raises ``NotCalibrated`` for too few kernels, and ``ModelError`` for a kernel that cannot be predicted.
    """
    kernels = sorted({each.kernel for each in times}, key=lambda name: hashlib.sha256(name.encode()).digest())
    if len(kernels) < LEAST_KERNELS:
        raise NotCalibrated(f"there are times of {len(kernels)} kernels, and it takes {LEAST_KERNELS} at least")
    half = [each for each in times if each.kernel in kernels[::2]]
    other = [each for each in times if each.kernel not in kernels[::2]]
    learnt, _ = _fit(half, base)
    card, constants = _fit(times, base)
    return Calibration(
        card, constants, len(kernels), len(times), agreement(other, known or base), agreement(other, learnt),
        agreement(times, card).error,
    )  # fmt: skip


def agreement(times: Sequence[Timed], target: Target) -> Agreement:
    """Return how predictions for ``target`` agree with ``times``."""
    predicted = [_predicted_us(each, target) for each in times]
    errors = [abs(math.log(us / each.us)) for us, each in zip(predicted, times, strict=True)]
    right = [
        (mine < theirs) == (one.us < another.us)
        for (one, mine), (another, theirs) in combinations(zip(times, predicted, strict=True), 2)
        if one.case == another.case and one.us != another.us
    ]
    return Agreement(float(np.mean(errors)), float(np.mean(right)) if right else None)


def _predicted_us(timed: Timed, target: Target) -> float:
    return predict_time(timed.launches, target, least_bytes=timed.least_bytes, timing=timed.timing).us


def _fit(times: Sequence[Timed], base: Target) -> tuple[Target, tuple[Constant, ...]]:
    """Return the card, and what the times say of each constant."""
    nominal = _nominal(times, base)
    wanted = np.log([each.us / _predicted_us(each, base) for each in times]) + nominal(base)
    found: dict[str, list[Fitted]] = {}
    free = list(CONSTANTS)
    while free:

        def compute(at: Values, names: Sequence[str] = tuple(free)) -> Values:
            return nominal(with_figures(base, chain(*map(partial(figures_at, base), names, at))))

        places, spreads = _least_squares(compute, wanted, len(free))
        if max(spreads) < _DETERMINED * _PRIOR:
            found = dict(zip(free, map(partial(figures_at, base), free, places, spreads), strict=True))
            break
        free.pop(int(np.argmax(spreads)))
    constants = (Constant(name, figures_at(base, name)[0], found.get(name, [None])[0]) for name in CONSTANTS)
    return with_figures(base, chain(*found.values())), tuple(constants)


def _nominal(times: Sequence[Timed], base: Target) -> Callable[[Target], Values]:
    """Return what computes the logarithms of times for a card like ``base``, with constants as they are: not drawn."""
    table = constants_of(base)
    unplayed = {name: getattr(table, name) for name in _NOT_PLAYED}
    plays: dict[tuple[object, ...], PlayedKernel] = {}

    def played(
        binary: Binary, target: Target, resident: int, conditions: Conditions, seed: int | None = None
    ) -> PlayedKernel:
        key = (binary, resident, replace(conditions, table=replace(conditions.table, **unplayed)))
        if key not in plays:
            plays[key] = measure(binary, base, resident, key[2], seed)
        return plays[key]

    def compute(target: Target) -> Values:
        seconds = (
            time_case(each.launches, each.least_bytes, target, each.timing, measured=played).seconds for each in times
        )
        logs: Values = np.log(np.fromiter(seconds, float, len(times)))
        return logs

    return compute


def _least_squares(compute: Callable[[Values], Values], wanted: Values, count: int) -> tuple[Values, Values]:
    """Return the places of ``count`` constants, and the standard deviations that the times and the prior leave."""
    at, spread = np.full(count, 0.5), np.full(count, _PRIOR)
    for _ in range(_ROUNDS):
        residuals = wanted - compute(at)
        low, high = np.clip(at - _STEP, 0, 1), np.clip(at + _STEP, 0, 1)
        columns = []
        for place in range(count):
            ends = [np.where(np.arange(count) == place, end, at) for end in (low, high)]
            columns.append((compute(ends[1]) - compute(ends[0])) / (high[place] - low[place]))
        slopes = np.stack(columns, axis=1)
        noise = max(_NOISE, 1.4826 * float(np.median(np.abs(residuals))))
        weights = 1 / np.maximum(1.0, np.abs(residuals) / (_OUTLIER * noise)) / noise**2
        precision = slopes.T @ (weights[:, None] * slopes) + np.eye(count) / _PRIOR**2
        spread = np.sqrt(np.diag(np.linalg.inv(precision)))
        pull = slopes.T @ (weights * residuals) - (at - 0.5) / _PRIOR**2
        last, at = at, np.clip(at + np.linalg.solve(precision, pull), 0, 1)
        if max(abs(at - last)) < _STILL:
            break
    return at, spread


def figures_at(base: Target, name: str, place: float = 0.5, spread: float = _PRIOR) -> list[Fitted]:
    """Return the figures of a constant at a place of its range, and two ``spread`` from there."""
    table = figures(base.arch, base.fitted)
    table[CLOCK] = Figure(base.sustained_clock_ratio, base.clock_source, *base.sustained_clock_range)
    places = (place, max(0.0, place - 2 * spread), min(1.0, place + 2 * spread))
    return [Fitted(each, *(float(table[each].at(at)) for at in places)) for each in CONSTANTS[name]]


def with_figures(base: Target, moved: Iterable[Fitted]) -> Target:
    """Return a card with these figures."""
    fitted = {each.name: each for each in (*base.fitted, *moved)}
    clock = fitted.pop(CLOCK, None)
    card = replace(base, fitted=tuple(fitted.values()))
    if clock is None:
        return card
    return replace(card, sustained_clock_ratio=clock.value, sustained_clock_range=(clock.slow, clock.fast))
