"""The reader of a run: reads what a view needs from the database, as one frozen picture."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from threading import Event

from avo.lineage_db.entries import Intervention, Memory, Message, ModelCall
from avo.lineage_db.errors import UnknownAttempt
from avo.lineage_db.records import Attempt, AttemptSummary, Run, Step, Version
from avo.lineage_db.store import Store
from avo.watch.failures import Failures, Tally
from avo.watch.trajectory import NOTHING, AttemptScores
from avo.watch.view import RunView, StepProgress, read_progress, read_view

PAGE = 20_000
"""Most verdicts that are read at once."""


@dataclass(frozen=True, slots=True)
class Want:
    """What the views need in addition to what is always read. Nothing else is read."""

    groups: bool = False
    """Whether all verdicts and speeds are needed, and the attempts grouped by reason."""
    attempts: tuple[int, ...] = ()
    """Ids of the attempts whose summaries are needed."""
    attempt: int | None = None
    """Id of the attempt that is needed in full."""
    other: int | None = None
    """Id of the attempt that it is compared with."""
    words: tuple[str, ...] = ()
    """Words that attempts are searched for."""
    steps: range = range(0)
    """Numbers of the steps that are needed."""
    transcript: int | None = None
    """Number of the step whose transcript is needed."""
    memories: bool = False


@dataclass(frozen=True, slots=True)
class AttemptDetails:
    """An attempt in full, and the step that made it."""

    attempt: Attempt
    summary: AttemptSummary
    step: Step


@dataclass(frozen=True, slots=True)
class Transcript:
    """The messages of a step, and its calls of models."""

    work: StepProgress
    messages: tuple[Message, ...]
    calls: tuple[ModelCall, ...]
    attempts: tuple[AttemptSummary, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """A run at one revision of the database, as the views show it."""

    view: RunView
    versions: tuple[Version, ...]
    """All versions, the seeds first."""
    interventions: tuple[Intervention, ...]
    """All interventions of the supervisor, oldest first."""
    newest: AttemptSummary | None
    """The newest attempt; None once there is a version."""
    want: Want
    """What else was asked for. The fields below that were not asked for are empty."""
    groups: tuple[Failures, ...] = ()
    tried: AttemptScores = NOTHING
    attempts: Mapping[int, AttemptSummary] = field(default_factory=dict)
    """Summaries of the wanted attempts, by id."""
    attempt: AttemptDetails | None = None
    other: Attempt | None = None
    """The attempt to compare with; None if the run has no such attempt."""
    found: frozenset[int] = frozenset()
    """Ids of the attempts that have all the words."""
    steps: Mapping[int, StepProgress] = field(default_factory=dict)
    """The wanted steps, by number."""
    transcript: Transcript | None = None
    memories: tuple[Memory, ...] = ()

    @property
    def by_number(self) -> Mapping[int, Version]:
        """The versions by number."""
        return {version.number: version for version in self.versions}


class RunReader:
    """Reads one run for one screen. The screen's thread sets ``want``, which takes effect at the next reading."""

    def __init__(self, run_name: str, clock: Callable[[], datetime]) -> None:
        self.want = Want()
        self.wake = Event()
        """Set to have the run read at once."""
        self._run_name = run_name
        self._clock = clock
        self._tally = Tally()
        self._tried = NOTHING
        self._grouped: tuple[Failures, ...] = ()
        self._found: tuple[tuple[str, ...], int, frozenset[int]] = (), 0, frozenset()
        """The words that were searched for last, the newest attempt at that time, and what was found."""

    def ask(self, want: Want) -> None:
        """Set what is needed, and have it read at once."""
        if want != self.want:
            self.want = want
            self.wake.set()

    def read(self, store: Store, previous: Picture | None) -> Picture:
        """Return the run as it is now; ``previous`` itself if nothing has changed. Raises the store's errors."""
        return store.snapshot(lambda: self._read(store, previous))

    def _read(self, store: Store, previous: Picture | None) -> Picture:
        want = self.want
        view = read_view(store, self._run_name, self._clock(), previous.view if previous else None)
        run = view.run
        if previous and previous.view.run.created != run.created:
            previous, self._tally, self._tried, self._found = None, Tally(), NOTHING, ((), 0, frozenset())
        if previous and previous.view is view and previous.want == want:
            return previous
        versions, told = (previous.versions, previous.interventions) if previous else ((), ())
        if previous is None or previous.view is not view:
            versions += tuple(store.versions(run.id, after=len(versions) - 1))
            told += tuple(store.journal.interventions(run.id, after=told[-1].id if told else 0))
        attempts = store.pages.attempts(run.id, want.attempts) if want.attempts else ()
        return Picture(
            view,
            versions,
            told,
            None if versions else next(iter(store.pages.attempts(run.id, view.revision[:1])), None),
            want,
            groups=self._groups(store, run) if want.groups else (),
            tried=self._tried if want.groups else NOTHING,
            attempts={attempt.attempt_id: attempt for attempt in attempts},
            attempt=read_attempt(store, run, want.attempt) if want.attempt is not None else None,
            other=_find_attempt(store, run, want.other) if want.other is not None else None,
            found=self._search(store, run, want.words) if want.words else frozenset(),
            steps=read_progress(store, store.pages.steps(run.id, want.steps)) if want.steps else {},
            transcript=None
            if want.transcript is None
            else _read_transcript(store, run, want.transcript, previous.transcript if previous else None),
            memories=tuple(store.journal.memories(run.id)) if want.memories else (),
        )

    def _search(self, store: Store, run: Run, words: tuple[str, ...]) -> frozenset[int]:
        newest, _ = store.revision(run.id)
        sought, until, found = self._found
        if sought != words:
            until, found = 0, frozenset()
        if newest > until:
            found |= frozenset(store.pages.find(run.id, words, after=until))
        self._found = words, newest, found
        return found

    def _groups(self, store: Store, run: Run) -> tuple[Failures, ...]:
        while page := store.pages.outcomes(run.id, after=self._tried.last, limit=PAGE):
            self._tally.add(page)
            self._tried = self._tried.with_more(page)
            self._grouped = tuple(self._tally.groups())  # with each page, as the next may fail
        return self._grouped


def _find_attempt(store: Store, run: Run, attempt_id: int) -> Attempt | None:
    try:
        return store.attempt(run.id, attempt_id)
    except UnknownAttempt:
        return None


def read_attempt(store: Store, run: Run, attempt_id: int) -> AttemptDetails:
    """Return an attempt in full; raises ``UnknownAttempt``."""
    attempt = store.attempt(run.id, attempt_id)
    (summary,) = store.pages.attempts(run.id, [attempt_id])
    (step,) = store.pages.steps(run.id, range(summary.step_number, summary.step_number + 1))
    return AttemptDetails(attempt, summary, step)


def _read_transcript(store: Store, run: Run, number: int, previous: Transcript | None) -> Transcript | None:
    work = read_progress(store, store.pages.steps(run.id, range(number, number + 1))).get(number)
    if work is None:
        return None
    known = previous.messages if previous and previous.work.step.id == work.step.id else ()
    return Transcript(
        work,
        known + tuple(store.journal.messages(work.step.id, after=len(known) - 1)),
        tuple(store.journal.calls(run.id, step_id=work.step.id)),
        tuple(store.pages.attempts_of_step(run.id, work.step.id)),
    )
