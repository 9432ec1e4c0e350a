"""Transfer: what a run takes over from another one, perhaps of another problem, and how soon that paid."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec

from avo.agents.directions import directions
from avo.agents.errors import BudgetSpent, CandidateTaken
from avo.agents.operator import UNRESOLVED, Brief, Proposal, Transferred, VariationOperator
from avo.config import DIRECTIONS, TIMED_FIRST, TRANSFERRED
from avo.evaluator.catalogue import get_problem
from avo.evaluator.problem import signature
from avo.evaluator.target import ScoreKind
from avo.lineage_db.decision import Ruling
from avo.lineage_db.directions import Direction
from avo.lineage_db.records import Attempt, AttemptSummary, Run, Step, Version
from avo.lineage_db.spans import covered
from avo.lineage_db.store import Store


class Use(StrEnum):
    """What a run makes of a version of another problem."""

    SEED = "seed"
    """Both problems have the same signature: it is the run's seed as it is."""
    ADAPT = "adapt"
    """The run starts from the seeds of its own problem, and its operator is given the version to adapt."""
    NOTHING = "nothing"
    """The run starts from the seeds of its own problem, and its operator cannot adapt the version."""


@dataclass(frozen=True, slots=True)
class Milestone:
    """When something happened in a run."""

    attempts: int
    """Attempts made until then, this one included."""
    minutes: float
    """Minutes of work until then; time in which no step was under way does not count."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How a transfer went. The AVO paper (arXiv 2603.24517) reports 30 minutes from multi-head to grouped-query
    attention.
    """

    origin: str
    """Where the run started from, as RUN@VERSION or RUN#ATTEMPT."""
    problem: str
    """The problem of the run that it started from."""
    use: Use
    correct: Milestone | None
    """The first correct attempt; where the run has seeds of its own, the first after them."""
    better: Milestone | None
    """The first version that is better than the seed. Both are None where nothing could be adapted."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def record(run: Run, attempt: Attempt, version: Version | None, problem: str, adapts: bool) -> dict[str, Any] | None:
    """Return what a new run for ``problem`` that starts from ``attempt`` of ``run`` stores under ``TRANSFERRED``.

    ``version`` is the attempt as a version, None where it is none. ``adapts``: whether the new run's operator can adapt
    a kernel with another signature. None where both runs have the same problem.
    """
    if run.problem == problem:
        return None
    alike = signature(get_problem(run.problem)) == signature(get_problem(problem))
    return {
        "run": run.name,
        "version": version.number if version else max(attempt.parents, default=0),
        **({} if version else {"attempt": attempt.id}),
        "use": Use.SEED if alike else Use.ADAPT if adapts else Use.NOTHING,
    }


def transferred(store: Store, run: Run) -> Transferred | None:
    """Return what ``run`` has taken over, None where that is nothing; raises the store's errors."""
    kept = run.config.get(TRANSFERRED)
    if kept is None:
        return None
    origin = store.run(kept["run"])
    attempt = store.attempt(origin.id, kept["attempt"]) if "attempt" in kept else None
    return Transferred(origin, tuple(store.versions(origin.id)[: kept["version"] + 1]), attempt)


def taken_over(run: Run) -> list[Direction]:
    """Return the directions of other runs that ``run`` was given when it began."""
    return msgspec.convert(run.config.get(DIRECTIONS, ()), list[Direction])


def known_directions(store: Store, run: Run) -> list[Direction]:
    """Return the directions that a run knows, its own and those that it has taken over; raises the store's errors."""
    memories, attempts = store.journal.memories(run.id), store.attempt_summaries(run.id)
    return directions(memories, attempts, store.versions(run.id), taken_over(run))


