"""Acceptance: whether an attempt becomes a version of the lineage. Pure functions."""

from collections.abc import Sequence

from evaluator.evaluation import Score
from lineage_db.records import Attempt, Version


def accepts(versions: Sequence[Version], attempt: Attempt, min_gain: float) -> bool:
    """Return whether ``attempt`` joins the lineage ``versions``.

    It must be correct, judged like the versions (same kind of score, target and suite), lower to launch plans that no
    version has, and beat every version by ``min_gain`` (``Score.beats``). The first version, the seed, need only be
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
    others = (version.attempt.evaluation.score for version in versions)
    return all(other is None or score.beats(other, min_gain) for other in others)


def _yardstick(attempt: Attempt, score: Score | None) -> tuple[object, ...]:
    return (score and score.kind, score and score.target, attempt.evaluation.suite)
