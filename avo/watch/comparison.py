"""Comparing runs: how fast the best version was after the same attempts, looks, hours, tokens or US dollars."""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from avo.errors import Incomparable
from avo.evaluator.resolution import resolution
from avo.evaluator.target import ScoreKind
from avo.lineage_db.records import Run
from avo.lineage_db.spans import covered
from avo.lineage_db.store import Store

COSTS = ("attempts", "looks", "hours", "tokens", "usd")
"""The costs at which runs can be compared."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a run had spent at some moment."""

    attempts: int
    looks: int
    hours: float
    """Time in which at least one step was under way."""
    tokens: int
    usd: float
    """What the calls whose price is known cost."""


@dataclass(frozen=True, slots=True)
class Advance:
    """A version that was the best of its run."""

    version: int
    tflops: float
    """Geometric mean over the benchmark cases."""
    resolution: float | None
    """The gain from which on another kernel would be told apart from it; None where that is not known."""
    spent: Spent
    """What the run had spent when the version's attempt was evaluated."""


@dataclass(frozen=True, slots=True)
class Course:
    """How one run progressed."""

    run: str
    operator: str
    kind: ScoreKind
    place: str
    """The target, or the GPU on which speeds were measured."""
    advances: tuple[Advance, ...]
    """Versions that were the best of the run, oldest first; never empty."""
    spent: Spent
    """What the whole run spent."""

    def best_at(self, cost: str, amount: float) -> float | None:
        """Return the best speed in TFLOPS that the run had reached at a cost of ``amount``; None if it spent less than
        that.
        """
        if getattr(self.spent, cost) < amount:
            return None
        reached = [advance.tflops for advance in self.advances if getattr(advance.spent, cost) <= amount]
        return reached[-1] if reached else None

    def to_json(self) -> dict[str, Any]:
        """Return the course as plain data for JSON."""
        return asdict(self)


def course(store: Store, run: Run) -> Course:
    """Return how ``run`` progressed. Raises ``Incomparable`` if it has no version, and the store's errors."""
    champions = [version for version in store.versions(run.id) if version.champion]
    score = champions[0].attempt.evaluation.score if champions else None
    if score is None:
        raise Incomparable(f"run {run.name!r} has no accepted version yet: avo status {run.name} says how far it is")
    steps, calls = store.steps(run.id), store.journal.calls(run.id)
    ids = [attempt.attempt_id for attempt in store.attempt_summaries(run.id)]
    looked = [look.made for look in store.history(run.id).looks]
    spans = [(step.started, step.finished) for step in steps if step.finished]

    def spent(attempts: int, until: datetime) -> Spent:
        worked = covered((start, min(end, until)) for start, end in spans if start < until)
        paid = [call for call in calls if call.finished <= until]
        tokens = sum(call.input_tokens + call.output_tokens for call in paid)
        looks = bisect_right(looked, until)
        return Spent(attempts, looks, worked / timedelta(hours=1), tokens, sum(call.usd or 0.0 for call in paid))

    advances = tuple(
        Advance(
            version.number,
            version.attempt.evaluation.geomean_tflops,
            resolution(version.attempt.evaluation.score) if version.attempt.evaluation.score else None,
            spent(sum(known <= version.attempt.id for known in ids), version.attempt.finished),
        )
        for version in champions
    )
    end = max([run.created, *(end for _, end in spans), *(call.finished for call in calls)])
    return Course(run.name, run.operator, score.kind, score.card or score.target, advances, spent(len(ids), end))


def check_comparable(runs: Sequence[Run], courses: Sequence[Course]) -> None:
    """Raise ``Incomparable`` unless the scores of all runs mean the same."""
    first, known = courses[0], runs[0]
    for run, other in zip(runs, courses, strict=True):
        for what, mine, theirs in (
            ("problem", known.problem, run.problem),
            ("suite", known.suite, run.suite),
            ("target", first.place, other.place),
            ("kind of score", first.kind, other.kind),
        ):
            if mine != theirs:
                raise Incomparable(
                    f"{known.name} and {run.name} differ in {what} ({mine}, {theirs}): their scores cannot be compared"
                )


def marks(courses: Sequence[Course], cost: str) -> list[float]:
    """Return round amounts of a cost (1, 2, 5, 10, ...) at which to compare runs, up to the most that one of them
    spent.

    Empty if no run spent any.
    """
    most = max(getattr(found.spent, cost) for found in courses)
    least = min(
        (getattr(a.spent, cost) for found in courses for a in found.advances if getattr(a.spent, cost) > 0),
        default=most,
    )
    return [mark for mark in _round_numbers(least) if mark <= most] if most > 0 else []


def _round_numbers(least: float) -> Iterator[float]:
    """Yield 1, 2 and 5 times powers of ten, from ``least`` on, over nine decades."""
    power = math.floor(math.log10(least))
    for exponent in range(power, power + 9):
        for digit in (1, 2, 5):
            mark = float(f"{digit}e{exponent}")
            if mark >= least:
                yield mark
