"""What a predicted score can tell apart: how far two kernels may differ by what should not matter, or is not known."""

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import product
from statistics import NormalDist, fmean, stdev

from avo.evaluator.evaluation import Score, geometric_mean
from avo.evaluator.target import ScoreKind

SURE = 0.9
"""Share of the joint draws in which a kernel has to be ahead, by default, for its lead to be resolved."""
_DOUBT_STEPS = 16
"""Number of points between none and all of a kernel's doubts at which it is compared with another."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference between the predicted speeds of two kernels."""

    gain: float
    """By how much the first is faster in the mean: 0.03 is 3%."""
    share: float | None = None
    """In what share of the joint draws it is ahead, 0 to 1; None where the scores have no draws."""
    resolution: float | None = None
    """The gain from which on it would be ahead in enough of them. A smaller one is not resolved."""
    alone: float | None = None
    """The gain of its score alone, where its neighbours are known: they have ``gain``."""


def difference(mine: Score, other: Score, sure: float = SURE) -> Difference:
    """Return how two predicted scores differ; ``sure`` is the share of the draws that is enough.

    The draws of the model's constants are the same for both, so what two related kernels share of the model's error
    cancels. In each, both kernels' doubts are drawn too: a kernel takes ``doubt ** u`` times as long, where ``u`` runs
    evenly over 0 to 1, independently for the two. So no kernel's doubts ever help it. And each kernel may be any of its
    neighbours, where these are known.

    Draws that earlier releases did not store, or not the same ones, do not count. Raises ``ValueError`` for a measured
    score: the faster kernel need not have the larger sample, so only a ``Comparison`` tells.
    """
    if ScoreKind.MEASURED in (mine.kind, other.kind):
        raise ValueError("measured scores are compared by their Comparison, not by their values")
    gain = math.log(mine.settled_tflops / other.settled_tflops)
    alone = mine.geomean_tflops / other.settled_tflops - 1 if mine.neighbours else None
    counts = {len(case.draws) for score in (mine, other) for case in score.cases}
    if len(mine.cases) != len(other.cases) or len(counts) != 1 or counts == {0}:
        return Difference(math.expm1(gain), alone=alone)
    parts = [[m - o for m, o in zip(_drawn(mine), _drawn(other), strict=True)]]
    for sign, score in ((1, mine), (-1, other)):
        doubt = sign * math.log(geometric_mean(case.doubt for case in score.cases))
        parts.append([-doubt * (step + 0.5) / _DOUBT_STEPS for step in range(_DOUBT_STEPS)] if doubt else [0.0])
        parts.append([sign * math.log(each / score.geomean_tflops) for each in score.neighbours] or [0.0])
    leads = sorted(map(sum, product(*parts)))
    least = leads[min(len(leads) - 1, math.floor((1 - sure) * len(leads) + 1e-9))]
    share = (len(leads) - bisect_right(leads, 0.0)) / len(leads)
    return Difference(math.expm1(gain), share, math.expm1(max(0.0, gain - least)), alone)


def resolution(score: Score) -> float | None:
    """Return the lead from which on a score is ahead of another with such neighbours in ``SURE`` of the pairs of them,
    as a fraction; None where they are not known.
    """
    if len(score.neighbours) < 2:
        return None
    spread = math.sqrt(2) * stdev(map(math.log, score.neighbours))
    return math.expm1(NormalDist().inv_cdf(SURE) * spread)


def _drawn(score: Score) -> list[float]:
    """Return the logarithm of the speed in each draw, the mean over the cases."""
    return [fmean(map(math.log, draw)) for draw in zip(*(case.draws for case in score.cases), strict=True)]
