"""Comparing measured speeds: a sequential test on paired log ratios that may be looked at after every round.

The test bets on signs. Where a candidate is as fast as the incumbent, exchanging the two turns the sign of a round's
log ratio and changes nothing else: at every magnitude it is as often above zero as below. So if a stake ``b`` in [0, 1)
is chosen before the sign is seen, from earlier rounds and the round's magnitude, the capital grows by ``1 + b`` or
shrinks by ``1 - b`` with equal chances, and no way of betting and no time to stop brings it to 1 / alpha with a
probability above alpha (Ville's inequality). Where the candidate is slower, the bets lose on average. One alpha thus
covers all looks. Nothing is assumed of the noise but that it is symmetric, given the rounds before: it may be
heavy-tailed and differ from round to round; what both kernels share, such as a drifting clock, is not in the ratio.

Every test of symmetry by betting has this form: Ramdas, Ruf, Larsson and Koolen, "Admissible anytime-valid sequential
inference must rely on nonnegative martingales", arXiv 2009.03167. For normal noise the best stake is
tanh(mean * ratio / variance), from the likelihoods of both signs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avo.evaluator.evaluation import Verdict

ROUNDS = (*range(4, 64, 4), *range(64, 257, 16))
"""Numbers of rounds after which a comparison is looked at; it ends undecided after the last."""
OTHER_ALPHA = 0.05
"""Probability of wrongly calling a candidate slower or equivalent. That loses a candidate and records nothing false, so
each comparison may spend all of it."""
_STEEPNESS = (0.25, 0.5, 1.0, 2.0)
"""The capital is spread evenly over these: each is best for some gain, from a quarter of the noise to twice it."""
_CLIP = 2.0
"""Largest magnitude that is bet on, in typical magnitudes, so that one outlier cannot end the game."""


def evidence(log_ratios: NDArray[Any]) -> NDArray[Any]:
    """Return the capital after each round, from 1, of one who bets that ratios are positive.

    Rounds run along the last axis. Where ratios are symmetric about zero, or about less, a value ever reaches
    ``1 / alpha`` with a probability of at most ``alpha``.
    """
    return _capital(_scaled(np.asarray(log_ratios, float)))


def _scaled(ratios: NDArray[Any]) -> NDArray[Any]:
    """Return ratios divided by the median magnitude of those so far, clipped."""
    sizes = np.abs(ratios)
    lengths = range(1, ratios.shape[-1] + 1)
    typical = np.stack([np.partition(sizes[..., :n], n // 2)[..., n // 2] for n in lengths], axis=-1)
    clipped = ratios.clip(-_CLIP * typical, _CLIP * typical)
    scaled: NDArray[Any] = np.divide(clipped, typical, out=np.zeros_like(ratios), where=typical > 0)
    return scaled


def _capital(scaled: NDArray[Any]) -> NDArray[Any]:
    capitals = [np.cumprod(1 + np.tanh(steepness * scaled), axis=-1) for steepness in _STEEPNESS]
    return np.asarray(np.mean(capitals, axis=0))


def verdicts(log_ratios: NDArray[Any], alpha: float | NDArray[Any], margin: float) -> NDArray[Any]:
    """Return the ``Verdict`` after each round, as text; rounds run along the last axis. See ``decide``.

    An ``alpha`` for each comparison has the shape of ``log_ratios`` with one round.
    """
    ratios, edge = np.asarray(log_ratios, float), np.log1p(margin)
    above = _scaled(ratios - edge)
    within = np.minimum(_capital(-above), evidence(ratios + edge))
    shown = [_capital(above) >= 1 / alpha, evidence(-ratios) >= 1 / OTHER_ALPHA, within >= 1 / OTHER_ALPHA]
    return np.select(shown, [Verdict.FASTER, Verdict.SLOWER, Verdict.EQUIVALENT], Verdict.UNDECIDED)


def decide(log_ratios: Sequence[float], alpha: float, margin: float) -> Verdict:
    """Return what the rounds so far have shown about a candidate and its incumbent.

    ``log_ratios``: one per round, log(incumbent's time / candidate's time). ``FASTER``, by more than the fraction
    ``margin``, is wrong with a probability of ``alpha`` at most, over all looks. ``EQUIVALENT``: speeds differ by less
    than ``margin``, as two one-sided tests show. The first verdict that is not ``UNDECIDED`` ends the comparison: no
    more rounds are drawn.

    The margin also covers what two processes of one kernel differ by for as long as they live, for example because of
    where their buffers lie: no number of rounds can tell that from speed.
    """
    if not log_ratios:
        return Verdict.UNDECIDED
    return Verdict(str(verdicts(np.asarray(log_ratios, float), alpha, margin)[-1]))
