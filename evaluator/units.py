"""Units: how the speed of kernels is written, in TFLOPS, or in time and bandwidth where memory or launches bound it.

What bounds a case is a property of the problem and the card, so a run needs no more than their names, and all its
kernels are written alike.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from avo.evaluator.catalogue import get_problem, get_suite
from avo.evaluator.errors import EvaluatorError
from avo.evaluator.evaluation import geometric_mean
from avo.evaluator.known import known
from avo.evaluator.problem import Case, Problem
from avo.evaluator.target import LAUNCH_US, TARGETS, Target

_DIGITS = 3
"""Digits of a speed. A predicted score resolves differences from 1.1% on, and a measured one those from 0.5% on, so
that a fourth digit never tells kernels apart.
"""


def figure(value: float) -> str:
    """Return a speed, a time or a bandwidth with the digits that it holds: ``613``, ``98.4``, ``0.712``, ``1230``."""
    if not (value and math.isfinite(value)):
        return f"{value:g}"
    rounded = float(f"{value:.{_DIGITS}g}")
    return f"{rounded:.{max(0, _DIGITS - 1 - math.floor(math.log10(abs(rounded))))}f}"


def percent(gain: float) -> str:
    """Return a relative gain with the digits that it holds: ``+3.1%`` for 0.031, ``+162%`` for 1.62."""
    return f"{gain:+.{int(abs(gain) < 0.0995)}%}"


@dataclass(frozen=True, slots=True)
class Unit:
    """How speeds on some cases are written: geometric means over them, where they are several."""

    flops: float = 1e12
    """Useful operations of a case."""
    nbytes: float = 0.0
    """Least bytes of a case; 0 where computing bounds the cases, so that speeds are in TFLOPS."""
    peak: float = 0.0
    """The card's peak bandwidth in bytes per second; 0 where it is not known."""

    @property
    def name(self) -> str:
        """``TFLOPS`` or ``GB/s``."""
        return "GB/s" if self.nbytes else "TFLOPS"

    @property
    def head(self) -> str:
        """What a column of ``cell`` is called."""
        return ("us, GB/s, of peak" if self.peak else "us, GB/s") if self.nbytes else "TFLOPS"

    def value(self, tflops: float) -> float:
        """Return a speed in TFLOPS in this unit."""
        return tflops * self.nbytes / self.flops * 1e3 if self.nbytes else tflops

    def figure(self, tflops: float) -> str:
        """Return the number alone: ``613``."""
        return figure(self.value(tflops))

    def between(self, low: float, high: float) -> str:
        """Return the two ends of a speed: ``443 to 707``; empty where they are not known."""
        return f"{self.figure(low)} to {self.figure(high)}" if low else ""

    def cell(self, tflops: float) -> str:
        """Return a speed for a table: ``613``, or ``13.2 us, 2710 GB/s, 81%``."""
        if not self.nbytes:
            return figure(tflops)
        return ", ".join(filter(None, (self._us(tflops), f"{self.figure(tflops)} GB/s", self.share(tflops))))

    def said(self, tflops: float, kind: str = "", between: str = "") -> str:
        """Return a speed in words: ``613 predicted TFLOPS``, or ``13.2 us, 2710 predicted GB/s, 81% of the peak``.

        ``between`` stands in brackets behind the number.
        """
        number = " ".join(filter(None, (self.figure(tflops), between and f"({between})", kind, self.name)))
        if not self.nbytes:
            return number
        share = self.share(tflops)
        return ", ".join(filter(None, (self._us(tflops), number, share and f"{share} of the peak")))

    def _us(self, tflops: float) -> str:
        return f"{figure(self.flops / tflops / 1e6)} us"

    def share(self, tflops: float) -> str:
        """Return the share of the card's peak bandwidth: ``81%``; empty where that is not what counts, or not known."""
        return f"{self.value(tflops) * 1e9 / self.peak:.0%}" if self.nbytes and self.peak else ""


TFLOPS = Unit()


def units_of(problem: str, suite: str, target: str, product: str = "") -> Mapping[str, Unit]:
    """Return the unit of each case of a suite; none where this installation does not have the problem.

    ``product`` is the name of the card that was measured, if any.
    """
    try:
        return _units(problem, suite, _card(target, product))
    except EvaluatorError:
        return {}


def unit_of(problem: str, suite: str, target: str, product: str = "", cases: Sequence[str] = ()) -> Unit:
    """Return the unit of the geometric mean over a suite, or over some of its ``cases``.

    That is TFLOPS unless memory or launches bound all of them.
    """
    found = units_of(problem, suite, target, product)
    its = [found.get(name, TFLOPS) for name in cases or found]
    if not its or not all(unit.nbytes for unit in its):
        return TFLOPS
    flops, nbytes = (geometric_mean(values) for values in zip(*((u.flops, u.nbytes) for u in its), strict=True))
    return Unit(flops, nbytes, its[0].peak)


def rooflines_us(problem: str, suite: str, target: str, product: str = "") -> Mapping[str, float]:
    """Return the roofline of each case of a suite in microseconds: what its useful FLOPs and least bytes take at the
    card's peaks. None where this installation has neither the problem nor the card.
    """
    if (card := _card(target, product)) is None:
        return {}
    try:
        found = get_problem(problem)
        cases = get_suite(found, suite)
    except EvaluatorError:
        return {}
    return {name: 1e6 * seconds for name, seconds in rooflines_s(found, cases, card).items()}


def rooflines_s(problem: Problem, cases: Sequence[Case], card: Target) -> dict[str, float]:
    """Return what the useful FLOPs and least bytes of each case take at the card's peaks, in seconds."""
    return {case.name: card.roofline_s(problem.flops(case), problem.least_bytes(case)) for case in cases}


@cache
def _units(problem: str, suite: str, card: Target | None) -> Mapping[str, Unit]:
    found = get_problem(problem)
    return {case.name: _unit(found, case, card) for case in get_suite(found, suite)}


def _unit(problem: Problem, case: Case, card: Target | None) -> Unit:
    """Return TFLOPS for a case on which the tensor cores would be busy longer than the memory, and than a launch takes.

    A card that is not known counts as an A100, whose memory is fast for its tensor cores.
    """
    flops, nbytes = problem.flops(case), problem.least_bytes(case)
    like = card or TARGETS["a100"]
    if flops / like.dense_flops_per_s >= max(nbytes / like.hbm_bytes_per_s, LAUNCH_US * 1e-6):
        return TFLOPS
    return Unit(flops, nbytes, card.hbm_bytes_per_s if card else 0.0)


def _card(target: str, product: str) -> Target | None:
    """Return the card of a target, or the one that a measured card is by its name; None for another."""
    if card := known(target):
        return card
    name = product.lower().replace(" ", "")
    if "pcie" in name or "nvl" in name:  # with another memory than the module of this name
        return None
    return max((card for card in TARGETS.values() if card.name in name), key=lambda card: len(card.name), default=None)
