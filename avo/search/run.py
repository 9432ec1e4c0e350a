"""Driving a run: seed it, keep its workers busy within the budget, stop in order. All state is in the database."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import Protocol

from avo.agents.operator import COMMAND_OPERATOR
from avo.agents.registry import asks_models
from avo.config import RunConfig
from avo.errors import NoAttempts, RayGone, RunFailed, SeedFault
from avo.limits import Account, Ledger, reached
from avo.lineage_db.driving import LEASE
from avo.lineage_db.ending import Cause, Ending
from avo.lineage_db.records import Doing, Request, Run, RunState, StepState
from avo.lineage_db.store import Store
from avo.search.seeding import no_versions
from avo.search.step import StepOutcome

GRACE = timedelta(seconds=30)
"""Time that workers have to finish their steps when a stop is requested; after that the steps are abandoned."""
PATIENCE = 3
"""Steps in a row without a new attempt after which a worker rests, until another's step brings something new."""
MODEL_PATIENCE = 10
"""The number of such steps where a model thinks: it may do better in its next step."""
MAX_TROUBLES = 5
"""Steps in a row that end without an outcome, after which the run fails."""
_POLL_S = 0.2
_LISTEN = timedelta(seconds=1)
"""How often the driver looks for requests."""


def utc_now() -> datetime:
    """Return the time, aware."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What became of a step that a worker was given."""

    worker: int
    outcome: StepOutcome | None
    """None when the step ended without one: the worker died, or the evaluator or the database was unavailable."""
    trouble: str = ""
    """Why there is no outcome."""


class Crew(Protocol):
    """Workers that perform steps, each one at a time, named by their index from 0."""

    def start(self, worker: int, seeding: bool) -> None:
        """Begin a step: that of the run's seeds, or one of the operator."""
        ...

    def wait(self, timeout_s: float) -> Sequence[WorkerReport]:
        """Return the steps that ended, waiting up to ``timeout_s`` for the first. Dead workers have been replaced."""
        ...

    def replace(self, worker: int) -> None:
        """Replace a worker that was not heard from; whatever it still does is ignored."""
        ...


WORKERS = "w"
"""How the names of a driver's workers begin, and of no other workers of its run."""


def worker_name(worker: int) -> str:
    """Return what the database calls a worker."""
    return f"{WORKERS}{worker}"


class Stop:
    """A request to stop: once in order, twice at once."""

    def __init__(self) -> None:
        self._requests = 0
        self.dispossessed = False
        """Whether another process has taken the run over, so that this one may no longer write to it."""

    def request(self) -> None:
        """Ask to stop in order; the second request asks to stop at once."""
        self._requests += 1

    def dispossess(self) -> None:
        """Stop at once: the run is another process's."""
        self.dispossessed = True
        self._requests = 2

    @property
    def requested(self) -> bool:
        """Whether no new step may start."""
        return self._requests > 0

    @property
    def at_once(self) -> bool:
        """Whether steps under way are to be abandoned."""
        return self._requests > 1


