"""Acceptance: whether an attempt becomes a version of the lineage. Pure functions."""

import math
from collections.abc import Sequence

from evaluator.evaluation import Comparison, Score, Verdict
from evaluator.target import ScoreKind
from lineage_db.records import Attempt, Version

_DECAY = 1.6
_ZETA = 2.2857656656800214
"""Riemann's zeta function of ``_DECAY``: the sum of 1 / number ** _DECAY over all numbers from 1."""


def share_of_alpha(alpha: float, number: int) -> float:
    """Return the probability of error that comparison ``number`` of a run, from 1, may spend; all sum to ``alpha``.

    Alpha-spending, the online form of Bonferroni's rule (Foster and Stine 2008, J. R. Statist. Soc. B 70, 429-444):
    however many comparisons a run makes, and whatever the earlier ones showed, the probability of a false acceptance
    anywhere in it is ``alpha`` at most. The shares fall as those of SAFFRON do by default (Ramdas et al. 2018, arXiv
    1802.09098), so slowly that a late comparison keeps its power: see ``docs/acceptance.md``.
    """
    return alpha / (_ZETA * math.pow(number, _DECAY))


def accepts(
    versions: Sequence[Version], attempt: Attempt, min_gain: float, rivals: Sequence[Version] | None = None
) -> bool:
    """Return whether ``attempt`` joins the ``versions`` of a run, oldest first.

    It must be correct, judged like the versions, lower to launch plans that no version has, and be better than its
    ``rivals``, by default all: a predicted score beats every one's by ``min_gain`` (``Score.beats``), a measured one
    was shown faster than the best of them, the last, in a comparison with it. The first version, the seed, need only be
    correct, and so need one without rivals.
    """
    score = attempt.evaluation.score
    if score is None:
        return False
    if not versions:
        return True
    if not _comparable(versions, attempt, score):
        return False
    rivals = versions if rivals is None else rivals
    if score.kind is ScoreKind.MEASURED:
        comparison = _faster(score)
        return not rivals or (comparison is not None and comparison.plan_digest == rivals[-1].attempt.plan_digest)
    others = (version.attempt.evaluation.score for version in reversed(rivals))  # the best first: it settles most
    return all(other is None or score.beats(other, min_gain) for other in others)


def outdated(versions: Sequence[Version], attempt: Attempt, rivals: Sequence[Version] | None = None) -> bool:
    """Return whether ``attempt`` was shown faster than a version that is not the best of its ``rivals``, or of all.

    Then only another comparison can tell whether it is to be accepted. One that was not faster than an earlier best
    version is not faster than the present one.
    """
    score = attempt.evaluation.score
    if score is None or not versions or not _comparable(versions, attempt, score):
        return False
    rivals = versions if rivals is None else rivals
    comparison = _faster(score)
    return bool(rivals) and comparison is not None and comparison.plan_digest != rivals[-1].attempt.plan_digest


def _comparable(versions: Sequence[Version], attempt: Attempt, score: Score) -> bool:
    """Whether it was judged like ``versions`` and is none of them."""
    mine = _yardstick(attempt, score)
    return attempt.plan_digest not in {version.attempt.plan_digest for version in versions} and all(
        _yardstick(version.attempt, version.attempt.evaluation.score) == mine for version in versions
    )


def _yardstick(attempt: Attempt, score: Score | None) -> tuple[object, ...]:
    return (score and (score.kind, score.target, score.card), attempt.evaluation.suite)


def _faster(score: Score) -> Comparison | None:
    comparison = score.comparison
    return comparison if comparison is not None and comparison.verdict is Verdict.FASTER else None
