"""The reader of a run: what a view needs of the database, as one frozen picture."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from threading import Event

from avo.watch.failures import Failures, Tally
from avo.watch.snapshot import Lineage, read_versions
from lineage_db.records import (
    Attempt,
    AttemptSummary,
    Intervention,
    Memory,
    Message,
    ModelCall,
    Run,
    RunState,
    Spend,
    Step,
    Totals,
)
from lineage_db.store import Store

PAGE = 20_000
"""Verdicts that are read in one go."""


@dataclass(frozen=True, slots=True)
class Want:
    """What the views need beside the overview. Nothing else is read."""

    groups: bool = False
    """All verdicts, grouped by reason."""
    attempts: tuple[int, ...] = ()
    """Ids of attempts."""
    attempt: int | None = None
    """Id of one in full."""
    steps: range = range(0)
    """Numbers of steps."""
    transcript: int | None = None
    """Number of a step."""
    memories: bool = False
    ordinals: bool = False


@dataclass(frozen=True, slots=True)
class Overview(Lineage):
    """What every view of a run shows."""

    state: RunState
    """As it was seen then, which may have been interrupted or paused."""
    totals: Totals
    spend: Spend
    interventions: tuple[Intervention, ...]
    work: Mapping[int, "Work"]
    """Of the running steps, by number."""
    newest: AttemptSummary | None
    """The newest attempt, while there is no version."""


@dataclass(frozen=True, slots=True)
class Work:
    """A step, how many attempts it has made and what it has spent."""

    step: Step
    tried: int
    spend: Spend


@dataclass(frozen=True, slots=True)
class AttemptDetails:
    """An attempt in full, and the step that made it."""

    attempt: Attempt
    summary: AttemptSummary
    step: Step


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said in a step, and the calls of models that it took."""

    work: Work
    messages: tuple[Message, ...]
    calls: tuple[ModelCall, ...]
    attempts: tuple[AttemptSummary, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """A run as it is seen at one revision of the database."""

    overview: Overview
    want: Want
    """What was asked for: the rest is empty."""
    groups: tuple[Failures, ...] = ()
    attempts: Mapping[int, AttemptSummary] = field(default_factory=dict)
    """By id."""
    attempt: AttemptDetails | None = None
    steps: Mapping[int, Work] = field(default_factory=dict)
    """By number."""
    transcript: Transcript | None = None
    memories: tuple[Memory, ...] = ()
    ordinals: tuple[int, ...] = ()
    """Of each version, which attempt of the run it was, from 1."""


class RunReader:
    """Reads one run for one screen. ``want`` is set by the screen's thread and heeded at the next reading."""

    def __init__(self, run_name: str, clock: Callable[[], datetime]) -> None:
        self.want = Want()
        self.wake = Event()
        """Set to be read at once."""
        self._run_name = run_name
        self._clock = clock
        self._tally = Tally()
        self._tallied = 0
        self._grouped: tuple[Failures, ...] = ()

    def ask(self, want: Want) -> None:
        """Want something else, at once."""
        if want != self.want:
            self.want = want
            self.wake.set()

    def read(self, store: Store, previous: Picture | None) -> Picture:
        """Return the run as it is now, ``previous`` itself if it is the same. Raises the store's errors."""
        want = self.want
        run = store.run(self._run_name)
        if previous and previous.overview.run.id != run.id:
            previous, self._tally, self._tallied = None, Tally(), 0
        revision = tuple(store.revision(run.id))
        state = run.state_at(self._clock())  # a driver that dies writes nothing: only time tells
        if previous and previous.overview.revision == revision and previous.overview.state is state:
            if previous.want == want:
                return previous
            overview = previous.overview
        else:
            overview = _read_overview(store, run, state, revision, previous.overview if previous else None)
        attempts = store.pages.attempts(run.id, want.attempts) if want.attempts else ()
        return Picture(
            overview,
            want,
            groups=self._groups(store, run) if want.groups else (),
            attempts={attempt.attempt_id: attempt for attempt in attempts},
            attempt=_read_attempt(store, run, want.attempt) if want.attempt is not None else None,
            steps=_read_work(store, store.pages.steps(run.id, want.steps)) if want.steps else {},
            transcript=None
            if want.transcript is None
            else _read_transcript(store, run, want.transcript, previous.transcript if previous else None),
            memories=tuple(store.journal.memories(run.id)) if want.memories else (),
            ordinals=tuple(store.pages.ordinals(run.id)) if want.ordinals else (),
        )

    def _groups(self, store: Store, run: Run) -> tuple[Failures, ...]:
        before = self._tallied
        while page := store.pages.outcomes(run.id, after=self._tallied, limit=PAGE):
            self._tally.add(page)
            self._tallied = page[-1].attempt_id
        if self._tallied != before:
            self._grouped = tuple(self._tally.groups())
        return self._grouped


def _read_overview(
    store: Store, run: Run, state: RunState, revision: tuple[int, ...], previous: Overview | None
) -> Overview:
    running = store.pages.running(run.id) if run.state is RunState.RUNNING else []
    versions = read_versions(store, run, previous)
    return Overview(
        run,
        revision,
        versions,
        tuple(running),
        state,
        store.pages.totals(run.id),
        store.journal.spend(run.id),
        tuple(store.journal.interventions(run.id)),
        _read_work(store, running),
        None if versions else next(iter(store.pages.attempts(run.id, revision[:1])), None),
    )


def _read_work(store: Store, steps: list[Step]) -> dict[int, Work]:
    ids = [step.id for step in steps]
    counts, spends = store.pages.attempt_counts(ids), store.pages.spends(ids)
    return {step.number: Work(step, counts.get(step.id, 0), spends.get(step.id, Spend())) for step in steps}


def _read_attempt(store: Store, run: Run, attempt_id: int) -> AttemptDetails:
    attempt = store.attempt(run.id, attempt_id)
    (summary,) = store.pages.attempts(run.id, [attempt_id])
    (step,) = store.pages.steps(run.id, range(summary.step_number, summary.step_number + 1))
    return AttemptDetails(attempt, summary, step)


def _read_transcript(store: Store, run: Run, number: int, previous: Transcript | None) -> Transcript | None:
    work = _read_work(store, store.pages.steps(run.id, range(number, number + 1))).get(number)
    if work is None:
        return None
    known = previous.messages if previous and previous.work.step.id == work.step.id else ()
    return Transcript(
        work,
        known + tuple(store.journal.messages(work.step.id, after=len(known) - 1)),
        tuple(store.journal.calls(run.id, step_id=work.step.id)),
        tuple(store.pages.attempts_of_step(run.id, work.step.id)),
    )
