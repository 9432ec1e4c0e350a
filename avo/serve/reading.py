"""Reads what the pages show, through the reader of the terminal UI: a poll costs what is new."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from threading import Lock

from avo.errors import AvoError, Incomparable
from avo.evaluator.units import Unit
from avo.lineage_db.errors import StoreError, UnknownAttempt, UnknownRun, UnknownVersion
from avo.lineage_db.pages import NEWEST
from avo.lineage_db.records import Attempt, AttemptSummary, Run, RunState, Step
from avo.lineage_db.store import Store
from avo.report.data import Charts
from avo.report.reading import charts_of
from avo.tui.reader import AttemptDetails, Picture, RunReader, Want, read_attempt
from avo.watch.comparison import Course, check_comparable, course
from avo.watch.listing import Listed, read_runs
from avo.watch.scores import unit_for

_MOST_FOLLOWED = 32
"""Runs that are kept in memory between polls, the last that were asked for."""
_WAIT_S = 5.0
"""Longest wait for another visitor's reading of the same: each that waits takes one of the server's threads."""
ORDERS = ("newest", "fastest", "oldest")
"""Orders of the attempts, by what comes first: those of the terminal UI."""


class Busy(AvoError):
    """Another visitor's reading of the same takes long."""

    def __init__(self) -> None:
        super().__init__("this is being read for another visitor: try again in a moment")


@dataclass(slots=True)
class _Followed:
    reader: RunReader
    lock: Lock = field(default_factory=Lock)
    picture: Picture | None = None
    charts: Charts | None = None
    drawn: tuple[object, ...] = ()
    """What the charts were made of."""


@dataclass(frozen=True, slots=True)
class Working:
    """A step that is under way."""

    run: str
    step: Step

    @property
    def host(self) -> str:
        """The machine of its worker; empty where it has not said anything yet."""
        return next((each.host for each in self.step.doing or ()), "")


class Reader:
    """Reads one database for all visitors. Threads may share it. Methods raise the store's errors, and ``Busy``."""

    def __init__(self, url: str, clock: Callable[[], datetime]) -> None:
        """Raises the store's errors where there is no database at ``url`` that can be read."""
        self._url = url
        self._clock = clock
        self._store: Store | None = Store.read(url)
        self._lock = Lock()
        self._comparing = Lock()
        self._followed: OrderedDict[str, _Followed] = OrderedDict()

    @property
    def store(self) -> Store:
        """The store, opened again after ``forget``."""
        with self._lock:
            self._store = self._store or Store.read(self._url)
            return self._store

    def forget(self, error: StoreError) -> None:
        """Open the database again next time, unless the error is about what was asked for."""
        if not isinstance(error, UnknownRun | UnknownAttempt | UnknownVersion):
            with self._lock:
                if self._store:
                    self._store.close()
                self._store = None

    def runs(self) -> list[Listed]:
        """Return all runs, newest first."""
        return read_runs(self.store, self._clock())

    def running(self, runs: Sequence[Listed]) -> list[Working]:
        """Return the steps under way in those of the runs that somebody drives, by machine."""
        driven = (each.summary.run for each in runs if each.state in (RunState.RUNNING, RunState.PAUSED))
        found = [Working(run.name, step) for run in driven for step in self.store.pages.running(run.id)]
        return sorted(found, key=lambda each: (each.host, each.run, each.step.worker))

    def picture(self, name: str) -> tuple[Picture, Charts]:
        """Return the run as it is now, with the verdict and the speed of each attempt, and its charts.

        The first call for a run reads these; a later one reads what is new.
        """
        store = self.store
        with self._lock:
            followed = self._followed.setdefault(name, _Followed(RunReader(name, self._clock)))
            self._followed.move_to_end(name)
        with _held(followed.lock):
            followed.reader.want = Want(groups=True)
            try:
                picture = followed.picture = followed.reader.read(store, followed.picture)
            except UnknownRun:
                with self._lock:
                    if self._followed.get(name) is followed:
                        del self._followed[name]
                raise
            with self._lock:  # not before: a name of no run must not end that of another
                while len(self._followed) > _MOST_FOLLOWED:
                    self._followed.popitem(last=False)
            view = picture.view
            made_of = view.run.created, len(picture.versions), picture.tried.last
            if followed.charts is None or followed.drawn != made_of:
                followed.charts = charts_of(view, picture.versions, picture.tried, picture.interventions)
                followed.drawn = made_of
            return picture, replace(followed.charts, view=view, interventions=picture.interventions)

    def attempts(self, picture: Picture, words: tuple[str, ...], order: str, page: range) -> tuple[
        int, list[AttemptSummary]
    ]:  # fmt: skip
        """Return how many attempts have all ``words``, and those in the places ``page`` of ``order``."""
        run, tried = picture.view.run, picture.tried
        ids: Sequence[int] = tried.ids
        if words:
            ids = self.store.pages.find(run.id, words)
        if order == "fastest":
            speeds = dict(zip(tried.ids, tried.tflops, strict=True))
            ids = sorted(ids, key=lambda made: (speeds.get(made, 0.0), made))
        elif order == "oldest":
            ids = ids[::-1]
        wanted = ids[max(0, len(ids) - page.stop) : max(0, len(ids) - page.start)][::-1]
        found = {each.attempt_id: each for each in self.store.pages.attempts(run.id, wanted)}
        return len(ids), [found[made] for made in wanted if made in found]

    def attempt(self, run: Run, number: int) -> AttemptDetails:
        """Return an attempt in full."""
        if number > NEWEST:
            raise UnknownAttempt(number)
        return read_attempt(self.store, run, number)

    def against(self, run: Run, details: AttemptDetails, text: str) -> tuple[str, Attempt] | None:
        """Return name and attempt that an attempt is compared with: ``v4``, ``38``, or without ``text`` what it was
        edited from. None for a seed. Raises ``Incomparable`` for other texts.
        """
        built_on, parents = details.summary.built_on, details.summary.parents
        text = text.strip().lower().removeprefix("#")
        text = text or (str(built_on) if built_on is not None else f"v{parents[0]}" if parents else "")
        if not text:
            return None
        digits = text.removeprefix("v")
        if not digits.isdecimal() or len(digits) > 9:
            raise Incomparable(f"{text!r:.40} names neither a version nor an attempt: write v4, or 38")
        if text.startswith("v"):
            return text, self.store.version(run.id, int(digits)).attempt
        return f"attempt {digits}", self.store.attempt(run.id, int(digits))

    def compare(self, names: Sequence[str]) -> tuple[list[Course], Unit]:
        """Return how the runs progressed, and how their speeds are written; raises ``Incomparable`` too."""
        with _held(self._comparing):  # it reads whole runs
            runs = [self.store.run(name) for name in names]
            courses = [course(self.store, run) for run in runs]
        check_comparable(runs, courses)
        return courses, unit_for(runs[0])


@contextmanager
def _held(lock: Lock) -> Iterator[None]:
    """Hold a lock, or raise ``Busy``."""
    if not lock.acquire(timeout=_WAIT_S):
        raise Busy
    try:
        yield
    finally:
        lock.release()
