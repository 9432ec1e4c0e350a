"""What a predicted score can tell apart: how far two kernels may differ by what should not matter, or is not known."""

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import product
from statistics import fmean, stdev

from avo.evaluator.evaluation import Score, geometric_mean
from avo.evaluator.target import ScoreKind

SURE = 0.9
"""Share of the joint draws in which a kernel has to be ahead, by default, for its lead to be resolved."""
_DOUBT_STEPS = 16
"""Number of points between none and all of a kernel's doubts at which it is compared with another."""
_BEYOND = 4.0
"""Standard errors of the difference of the means of neighbours that a gain has to exceed. Of six each, equal ones do so
once in 800 pairs (Student's t with 10 degrees of freedom).
"""
ALONE = 0.017
"""Lead from which on two kernels are told apart of which no neighbours were predicted: twice the standard deviation of
the difference of two, as orders drawn around the compiler's own differ by 0.6% for most kernels.
"""
_LEAST = 0.002
"""Least standard error: few orders may be alike by chance, or as the compiler undoes them."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference between the predicted speeds of two kernels."""

    gain: float
    """By how much the first is faster in the mean: 0.03 is 3%."""
    share: float | None = None
    """In what share of the joint draws it is ahead, 0 to 1; None where the scores have no draws."""
    resolution: float | None = None
    """The gain from which on it is ahead in enough of them, and exceeds what the neighbours leave open."""
    alone: float | None = None
    """The gain of the kernels as compiled, where ``gain`` is that of their neighbours; else None."""


def difference(mine: Score, other: Score, sure: float = SURE) -> Difference:
    """Return how two predicted scores differ; ``sure`` is the share of the draws that is enough.

    The draws of the model's constants are the same for both, so what two related kernels share of the model's error
    cancels. In each, both kernels' doubts are drawn too: a kernel takes ``doubt ** u`` times as long, where ``u`` runs
    evenly over 0 to 1, independently for the two. So no kernel's doubts ever help it. Where the neighbours of both are
    known, a kernel is the mean of them in each draw; else both are as the compiler wrote them.

    Draws that earlier releases did not store, or not the same ones, do not count. Raises ``ValueError`` for a measured
    score: the faster kernel need not have the larger sample, so only a ``Comparison`` tells.
    """
    if ScoreKind.MEASURED in (mine.kind, other.kind):
        raise ValueError("measured scores are compared by their Comparison, not by their values")
    closely = bool(mine.neighbours and other.neighbours)
    as_compiled = mine.own_tflops / other.own_tflops
    gain = math.log(mine.geomean_tflops / other.geomean_tflops if closely else as_compiled)
    alone = as_compiled - 1 if closely else None
    mines, others = _drawn(mine, closely), _drawn(other, closely)
    by_orders = _BEYOND * math.hypot(_error(mine), _error(other))
    if len(mine.cases) != len(other.cases) or not mines or len(mines) != len(others):
        return Difference(math.expm1(gain), resolution=math.expm1(by_orders) if by_orders else None, alone=alone)
    parts = [[m - o for m, o in zip(mines, others, strict=True)]]
    for sign, score in ((1, mine), (-1, other)):
        doubt = sign * math.log(geometric_mean(case.doubt for case in score.cases))
        parts.append([-doubt * (step + 0.5) / _DOUBT_STEPS for step in range(_DOUBT_STEPS)] if doubt else [0.0])
    leads = sorted(map(sum, product(*parts)))
    least = leads[min(len(leads) - 1, math.floor((1 - sure) * len(leads) + 1e-9))]
    share = (len(leads) - bisect_right(leads, 0.0)) / len(leads)
    return Difference(math.expm1(gain), share, math.expm1(max(0.0, gain - least, by_orders)), alone)


def lead(mine: Score, other: Score) -> tuple[float, float]:
    """Return the gain of one predicted score over another, and the least gain or loss that tells them apart, which is
    ``ALONE`` at least: none of the two need have neighbours. Raises ``ValueError`` for a measured score.
    """
    found = difference(mine, other)
    return found.gain, max(found.resolution or 0.0, ALONE)


def resolution(score: Score) -> float | None:
    """Return the lead from which on a score is resolved from another with such neighbours, as a fraction; None where
    they are not known.
    """
    return math.expm1(_BEYOND * math.sqrt(2) * _error(score)) if len(score.neighbours) > 1 else None


def between(score: Score | None, other: Score | None) -> float | None:
    """Return the lead from which on ``score`` is resolved from ``other``, as a fraction. Where the neighbours of
    ``other`` are not known, it is taken to have such as the first. None where nothing is known, or speed was measured.
    """
    if score is None or score.kind is not ScoreKind.PREDICTED:
        return None
    if other is None or other.kind is not ScoreKind.PREDICTED:
        return resolution(score)
    found = difference(score, other).resolution
    return found if other.neighbours else max(found or 0.0, resolution(score) or 0.0) or None


def _error(score: Score) -> float:
    """Return the standard error of the mean of the logarithms of the neighbours' speeds."""
    means = [fmean(map(math.log, drawn)) for drawn in score.neighbours]
    return max(_LEAST, stdev(means) / math.sqrt(len(means))) if len(means) > 1 else 0.0


def _drawn(score: Score, closely: bool) -> list[float]:
    """Return the logarithm of the speed in each draw, the mean over the neighbours or else over the cases."""
    kernels = score.neighbours if closely else [case.draws for case in score.cases]
    if len(set(map(len, kernels))) > 1:
        return []
    return [fmean(map(math.log, draw)) for draw in zip(*kernels, strict=True)]
