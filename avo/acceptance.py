"""Acceptance: whether an attempt becomes a version of the lineage. Pure functions."""

from collections.abc import Sequence

from evaluator.evaluation import Score
from lineage_db.records import Attempt, Version


def accepts(versions: Sequence[Version], attempt: Attempt, min_gain: float) -> bool:
    """Return whether ``attempt`` joins the lineage ``versions``.

    It must be correct, judged like the versions (same kind of score, target and suite), lower to launch plans that no
    version has, and reach ``1 + min_gain`` times the best geometric mean. The first version, the seed, need only be
    correct.
    """
    score = attempt.evaluation.score
    if score is None:
        return False
    if not versions:
        return True
    if any(
        _yardstick(version.attempt, version.attempt.evaluation.score) != _yardstick(attempt, score)
        for version in versions
    ):
        return False
    if attempt.plan_digest in {version.attempt.plan_digest for version in versions}:
        return False
    best = max(version.attempt.evaluation.geomean_tflops for version in versions)
    return score.geomean_tflops >= best * (1 + min_gain)


def _yardstick(attempt: Attempt, score: Score | None) -> tuple[object, ...]:
    return (score and score.kind, score and score.target, attempt.evaluation.suite)
