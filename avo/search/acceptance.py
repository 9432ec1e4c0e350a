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
    """Return the probability of error that comparison ``number`` of a run, from 1, may spend. All sum to ``alpha``.

    Alpha-spending, the online form of Bonferroni's rule (Foster and Stine 2008, J. R. Statist. Soc. B 70, 429-444):
    however many comparisons a run makes, and whatever the earlier ones showed, the probability of any false acceptance
    in the run is at most ``alpha``. The shares fall like SAFFRON's default (Ramdas et al. 2018, arXiv 1802.09098), so
    slowly that a late comparison keeps its power: see ``docs/acceptance.md``.
    """
    return alpha / (_ZETA * math.pow(number, _DECAY))


def accepts(
    versions: Sequence[Version],
    attempt: Attempt,
    min_gain: float,
    min_share: float,
    rivals: Sequence[Version] | None = None,
) -> bool:
    """Return whether ``attempt`` joins the ``versions`` of a run, oldest first.

    It must be correct, be judged as the versions were, lower to launch plans that no version has, and be better than
    the best of its ``rivals``, by default all versions. A predicted score must beat that of the rival with the highest
    score by ``min_gain`` and in a share of ``min_share`` of the draws (``Score.beats``). A measured score must come
    with a comparison in which it was faster than the last rival, which is the best. The first version, the seed, need
    only be correct, and so need an attempt without rivals.
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
    others = [version.attempt.evaluation.score for version in rivals]
    best = max((other for other in others if other is not None), key=lambda other: other.geomean_tflops, default=None)
    return best is None or score.beats(best, min_gain, min_share)


def outdated(versions: Sequence[Version], attempt: Attempt, rivals: Sequence[Version] | None = None) -> bool:
    """Return whether ``attempt`` was faster in a comparison with a version that is not the best of its ``rivals``.

    Then another comparison has to tell whether it is accepted. An attempt that was not faster than an earlier best
    version is not faster than the present one. ``rivals`` are by default all versions.
    """
    score = attempt.evaluation.score
    if score is None or not versions or not _comparable(versions, attempt, score):
        return False
    rivals = versions if rivals is None else rivals
    comparison = _faster(score)
    return bool(rivals) and comparison is not None and comparison.plan_digest != rivals[-1].attempt.plan_digest


def _comparable(versions: Sequence[Version], attempt: Attempt, score: Score) -> bool:
    """Return whether ``attempt`` was judged as ``versions`` were and is none of them."""
    mine = _yardstick(attempt, score)
    return attempt.plan_digest not in {version.attempt.plan_digest for version in versions} and all(
        _yardstick(version.attempt, version.attempt.evaluation.score) == mine for version in versions
    )


def _yardstick(attempt: Attempt, score: Score | None) -> tuple[object, ...]:
    return (score and (score.kind, score.target, score.card), attempt.evaluation.suite)


def _faster(score: Score) -> Comparison | None:
    comparison = score.comparison
    return comparison if comparison is not None and comparison.verdict is Verdict.FASTER else None
