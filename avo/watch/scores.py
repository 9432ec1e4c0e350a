"""Scores of versions: how they are read, and how they compare with each other and with published baselines."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluator.catalogue import get_problem
from evaluator.errors import EvaluatorError
from evaluator.evaluation import Score, geometric_mean
from evaluator.problem import Baseline
from lineage_db.records import Version


def geomean(version: Version) -> float:
    """The version's rank, in TFLOPS."""
    return version.attempt.evaluation.geomean_tflops


def gain(version: Version, versions: Mapping[int, Version]) -> float | None:
    """How much faster a version is than the fastest of its parents, 0.03 being 3 percent; None for the seed."""
    parents = [geomean(versions[number]) for number in version.parents if number in versions]
    return geomean(version) / max(parents) - 1 if parents else None


@dataclass(frozen=True, slots=True)
class BaselineComparison:
    """A score beside a published baseline, both as geometric means in TFLOPS over the cases that both have."""

    name: str
    ours: float
    published: float
    shared: int
    """Number of cases that both have."""
    total: int
    """Number of cases of the score."""


def compare(score: Score, baselines: Sequence[Baseline]) -> list[BaselineComparison]:
    """Return the score beside each baseline of the same target that shares a case with it, the slowest first."""
    found = []
    for baseline in baselines:
        shared = [case for case in score.cases if case.case in baseline.tflops]
        if baseline.target == score.target and shared:
            found.append(
                BaselineComparison(
                    baseline.name,
                    geometric_mean(case.tflops for case in shared),
                    geometric_mean(baseline.tflops[case.case] for case in shared),
                    len(shared),
                    len(score.cases),
                )
            )
    return sorted(found, key=lambda comparison: comparison.published)


def published(problem: str) -> tuple[Baseline, ...]:
    """Return the published figures of a problem; none of one that this installation does not have."""
    try:
        return get_problem(problem).baselines
    except EvaluatorError:
        return ()


def lines(
    score: Score, baselines: Sequence[Baseline], versions: Iterable[Version]
) -> list[tuple[int, BaselineComparison]]:
    """Return the baselines that cover every case of the score, the slowest first: lines that versions have to pass.

    Each with the number of ``versions`` that stand before the first that reaches it, as they are ordered.
    """
    reached = [geomean(version) for version in versions]
    return [
        (next((place for place, tflops in enumerate(reached) if tflops >= found.published), len(reached)), found)
        for found in compare(score, baselines)
        if found.shared == found.total
    ]


def score_to_json(version: Version) -> dict[str, Any]:
    """Return how fast a version is, as data for JSON that says how that is known."""
    score = scored(version)
    return {
        "version": version.number,
        "kind": score.kind,
        "target": score.target,
        "card": score.card or None,
        "geomean_tflops": score.geomean_tflops,
    }


def scored(version: Version) -> Score:
    """Return the score of a version, which has one."""
    score = version.attempt.evaluation.score
    assert score is not None, "only correct attempts become versions"
    return score