@contextmanager
def stop_on_signals(stop: Stop) -> Iterator[None]:
    """Turn SIGINT and SIGTERM into requests to stop; the third one acts as it did before.

    SIGHUP, which a terminal sends when it is closed, asks once, however often it comes; what is written to that
    terminal later goes nowhere. Where it was ignored, as under nohup, it stays so.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    terminals = [stream for stream in (1, 2) if os.isatty(stream)]

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, frame: FrameType | None) -> None:
        stop.request()
        if stop.at_once:
            restore()

    def hang_up(number: int, frame: FrameType | None) -> None:
        if not stop.requested:
            stop.request()
        with open(os.devnull, "wb") as nowhere:
            for stream in terminals:
                os.dup2(nowhere.fileno(), stream)

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    if before[signal.SIGHUP] is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, hang_up)
    try:
        yield
    finally:
        restore()


@dataclass(frozen=True, slots=True)
class RunSession:
    """One process's work on a run, from its start or resumption until it ends."""

    store: Store
    run: Run
    config: RunConfig
    deadline: datetime | None
    """End of this session, pauses included; aware."""
    hire: Callable[[], AbstractContextManager[Crew]]
    stop: Stop
    say: Callable[[str], None]
    """Prints a line for the user."""
    clock: Callable[[], datetime] = utc_now
    rest: Callable[[float], None] = time.sleep
    """Lets some seconds pass in which there is nothing to do."""

    def drive(self) -> Run:
        """Work on the run until its budget is used up, its operator has nothing left to try or a stop is requested.

        Continues where an earlier session left off. Steps that one left behind are abandoned, and in the end those that
        do not finish in time: within ``config.grace`` after the deadline, or ``GRACE`` after a request.
        ``config.max_attempts`` counts the attempts of all sessions and those under way. Only seeds may exceed it.

        Returns the run with its new state, finished or stopped, and why it ended. Raises ``SeedFault`` when the seed is
        not correct, ``NoAttempts`` when steps with a model end without an attempt, and ``RunFailed`` when the judge
        cannot be trusted or workers fail again and again. The run is stopped then, and can be resumed.
        """
        store, run = self.store, self.run
        left = "left behind by a process that ended"
        store.claims.abandon_running(run.id, reason=left, now=self.clock(), workers=WORKERS)
        stored = {**run.config, **self.config.model_dump()}
        run = store.set_run_state(run.id, RunState.RUNNING, now=self.clock(), config=stored)
        ended_by, requested = None, Ending(Cause.REQUEST, "was asked to stop")
        self.tell("starting Ray")
        try:
            with self.hire() as crew:
                self.tell("starting the workers and their judges")
                try:
                    ended_by = _Driver(self, run, crew).work()
                except RayGone:
                    if not self.stop.requested:  # else it was told to end too, as by a signal to a group of processes
                        raise
                finally:  # before the crew is dismissed: what it still writes would be refused, not half written
                    if not self.stop.dispossessed:
                        reason = "the run was stopped"
                        store.claims.abandon_running(run.id, reason=reason, now=self.clock(), workers=WORKERS)
                        self.tell("ending Ray")
        except Exception as error:
            why = " ".join(f"failed: {str(error) or type(error).__name__}".split())
            cause = Cause.BARREN if isinstance(error, NoAttempts) else Cause.FAILED
            ended_by = Ending(cause, why, final=isinstance(error, SeedFault))
            raise
        finally:
            if not self.stop.dispossessed:
                by = ended_by or requested
                state = RunState.FINISHED if by.cause in (Cause.LIMIT, Cause.EXHAUSTED) else RunState.STOPPED
                run = store.set_run_state(run.id, state, now=self.clock(), ended_by=by)
        return run

    def tell(self, what: str) -> None:
        """Write down what this process does while no worker works; nothing while they do."""
        now = self.clock()
        self.store.driving.tell(self.run.id, Doing(what, now) if what else None, now=now)


