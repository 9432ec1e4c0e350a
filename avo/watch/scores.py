"""Scores of versions: reading them, and comparing them with each other and with published baselines."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from avo.evaluator.catalogue import get_problem
from avo.evaluator.errors import EvaluatorError
from avo.evaluator.evaluation import Score, geometric_mean
from avo.evaluator.problem import Baseline
from avo.evaluator.resolution import between
from avo.evaluator.units import Unit, unit_of
from avo.lineage_db.records import Run, Version
from avo.watch.wording import percent


def geomean(version: Version) -> float:
    """Return the version's rank: see ``Score.geomean_tflops``."""
    return version.attempt.evaluation.geomean_tflops


def gain(version: Version, versions: Mapping[int, Version]) -> float | None:
    """Return how much faster a version is than the fastest of its parents, 0.03 being 3 percent; None without any."""
    parent = _parent(version, versions)
    return geomean(version) / geomean(parent) - 1 if parent else None


def width(version: Version | None, over: Version | None = None) -> float | None:
    """Return the gain from which on a version is told apart from ``over``, or else from one with such neighbours as its
    own.
    """
    return between(*(each.attempt.evaluation.score if each else None for each in (version, over)))


def over_parent(version: Version, versions: Mapping[int, Version]) -> str:
    """Return a version's ``gain`` in words, with the width of the difference; nothing without a parent."""
    return percent(gain(version, versions), width(version, _parent(version, versions)))


def _parent(version: Version, versions: Mapping[int, Version]) -> Version | None:
    """Return the fastest of a version's parents."""
    return max((versions[number] for number in version.parents if number in versions), key=geomean, default=None)


def unit_for(run: Run, score: Score | None = None) -> Unit:
    """Return the unit of a run's scores, of which one is ``score``."""
    return unit_of(run.problem, run.suite, run.target, score.card if score else "")


@dataclass(frozen=True, slots=True)
class BaselineComparison:
    """A score compared with a published baseline: geometric means in TFLOPS over the cases that both have."""

    name: str
    ours: float
    published: float
    shared: int
    """Number of cases that both have."""
    total: int
    """Number of cases of the score."""
    low: float = 0.0
    """The low end of ``ours``, 0 where it is not known."""
    high: float = 0.0

    @property
    def ratio(self) -> str:
        """How many times as fast ours is, with its range: ``0.94 (0.71 to 1.13)``."""
        ends = f" ({self.low / self.published:.2f} to {self.high / self.published:.2f})" if self.low else ""
        return f"{self.ours / self.published:.2f}{ends}"


def compare(
    score: Score, baselines: Sequence[Baseline], speeds: Mapping[str, float] | None = None
) -> list[BaselineComparison]:
    """Return the score compared with each baseline of its target that shares a case with it, the slowest first.

    ``speeds`` in TFLOPS by case stand in the place of the score's.
    """
    found = []
    for baseline in baselines:
        shared = [case for case in score.cases if case.case in baseline.tflops]
        if baseline.target == score.target and shared:
            found.append(
                BaselineComparison(
                    baseline.name,
                    geometric_mean((speeds or {}).get(case.case, case.tflops) for case in shared),
                    geometric_mean(baseline.tflops[case.case] for case in shared),
                    len(shared),
                    len(score.cases),
                    *(
                        (geometric_mean(c.low_tflops for c in shared), geometric_mean(c.high_tflops for c in shared))
                        if all(case.low_tflops for case in shared)
                        else ()
                    ),
                )
            )
    return sorted(found, key=lambda comparison: comparison.published)


def published(problem: str) -> tuple[Baseline, ...]:
    """Return the published baselines of a problem; empty if this installation does not have the problem."""
    try:
        return get_problem(problem).baselines
    except EvaluatorError:
        return ()


def lines(
    score: Score, baselines: Sequence[Baseline], versions: Iterable[Version]
) -> list[tuple[int, BaselineComparison]]:
    """Return the baselines that cover every case of the score, the slowest first.

    Each comes with its place among ``versions``, in their order: the number of versions before the first that reaches
    it.
    """
    reached = [geomean(version) for version in versions]
    return [
        (next((place for place, tflops in enumerate(reached) if tflops >= found.published), len(reached)), found)
        for found in compare(score, baselines)
        if found.shared == found.total
    ]


def score_to_json(version: Version) -> dict[str, Any]:
    """Return a version's score as data for JSON, with how and for which target it was obtained."""
    score = scored(version)
    return {
        "version": version.number,
        "kind": score.kind,
        "target": score.target,
        "card": score.card or None,
        "geomean_tflops": score.geomean_tflops,
    }


def scored(version: Version) -> Score:
    """Return the version's score; every version has one."""
    score = version.attempt.evaluation.score
    assert score is not None, "only correct attempts become versions"
    return score
