"""The trajectory of a run: every attempt, the running best, and what it is compared with, as data to draw."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from avo.evaluator.catalogue import get_problem, get_suite
from avo.evaluator.errors import EvaluatorError
from avo.evaluator.evaluation import Score, geometric_mean
from avo.evaluator.problem import Baseline
from avo.evaluator.resolution import resolution
from avo.evaluator.units import TFLOPS, figure, unit_of, units_of
from avo.lineage_db.records import AttemptSummary, Outcome, Run, Version
from avo.watch.scores import scored, unit_for
from avo.watch.wording import first_line, headline, unit

ALL = "all"
"""Name of the trajectory of the geometric mean over all cases, which is what a search raises."""
_GROUPS = (("full", False), ("causal", True))
"""Names of the groups of cases, in the order of their trajectories, and whether their cases are causal."""


@dataclass(frozen=True, slots=True)
class AttemptScores:
    """All attempts of a run, oldest first."""

    ids: tuple[int, ...]
    tflops: tuple[float, ...]
    """Geometric mean over the cases; 0 for an attempt without a score, which is faulty or unverified."""

    @property
    def last(self) -> int:
        """Id of the newest attempt; 0 without any."""
        return self.ids[-1] if self.ids else 0

    def with_more(self, newer: Sequence[Outcome | AttemptSummary]) -> "AttemptScores":
        """Return these attempts and newer ones."""
        return AttemptScores(
            (*self.ids, *(attempt.attempt_id for attempt in newer)),
            (*self.tflops, *(attempt.geomean_tflops for attempt in newer)),
        )


NOTHING = AttemptScores((), ())


@dataclass(frozen=True, slots=True)
class CaseSpeeds:
    """The speed on one benchmark case, version by version."""

    name: str
    values: tuple[float, ...]
    """Speed of each version, in the trajectory's unit."""


