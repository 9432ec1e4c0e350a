"""Comparing measured speeds: a sequential test on paired log ratios that may be looked at after every round.

The test bets on signs. Where a candidate is as fast as the incumbent, exchanging the two turns the sign of a round's
log ratio and changes nothing else: at every magnitude it is as often above zero as below. So if a stake ``b`` in [0, 1)
is chosen before the sign is seen, from earlier rounds and the round's magnitude, the capital grows by ``1 + b`` or
shrinks by ``1 - b`` with equal chances, and no way of betting and no time to stop brings it to 1 / alpha with a
probability above alpha (Ville's inequality). Where the candidate is slower, the bets lose on average. One alpha thus
covers all looks. Nothing is assumed of the noise but that it is symmetric, given what was before: it may have heavy
tails and differ from round to round; what both kernels share, such as a drifting clock, is not in the ratio. What two
processes of one kernel differ by for as long as they live is noise too: so the bets that a candidate is faster are on
the means of the ``BLOCK`` rounds of one pair of processes, never on single rounds, which share it. That it is not
faster is bet on by rounds: that is decided sooner, and records nothing false.

Every test of symmetry by betting has this form: Ramdas, Ruf, Larsson and Koolen, "Admissible anytime-valid sequential
inference must rely on nonnegative martingales", arXiv 2009.03167. For normal noise the best stake is
tanh(mean * ratio / variance), from the likelihoods of both signs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avo.evaluator.evaluation import Verdict

BLOCK = 4
"""Rounds that one pair of processes runs. Where code and buffers happen to lie in a process affects all its rounds."""
ROUNDS = range(BLOCK, 257, BLOCK)
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
    """Return the ``Verdict`` after each of ``ROUNDS``, as text; rounds run along the last axis. See ``decide``.

    An ``alpha`` for each comparison has the shape of ``log_ratios`` with one round.
    """
    pairs, edge = blocks(log_ratios), np.log1p(margin)
    ratios = pairs.reshape(*pairs.shape[:-2], -1)
    within = np.minimum(evidence(edge - ratios), evidence(ratios + edge))
    lost = [capital[..., BLOCK - 1 :: BLOCK] >= 1 / OTHER_ALPHA for capital in (evidence(-ratios), within)]
    shown = [evidence(pairs.mean(axis=-1) - edge) >= 1 / alpha, *lost]
    return np.select(shown, [Verdict.FASTER, Verdict.SLOWER, Verdict.EQUIVALENT], Verdict.UNDECIDED)


def blocks(log_ratios: NDArray[Any]) -> NDArray[Any]:
    """Return the rounds of each pair of processes, ``[..., pairs, BLOCK]``, without those of an unfinished last one."""
    ratios = np.asarray(log_ratios, float)
    pairs = ratios.shape[-1] // BLOCK
    return ratios[..., : pairs * BLOCK].reshape(*ratios.shape[:-1], pairs, BLOCK)


def between(log_ratios: Sequence[float]) -> float | None:
    """Return by how much pairs of processes differ beyond the noise of their rounds, as a standard deviation (analysis
    of variance with random effects); None of fewer than two pairs.
    """
    pairs = blocks(np.asarray(log_ratios))
    if len(pairs) < 2:
        return None
    lasting = pairs.mean(axis=-1).var(ddof=1) - pairs.var(axis=-1, ddof=1).mean() / BLOCK
    return float(np.sqrt(max(0.0, lasting)))


def decide(log_ratios: Sequence[float], alpha: float, margin: float) -> Verdict:
    """Return what the rounds so far have shown about a candidate and its incumbent.

    ``log_ratios``: one per round, log(incumbent's time / candidate's time). ``FASTER``, by more than the fraction
    ``margin``, is wrong with a probability of ``alpha`` at most, over all looks. ``EQUIVALENT``: speeds differ by less
    than ``margin``, as two one-sided tests show. The first verdict that is not ``UNDECIDED`` ends the comparison: no
    more rounds are drawn.

    The margin also covers what all processes of two equal kernels may differ by, for example because of where the code
    of one always lies: no number of rounds can tell that from speed.
    """
    if len(log_ratios) < BLOCK:
        return Verdict.UNDECIDED
    return Verdict(str(verdicts(np.asarray(log_ratios, float), alpha, margin)[-1]))