class _Driver:
    """Keeps the crew of a session at work."""

    def __init__(self, session: RunSession, run: Run, crew: Crew) -> None:
        self._session = session
        self._store, self._config, self._stop = session.store, session.config, session.stop
        self._say, self._clock = session.say, session.clock
        self._run = run
        self._crew = crew
        self._starting = True
        self._looked = session.clock()
        self._listened: datetime | None = None
        self._paused = self._idle = False
        self._seeded = bool(session.store.versions(run.id)) and not session.config.judge_may_change
        self._busy: set[int] = set()
        self._barren: Counter[int] = Counter()
        self._failure = self._last = ""
        self._used = Ledger(session.store, run.id)
        self._troubles = 0

    def work(self) -> Ending | None:
        """Start steps and take their reports until nothing is left to do.

        Returns why; None where a stop was requested.
        """
        ended_by = None
        while not self._over():
            if not self._paused:
                self._start_steps()
                if not self._busy:
                    ended_by = self._explain_end()
                    break
            if self._busy:
                self._take_reports()
            else:
                if not self._idle:
                    self._idle = True
                    self._say("paused: all steps have ended")
                self._session.rest(_POLL_S)
        ended_by = ended_by or self._finish_steps()
        return None if self._stop.requested else ended_by

    def _finish_steps(self) -> Ending:
        """Wait for the steps under way, as long as they may take, and return that the time is over."""
        stopping = self._stop.requested
        last_call = self._clock() + (GRACE if stopping else timedelta(minutes=self._config.grace))
        if self._busy and (stopping or self._config.grace):
            until = "stop again to abandon them" if stopping else f"for {self._config.grace:g} min at most"
            self._say(f"finishing the steps under way; {until}")
        while self._busy and not self._stop.at_once and self._clock() < last_call:
            self._take_reports()
            self._listen()
            if self._stop.requested and not stopping:
                stopping, last_call = True, min(last_call, self._clock() + GRACE)
        return Ending(Cause.LIMIT, f"has used its {self._config.max_hours or 0:g} hours", "max_hours")

    def _listen(self) -> None:
        """Do what other processes ask for through the database."""
        if self._listened is not None and self._clock() < self._listened + _LISTEN:
            return
        self._listened = self._clock()
        request = self._store.driving.request(self._run.id)
        if (request is Request.PAUSE) is not self._paused:
            self._paused, self._idle = not self._paused, False
            self._say("paused: no new steps are started" if self._paused else "the pause is over")
        if request is Request.STOP and not self._stop.requested:
            self._say("stopping, as requested")
            self._stop.request()
        while request is Request.STOP_NOW and not self._stop.at_once:
            self._stop.request()

    def _over(self) -> bool:
        self._listen()
        deadline = self._session.deadline
        return self._stop.requested or (deadline is not None and self._clock() >= deadline)

    def _start_steps(self) -> None:
        """Give each idle worker a step while the budget has room and the worker has something to try."""
        if not self._seeded:
            if not self._busy and not self._full:
                self._start(0, seeding=True)
            return
        for worker in range(self._config.workers):
            if worker not in self._busy and self._barren[worker] < self._patience and not self._full:
                self._start(worker, seeding=False)

    @property
    def _patience(self) -> int:
        return MODEL_PATIENCE if self._thinks and not self._failure else PATIENCE

    @property
    def _thinks(self) -> bool:
        return asks_models(self._config.operator) or self._config.operator == COMMAND_OPERATOR

    def _start(self, worker: int, *, seeding: bool) -> None:
        self._crew.start(worker, seeding)
        self._busy.add(worker)

    @property
    def _full(self) -> Account | None:
        """The limit that has no room for one more step."""
        return reached(vars(self._config), self._used, len(self._busy))

    def _take_reports(self) -> None:
        self._replace_the_lost()
        for report in self._crew.wait(_POLL_S):
            if self._starting:
                self._session.tell("")
                self._starting = False
            self._busy.discard(report.worker)
            if report.outcome is None:
                self._take_trouble(report)
            else:
                self._take_outcome(report.worker, report.outcome)

    def _replace_the_lost(self) -> None:
        """Abandon the steps of workers whose claims have run out, and put others in their place."""
        if self._clock() < self._looked + LEASE / 4:
            return
        self._looked = self._clock()
        reason = f"its worker was not heard from for {LEASE.total_seconds():.0f} s"
        for step in self._store.claims.abandon_expired(self._run.id, reason=reason, now=self._looked):
            worker = next((index for index in self._busy if worker_name(index) == step.worker), None)
            if worker is not None:
                self._crew.replace(worker)
                self._busy.discard(worker)
                self._take_trouble(WorkerReport(worker, None, reason))

    def _take_trouble(self, report: WorkerReport) -> None:
        name = worker_name(report.worker)
        self._store.claims.abandon_running(self._run.id, reason=report.trouble, now=self._clock(), worker=name)
        self._troubles += 1
        if self._troubles == MAX_TROUBLES:
            raise RunFailed(f"{MAX_TROUBLES} steps in a row ended without an outcome, the last: {report.trouble}")
        self._say(f"{name}: {report.trouble}: its step is abandoned, a new worker takes over")

    def _take_outcome(self, worker: int, outcome: StepOutcome) -> None:
        self._troubles = 0
        if not self._seeded:
            if outcome.state is StepState.FAILED:
                raise RunFailed(outcome.reason)
            if outcome.version is None and not self._store.versions(self._run.id):
                raise SeedFault(outcome.reason)
            for line in no_versions(self._store, self._run):
                self._say(line)
            self._seeded = True
            return
        self._failure = outcome.reason if outcome.state is StepState.FAILED else ""
        if self._failure:
            self._say(f"step {outcome.number} failed: {self._failure}")
        if outcome.tried or outcome.version is not None:
            self._barren.clear()
        else:
            self._barren[worker] += 1
            self._last = outcome.reason
            if not self._failure:
                self._say(f"step {outcome.number} made no attempt: {self._last}")

    def _explain_end(self) -> Ending:
        """Return why no step can be started although there is time.

        Raises ``RunFailed`` for an operator that fails, and ``NoAttempts`` for a model that makes none.
        """
        if full := self._full:
            return Ending(Cause.LIMIT, str(full), full.limit.setting, enough=2 * max(full.used, full.most))
        if self._failure:
            raise RunFailed(f"operator {self._config.operator!r} fails every step, the last: {self._failure}")
        if asks_models(self._config.operator):  # a program may well run out
            each = f"operator {self._config.operator!r} made no attempt in {MODEL_PATIENCE} steps in a row"
            raise NoAttempts(f"{each} of each worker, the last: {self._last}")
        why = f"ended because operator {self._config.operator!r} has nothing left to try"
        return Ending(Cause.EXHAUSTED, why, final=True)
