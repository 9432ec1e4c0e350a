"""Transfer: a run that starts from the lineage of another problem, and how soon that paid."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from agents.operator import Transferred
from avo.config import TRANSFERRED
from evaluator.catalogue import get_problem
from lineage_db.records import AttemptSummary, Run, Step, Version
from lineage_db.spans import covered
from lineage_db.store import Store


class Use(StrEnum):
    """What a run makes of a version of another problem."""

    SEED = "seed"
    """Both problems have the same entry function: it is the run's seed as it is."""
    ADAPT = "adapt"
    """The run starts from a seed of its own problem, and its operator is given the version to adapt."""
    NOTHING = "nothing"
    """The run starts from a seed of its own problem, and its operator cannot adapt the version."""


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
    """Where the run started from, as RUN@VERSION."""
    problem: str
    """The problem of the run that it started from."""
    use: Use
    correct: Milestone | None
    """The first correct attempt; where the run has a seed of its own, the first after that."""
    better: Milestone | None
    """The first version that is better than the seed. Both are None where nothing could be adapted."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def record(run: Run, version: Version, problem: str, adapts: bool) -> dict[str, Any] | None:
    """Return what a new run for ``problem`` that starts from ``version`` of ``run`` stores under ``TRANSFERRED``.

    ``adapts``: whether its operator can adapt the kernel of another entry function. None where both runs have the same
    problem.
    """
    if run.problem == problem:
        return None
    alike = get_problem(run.problem).entry == get_problem(problem).entry
    return {
        "run": run.name,
        "version": version.number,
        "use": Use.SEED if alike else Use.ADAPT if adapts else Use.NOTHING,
    }


def transferred(store: Store, run: Run) -> Transferred | None:
    """Return what ``run`` has taken over, None where that is nothing; raises the store's errors."""
    kept = run.config.get(TRANSFERRED)
    if kept is None:
        return None
    origin = store.run(kept["run"])
    return Transferred(origin, tuple(store.versions(origin.id)[: kept["version"] + 1]))


def progress(store: Store, run: Run) -> Progress | None:
    """Return how soon the transfer to ``run`` paid off; None for a run that starts from its own problem."""
    kept = run.config.get(TRANSFERRED)
    if kept is None:
        return None
    use, every, steps = Use(kept["use"]), store.attempt_summaries(run.id), store.steps(run.id)
    counted = [t for t in every if use is Use.SEED or (use is Use.ADAPT and t.step_number > 0)]
    correct = (t for t in counted if t.geomean_tflops > 0)
    better = (t for t in counted if t.version)

    def milestone(found: Iterable[AttemptSummary]) -> Milestone | None:
        first = next(iter(found), None)
        if first is None:
            return None
        end = first.finished
        attempts = sum(other.attempt_id <= first.attempt_id for other in every)
        return Milestone(attempts, _worked(steps, end) / timedelta(minutes=1))

    origin = f"{kept['run']}@{kept['version']}"
    problem = store.run(kept["run"]).problem
    return Progress(origin, problem, use, milestone(correct), milestone(better))


def _worked(steps: Iterable[Step], end: datetime) -> timedelta:
    """Return the time until ``end`` in which a step was under way."""
    return covered((step.started, min(step.finished or end, end)) for step in steps if step.started < end)


def in_words(progress: Mapping[str, Any]) -> str:
    """Return the data of ``Progress.to_json`` as one line of text."""
    taken = f"Took over {progress['origin']} ({progress['problem']})"
    if progress["use"] == Use.NOTHING:
        return f"{taken}, which its operator cannot adapt: it started from a seed of its own."
    start = "as its seed" if progress["use"] == Use.SEED else "to adapt"
    correct, better = (_in_words(progress[key]) for key in ("correct", "better"))
    return f"{taken} {start}: first correct {correct}, first better {better}."


def _in_words(milestone: Mapping[str, Any] | None) -> str:
    if milestone is None:
        return "not yet"
    return f"at attempt {milestone['attempts']}, {milestone['minutes']:.1f} min"