@dataclass(frozen=True, slots=True)
class BaselineLevel:
    """A published baseline, drawn as a horizontal line."""

    name: str
    value: float
    """Its speed."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """How a run got faster on some benchmark cases, as figures 5 and 6 of the AVO paper (arXiv 2603.24517) draw it."""

    name: str
    """Name of the group of cases: ``full``, ``causal`` or ``all``."""
    unit: str
    """The unit of the numbers, e.g. ``predicted TFLOPS, h100``."""
    versions: tuple[int, ...]
    """Numbers of the versions; never empty."""
    places: tuple[int, ...]
    """Which attempt of the run each version was, counted from 1. A version whose attempt was made before that of an
    earlier version has the earlier version's place.
    """
    scores: tuple[float, ...]
    """Geometric mean over the cases, one for each version, in the unit."""
    changes: tuple[str, ...]
    """What each version changed."""
    cases: tuple[CaseSpeeds, ...]
    levels: tuple[BaselineLevel, ...]
    """The baselines that have a figure for each of the cases, as geometric means over them."""
    attempts: int
    """Number of attempts of the run: where the lines end."""
    refused: tuple[tuple[int, float], ...] = ()
    """Place and speed of each correct attempt that is no version; empty unless the trajectory is that of all cases."""
    faulty: tuple[int, ...] = ()
    """Place of each attempt without a score; empty unless the trajectory is that of all cases."""
    bands: tuple[tuple[float, float], ...] = ()
    """Between which two speeds each version cannot be told apart from another; empty where that of none is known."""

    @property
    def best(self) -> tuple[float, ...]:
        """The best score up to each version, in TFLOPS."""
        return tuple(self.scores[holder] for holder in self.holders)

    @property
    def holders(self) -> tuple[int, ...]:
        """For each version, the index of the one that has the best score up to it."""
        found: list[int] = []
        for place, score in enumerate(self.scores):
            found.append(place if not found or score > self.scores[found[-1]] else found[-1])
        return tuple(found)

    @property
    def records(self) -> tuple[int, ...]:
        """Indices of the versions that set a new best."""
        return tuple(place for place, holder in enumerate(self.holders) if place == holder)

    @property
    def ideas(self) -> list[tuple[int, str]]:
        """Index of each version after the first that set a new best, and what it did in few words: the largest gain
        first.
        """
        before = dict(zip(self.records[1:], self.records, strict=False))
        largest = sorted(before, key=lambda place: self.scores[before[place]] / self.scores[place])
        return [(place, headline(self.changes[place])) for place in largest]

    def steps(self, values: Sequence[float]) -> Iterator[tuple[int, float]]:
        """Yield the place from which a value of the version that holds the best is in force, and the value."""
        last = None
        for place, holder in zip(self.places, self.holders, strict=True):
            if values[holder] != last:
                last = values[holder]
                yield place, last

    def labels(self, most: int, *, with_cases: bool = True) -> list[tuple[str, float, str]]:
        """Return text, value and style of the labels at the ends of the lines, the highest value first.

        A style is ``best``, ``level``, or the index of the case. If there are more than ``most``, cases are left out
        first.
        """
        last = self.holders[-1]
        found = [("best", self.best[-1], "best")]
        found += [(level.name, level.value, "level") for level in self.levels]
        if with_cases and len(self.cases) > 1:
            found += [(line.name, line.values[last], str(number)) for number, line in enumerate(self.cases)]
        named = (
            (f"{figure(value)} {first_line(words)}", value, style) for words, value, style in found[: max(most, 1)]
        )
        return sorted(named, key=lambda label: -label[1])

    def shown(self) -> Iterator[float]:
        """Yield every speed that a drawing shows, in TFLOPS."""
        yield from self.scores
        for line in self.cases:
            yield from (line.values[holder] for holder in self.holders)
        yield from (level.value for level in self.levels)
        yield from (tflops for _, tflops in self.refused)


def cases_of(scores: Sequence[Score]) -> list[str]:
    """Return the names of the cases that all scores have, in order."""
    common = set.intersection(*({case.case for case in score.cases} for score in scores))
    return [case.case for case in scores[-1].cases if case.case in common]


def overall(
    run: Run, versions: Sequence[Version], tried: AttemptScores, baselines: Sequence[Baseline]
) -> Trajectory | None:
    """Return the trajectory over all cases, with every attempt; None without versions or without cases that all have.

    Versions that are not among ``tried`` yet are left out.
    """
    place_of = {made: place for place, made in enumerate(tried.ids, 1)}
    versions = [version for version in versions if version.attempt.id in place_of]
    if not versions:
        return None
    made = [place_of[version.attempt.id] for version in versions]
    accepted = set(made)
    places = tuple(accumulate(made, max))  # seeds become versions in the order of their speed
    others = [(place, tflops) for place, tflops in enumerate(tried.tflops, 1) if place not in accepted]
    cases = cases_of([scored(version) for version in versions])
    if not cases:
        return None
    of = unit_for(run, scored(versions[-1]))
    return _trajectory(
        run, ALL, cases, versions, places, baselines, len(tried.ids),
        tuple((place, of.value(tflops)) for place, tflops in others if tflops),
        tuple(place for place, tflops in others if not tflops),
    )  # fmt: skip


def by_group(run: Run, whole: Trajectory, versions: Sequence[Version], baselines: Sequence[Baseline]) -> tuple[
    Trajectory, ...
]:  # fmt: skip
    """Return a trajectory of the full and one of the causal cases of ``whole``; none if it has only one kind of them.

    Only versions have a place in them: the speeds of other attempts are kept as one mean over all cases.
    """
    groups = _grouped(run, [line.name for line in whole.cases])
    if len(groups) < 2:
        return ()
    return tuple(
        _trajectory(run, name, cases, versions, whole.places, baselines, whole.attempts)
        for name, cases in groups.items()
    )


def _trajectory(
    run: Run,
    name: str,
    cases: Sequence[str],
    versions: Sequence[Version],
    places: tuple[int, ...],
    baselines: Sequence[Baseline],
    attempts: int,
    refused: tuple[tuple[int, float], ...] = (),
    faulty: tuple[int, ...] = (),
) -> Trajectory:
    scores = [scored(version) for version in versions]
    card = scores[-1].card
    of = unit_of(run.problem, run.suite, run.target, card, cases)
    units = units_of(run.problem, run.suite, run.target, card) if of.nbytes else {}

    def value(case: str, tflops: float) -> float:
        return units.get(case, TFLOPS).value(tflops)

    speeds = [{case.case: value(case.case, case.tflops) for case in score.cases} for score in scores]
    neighbours = [score.geomean_tflops / score.own_tflops for score in scores]
    means = tuple(
        geometric_mean(each[case] for case in cases) * factor for each, factor in zip(speeds, neighbours, strict=True)
    )
    widths = [1 + (resolution(score) or 0.0) for score in scores]
    bands = tuple((mean / width, mean * width) for mean, width in zip(means, widths, strict=True))
    return Trajectory(
        name,
        unit(scores[-1], of),
        tuple(version.number for version in versions),
        places,
        means,
        tuple(version.change for version in versions),
        tuple(CaseSpeeds(case, tuple(each[case] for each in speeds)) for case in cases),
        tuple(
            BaselineLevel(baseline.name, geometric_mean(value(case, baseline.tflops[case]) for case in cases))
            for baseline in baselines
            if baseline.target == scores[-1].target and baseline.tflops.keys() >= set(cases)
        ),
        attempts,
        refused,
        faulty,
        bands if max(widths) > 1 else (),
    )


def _grouped(run: Run, cases: Sequence[str]) -> dict[str, list[str]]:
    """Return full and causal cases as separate groups; none if this installation does not have the problem."""
    try:
        causal = {case.name: case.causal for case in get_suite(get_problem(run.problem), run.suite)}
    except EvaluatorError:
        return {}
    if not causal.keys() >= set(cases):
        return {}
    groups = {name: [case for case in cases if causal[case] == wanted] for name, wanted in _GROUPS}
    return {name: group for name, group in groups.items() if group}
