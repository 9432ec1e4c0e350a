"""Acceptance: whether an attempt becomes a version of the lineage. Pure functions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from avo.evaluator.evaluation import Evaluation, Score, Verdict
from avo.evaluator.resolution import difference
from avo.evaluator.target import ScoreKind
from avo.lineage_db.decision import Decision, Lead, incomparable, repeated, timed, unrivalled
from avo.lineage_db.records import Version

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


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What acceptance asks of a predicted score, as fractions: ``RunConfig`` describes both."""

    min_gain: float
    min_share: float


def decide(
    versions: Sequence[Version], evaluation: Evaluation, thresholds: Thresholds, rivals: Sequence[Version] | None = None
) -> Decision | None:
    """Return whether an attempt would join the ``versions`` of a run, oldest first, and why; None for a faulty one.

    It must be judged as the versions were, lower to launch plans that no version has, and be better than the best of
    its ``rivals``, by default all versions. A predicted score must beat that of the fastest rival by ``min_gain`` and
    in a share of ``min_share`` of the joint draws. A measured score must come with a comparison in which it was faster
    than the last rival, which is the best. The first version need only be correct, and so need an attempt without
    rivals.
    """
    score = evaluation.score
    if score is None:
        return None
    if (wrong := _misfit(versions, evaluation, score)) is not None:
        return wrong
    rivals = versions if rivals is None else rivals
    scored = [(version, other) for version in rivals if (other := version.attempt.evaluation.score)]
    if not versions or not scored:
        return unrivalled()
    if score.kind is ScoreKind.MEASURED:
        best = rivals[-1]
        comparison = score.comparison
        if comparison is not None and comparison.plan_digest != best.attempt.plan_digest:
            comparison = None
        return timed(comparison, best.number)
    best, other = max(scored, key=lambda each: each[1].geomean_tflops)
    theirs = {case.case: case.tflops for case in other.cases}
    gains = [(case.case, case.tflops / theirs[case.case] - 1) for case in score.cases if case.case in theirs]
    behind = [each for each in gains if each[1] < 0]
    found = difference(score, other, thresholds.min_share)
    lead = Lead(best.number, found, min(behind, key=lambda each: each[1], default=None))
    return lead.decide(thresholds.min_gain, thresholds.min_share)


def outdated(versions: Sequence[Version], evaluation: Evaluation, rivals: Sequence[Version] | None = None) -> bool:
    """Return whether an attempt was faster in a comparison with a version that is not the best of its ``rivals``.

    Then another comparison has to tell whether it is accepted. An attempt that was not faster than an earlier best
    version is not faster than the present one. ``rivals`` are by default all versions.
    """
    score = evaluation.score
    if score is None or not versions or _misfit(versions, evaluation, score) is not None:
        return False
    rivals = versions if rivals is None else rivals
    comparison = score.comparison
    if not rivals or comparison is None or comparison.verdict is not Verdict.FASTER:
        return False
    return comparison.plan_digest != rivals[-1].attempt.plan_digest


def _misfit(versions: Sequence[Version], evaluation: Evaluation, score: Score) -> Decision | None:
    """Return why an attempt cannot be compared with ``versions``: it was judged otherwise, or is one of them."""
    for version in versions:
        if version.attempt.plan_digest == evaluation.plan_digest:
            return repeated(f"version {version.number}")
    mine = _yardstick(evaluation, score)
    for version in versions:
        judged = version.attempt.evaluation
        theirs = _yardstick(judged, judged.score)
        if differing := [name for name in mine if mine[name] != theirs[name]]:
            return incomparable(*(", ".join(f"{name} {of[name]}" for name in differing) for of in (mine, theirs)))
    return None


def _yardstick(evaluation: Evaluation, score: Score | None) -> dict[str, str]:
    return {
        "score": str(score.kind) if score else "none",
        "target": score.target if score else "none",
        "card": score.card or "none" if score else "none",
        "suite": evaluation.suite,
    }