def timed_first(store: Store, run: Run, start: Attempt) -> list[dict[str, str]]:
    """Return what a run on a GPU that starts from ``start`` of ``run`` stores under ``TIMED_FIRST``.

    These are the fastest unresolved attempts of ``run`` that are predicted to be faster than ``start``, at most
    ``UNRESOLVED``: the model cannot tell whether they are, and the GPU can. Empty where ``run`` was measured itself.
    """
    score = start.evaluation.score
    if score is None or score.kind is not ScoreKind.PREDICTED:
        return []
    found = [
        attempt
        for attempt in store.attempt_summaries(run.id)
        if attempt.ruling is Ruling.UNRESOLVED
        and attempt.geomean_tflops > score.geomean_tflops
        and attempt.attempt_id != start.id
    ]
    found.sort(key=lambda attempt: -attempt.geomean_tflops)
    return [
        {
            "name": f"{run.name}#{attempt.attempt_id}",
            "change": attempt.change,
            "source": store.attempt(run.id, attempt.attempt_id).source,
        }
        for attempt in found[:UNRESOLVED]
    ]


class TimingFirst:
    """An operator that submits what a run has to time first, one attempt a step, and then lets another one work."""

    def __init__(self, inner: VariationOperator, waiting: Sequence[Mapping[str, str]]) -> None:
        self.name = inner.name
        self._inner, self._waiting = inner, waiting

    def vary(self, brief: Brief) -> Proposal:
        """Submit the first of the waiting attempts that the run has not tried, else what the other operator does."""
        tried = {attempt.digest for attempt in brief.attempts}
        for each in self._waiting:
            candidate = brief.candidate(each["source"])
            if candidate.digest in tried or brief.transcript:
                continue
            change = f"{each['name']}: {each['change']}"
            try:
                attempt = brief.evaluate(candidate, change=change, parents=(brief.versions[0].number,))
            except (BudgetSpent, CandidateTaken):
                continue
            return Proposal(attempt, f"unresolved in another run, timed first: {each['name']}")
        return self._inner.vary(brief)


def timing_first(operator: VariationOperator, run: Run) -> VariationOperator:
    """Return ``operator`` as ``run`` uses it: after what the run has to time first, if there is anything."""
    waiting = run.config.get(TIMED_FIRST)
    return TimingFirst(operator, waiting) if waiting else operator


def progress(store: Store, run: Run) -> Progress | None:
    """Return how soon the transfer to ``run`` paid off; None for a run that starts from its own problem."""
    kept = run.config.get(TRANSFERRED)
    if kept is None:
        return None
    use, every, steps = Use(kept["use"]), store.attempt_summaries(run.id), store.steps(run.id)
    counted = [t for t in every if use is Use.SEED or (use is Use.ADAPT and t.parents)]
    correct = (t for t in counted if t.geomean_tflops > 0)
    better = (t for t in counted if t.version)

    def milestone(found: Iterable[AttemptSummary]) -> Milestone | None:
        first = next(iter(found), None)
        if first is None:
            return None
        end = first.finished
        attempts = sum(other.attempt_id <= first.attempt_id for other in every)
        return Milestone(attempts, _worked(steps, end) / timedelta(minutes=1))

    origin = f"{kept['run']}#{kept['attempt']}" if "attempt" in kept else f"{kept['run']}@{kept['version']}"
    problem = store.run(kept["run"]).problem
    return Progress(origin, problem, use, milestone(correct), milestone(better))


def _worked(steps: Iterable[Step], end: datetime) -> timedelta:
    """Return the time until ``end`` in which a step was under way."""
    return covered((step.started, min(step.finished or end, end)) for step in steps if step.started < end)


def in_words(progress: Mapping[str, Any]) -> str:
    """Return the data of ``Progress.to_json`` as one line of text."""
    taken = f"Took over {progress['origin']} ({progress['problem']})"
    if progress["use"] == Use.NOTHING:
        return f"{taken}, which its operator cannot adapt: it started from seeds of its own."
    start = "as its seed" if progress["use"] == Use.SEED else "to adapt"
    correct, better = (_in_words(progress[key]) for key in ("correct", "better"))
    return f"{taken} {start}: first correct {correct}, first better {better}."


def _in_words(milestone: Mapping[str, Any] | None) -> str:
    if milestone is None:
        return "not yet"
    return f"at attempt {milestone['attempts']}, {milestone['minutes']:.1f} min"
