"""Snapshots: a frozen picture of one run for live readers, taken from the database and from nothing else."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from threading import Event
from typing import TypeVar

from evaluator.catalogue import get_problem
from evaluator.errors import EvaluatorError
from evaluator.evaluation import Score, Status, geometric_mean
from evaluator.problem import Baseline
from evaluator.target import ScoreKind
from lineage_db.errors import StoreError
from lineage_db.records import AttemptSummary, Run, RunState, Spend, Step, StepState, Version
from lineage_db.spans import covered
from lineage_db.store import Store

T = TypeVar("T")

PATIENCE = 1.5
"""By how much the pause between two looks at a database grows while nothing changes there."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """A run and its versions at one revision of the database."""

    run: Run
    revision: tuple[object, ...]
    versions: tuple[Version, ...]
    """Seed first."""
    running: tuple[Step, ...]
    """Steps that workers hold now."""

    @property
    def seed(self) -> Version | None:
        """Version 0, once it is evaluated."""
        return self.versions[0] if self.versions else None

    @property
    def best(self) -> Version | None:
        """The last champion: it was accepted as better than all before it."""
        return next((version for version in reversed(self.versions) if version.champion), None)

    @property
    def kind(self) -> ScoreKind | None:
        """How the run's scores are obtained; None while it has none."""
        score = self.seed.attempt.evaluation.score if self.seed else None
        return score.kind if score else None

    @property
    def last_gain(self) -> datetime | None:
        """When the last version was accepted."""
        return self.versions[-1].accepted if self.versions else None

    @property
    def by_number(self) -> Mapping[int, Version]:
        """The versions by number."""
        return {version.number: version for version in self.versions}


@dataclass(frozen=True, slots=True)
class Snapshot(Lineage):
    """What a run looked like, with everything that was tried."""

    attempts: tuple[AttemptSummary, ...]
    """Every attempt, oldest first."""
    busy: timedelta
    """Time in which at least one step that came to an end was under way: pauses between resumes do not count."""
    concluded: int
    """Attempts made in that time."""
    spend: Spend = field(default_factory=Spend)
    """What calls of models came to."""
    trouble: str = ""
    """Why the last call of a model gave no reply; empty where it did."""

    @property
    def counts(self) -> Mapping[Status, int]:
        """Attempts by verdict, the most frequent first."""
        return dict(Counter(attempt.status for attempt in self.attempts).most_common())

    @property
    def attempts_per_minute(self) -> float | None:
        """Attempts a minute over the busy time; None before the first step has come to an end."""
        return self.concluded / (self.busy.total_seconds() / 60) if self.concluded and self.busy else None


def read_snapshot(store: Store, run_name: str, previous: Snapshot | None = None) -> Snapshot:
    """Return the run as it is now: ``previous`` itself if nothing changed, else reading only the new attempts.

    Raises ``UnknownRun`` and the store's other errors.
    """
    run = previous.run if previous else store.run(run_name)
    revision = tuple(store.revision(run.id))
    if previous and previous.revision == revision:
        return previous
    run = store.run(run_name)
    known = previous.attempts if previous and previous.run.id == run.id else ()
    attempts = known + tuple(store.attempt_summaries(run.id, after=known[-1].attempt_id if known else 0))
    versions = read_versions(store, run, previous)
    accepted = {version.attempt.id: version.number for version in versions}
    steps = store.steps(run.id)
    spend = store.journal.spend(run.id)
    last = store.journal.last_call(run.id) if spend.calls else None
    ended = {step.number: step for step in steps if step.state in (StepState.DONE, StepState.FAILED)}
    return Snapshot(
        run=run,
        revision=revision,
        versions=versions,
        running=tuple(step for step in steps if step.state is StepState.RUNNING)
        if run.state is RunState.RUNNING
        else (),
        attempts=tuple(_with_version(attempt, accepted.get(attempt.attempt_id)) for attempt in attempts),
        busy=covered((step.started, step.finished) for step in ended.values() if step.finished),
        concluded=sum(attempt.step_number in ended for attempt in attempts),
        spend=spend,
        trouble=last.error if last else "",
    )


def read_versions(store: Store, run: Run, previous: Lineage | None) -> tuple[Version, ...]:
    """Return the run's versions, of which only those that ``previous`` lacks are read: a version does not change."""
    known = previous.versions if previous and previous.run.id == run.id else ()
    return known + tuple(store.versions(run.id, after=len(known) - 1))


def follow(
    store_url: str,
    read: Callable[[Store, T | None], T],
    receive: Callable[[T | StoreError], None],
    stop: Event,
    interval_s: float,
    *,
    idle_s: float | None = None,
    wake: Event | None = None,
) -> None:
    """Read until ``stop`` is set, and once more then; ``receive`` each value or error that differs from the last.

    ``read`` gets the value it returned last. A database that is missing, locked or without the run is asked again.
    While nothing changes, the pause grows from ``interval_s`` to ``idle_s``, where that is given. ``wake`` ends a
    pause; where it is given, whoever sets ``stop`` sets it too.
    """
    value: T | None = None
    complaint = ""
    store: Store | None = None
    pause_s = interval_s
    while True:
        last = stop.is_set()
        pause_s = min(pause_s * PATIENCE, max(idle_s or 0.0, interval_s))
        try:
            store = store or Store.open(store_url, create=False)
            new = read(store, value)
            if new is not value or complaint:
                value, complaint, pause_s = new, "", interval_s
                receive(new)
        except StoreError as error:
            if store:
                store.close()
            store = None
            if str(error) != complaint:
                complaint = str(error)
                receive(error)
        if last:
            break
        if (wake or stop).wait(pause_s) and wake:
            wake.clear()
            pause_s = interval_s
    if store:
        store.close()


def geomean(version: Version) -> float:
    """The version's rank, in TFLOPS."""
    return version.attempt.evaluation.geomean_tflops


def gain(version: Version, versions: Mapping[int, Version]) -> float | None:
    """How much faster a version is than the fastest of its parents, 0.03 being 3 percent; None for the seed."""
    parents = [geomean(versions[number]) for number in version.parents if number in versions]
    return geomean(version) / max(parents) - 1 if parents else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A score beside a published baseline, both as geometric means in TFLOPS over the cases that both have."""

    name: str
    ours: float
    published: float
    shared: int
    """Number of cases that both have."""
    total: int
    """Number of cases of the score."""


def compare(score: Score, baselines: Sequence[Baseline]) -> list[Comparison]:
    """Return the score beside each baseline of the same target that shares a case with it, the slowest first."""
    found = []
    for baseline in baselines:
        shared = [case for case in score.cases if case.case in baseline.tflops]
        if baseline.target == score.target and shared:
            found.append(
                Comparison(
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


def lines(score: Score, baselines: Sequence[Baseline], versions: Iterable[Version]) -> list[tuple[int, Comparison]]:
    """Return the baselines that cover every case of the score, the slowest first: lines that versions have to pass.

    Each with the number of ``versions`` that stand before the first that reaches it, as they are ordered.
    """
    reached = [geomean(version) for version in versions]
    return [
        (next((place for place, tflops in enumerate(reached) if tflops >= found.published), len(reached)), found)
        for found in compare(score, baselines)
        if found.shared == found.total
    ]


def _with_version(attempt: AttemptSummary, version: int | None) -> AttemptSummary:
    return attempt if attempt.version == version else replace(attempt, version=version)
