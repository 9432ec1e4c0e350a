"""Driving a run: budgets, stopping, resuming and trouble, with workers that need no Ray."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from avo.agents.operator import Brief, Proposal, VariationOperator
from avo.config import RunConfig
from avo.errors import RayGone, RunFailed, SeedFault
from avo.evaluator.fake import FakeEvaluator
from avo.lineage_db.ending import Cause, Ending
from avo.lineage_db.records import Run, RunState, StepState
from avo.lineage_db.store import Store
from avo.search.leases import exclusive
from avo.search.run import GRACE, MAX_TROUBLES, PATIENCE, RunSession, Stop, WorkerReport, stop_on_signals, utc_now
from tests.avo.fakes import NOW, SEED, Climber, InlineCrew, Scripted, judge, make_run, proposing


class Office:
    """A run in a database of its own, and everything needed to drive it."""

    def __init__(self, path: Path, seeds: Sequence[str] = (SEED,)) -> None:
        self.store = Store.open(str(path))
        self.run = make_run(self.store, seeds=seeds)
        self.stop = Stop()
        self.said: list[str] = []
        self.now = NOW
        self.crew: InlineCrew | None = None

    def drive(
        self,
        operator: VariationOperator,
        *,
        workers: int = 1,
        max_attempts: int | None = None,
        deadline: datetime | None = None,
        deaths: Container[int] = (),
    ) -> Run:
        self.crew = InlineCrew(self.store, self.run, operator, FakeEvaluator(judge), deaths)
        config = RunConfig(workers=workers, max_attempts=max_attempts)
        return self.session(self.crew, config, deadline, self.tick).drive()

    def session(
        self, crew: InlineCrew, config: RunConfig, deadline: datetime | None, clock: Callable[[], datetime]
    ) -> RunSession:
        return RunSession(
            self.store,
            self.run,
            config,
            deadline=deadline,
            hire=crew.hire,
            stop=self.stop,
            say=self.said.append,
            clock=clock,
        )

    def tick(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now

    def sources(self) -> list[str]:
        return [attempt.source for attempt in self.store.attempts(self.run.id)]

    def states(self) -> list[StepState]:
        return [step.state for step in self.store.steps(self.run.id)]


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path / "runs.db")
    yield made
    made.store.close()


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("max_attempts", [1, 2, 10])
def test_a_run_makes_exactly_the_attempts_of_its_budget(office: Office, workers: int, max_attempts: int) -> None:
    run = office.drive(Climber(), workers=workers, max_attempts=max_attempts)
    assert run.state is RunState.FINISHED
    why = f"has made {max_attempts} of {max_attempts} attempts"
    assert run.ended_by == Ending(Cause.LIMIT, why, "max_attempts", enough=2 * max_attempts)
    assert run.ended_by.goes_on("fake") == f"avo resume fake --max-attempts {2 * max_attempts}"
    assert len(office.sources()) == max_attempts
    assert set(office.states()) == {StepState.DONE}
    assert office.store.version(run.id, 0).attempt.source == SEED


def test_all_workers_are_kept_busy(office: Office) -> None:
    office.drive(Climber(), workers=3, max_attempts=10)
    assert office.crew is not None
    assert office.crew.most_at_work == 3


def test_attempts_are_counted_over_all_sessions(office: Office) -> None:
    office.drive(Climber(), max_attempts=4)
    run = office.drive(Climber(), max_attempts=6)
    assert len(office.sources()) == 6
    assert run.config["max_attempts"] == 6
    assert office.drive(Climber(), max_attempts=6).state is RunState.FINISHED
    assert len(office.sources()) == 6


def test_a_run_in_two_sessions_makes_the_same_candidates_as_in_one(office: Office, tmp_path: Path) -> None:
    office.drive(Climber(), max_attempts=3)
    office.drive(Climber(), max_attempts=9)
    other = Office(tmp_path / "other.db")
    other.drive(Climber(), max_attempts=9)
    other.store.close()
    assert office.sources() == other.sources()


def test_faulty_seeds_end_the_run_with_their_verdicts(tmp_path: Path) -> None:
    office = Office(tmp_path / "runs.db", ("nonsense", "more"))
    why = "no seed passes: parse error: not a kernel: nonsense; parse error: not a kernel: more; start another run from"
    with pytest.raises(SeedFault, match=why):
        office.drive(Climber(), max_attempts=5)
    assert office.sources() == ["nonsense", "more"]
    run = office.store.run("fake")
    assert run.state is RunState.STOPPED
    assert run.ended_by is not None
    assert (run.ended_by.cause, run.ended_by.goes_on("fake")) == (Cause.FAILED, "")
    assert why in run.ended_by.why
    office.store.close()


def test_every_correct_seed_is_a_version_and_the_run_starts_from_the_best(tmp_path: Path) -> None:
    office = Office(tmp_path / "runs.db", ("tflops = 90.0", "nonsense", "tflops = 60.0"))
    office.drive(Climber(), max_attempts=4)
    versions = office.store.versions(office.run.id)
    assert [(version.attempt.change, version.parents, version.champion) for version in versions[:2]] == [
        ("seed 2.py", (), True),
        ("seed 0.py", (), True),
    ]
    assert office.store.attempts(office.run.id)[3].parents == (1,)
    assert (start := office.store.start(office.run.id)) is not None
    assert start.attempt.source == "tflops = 90.0"
    assert office.store.runs()[0].seed_geomean == 90.0
    assert office.said[0] == "seed 1.py is no version: parse error: not a kernel: nonsense"
    office.store.close()


@pytest.mark.long
def test_no_step_starts_after_the_deadline(office: Office) -> None:
    run = office.drive(Climber(), deadline=NOW + timedelta(seconds=0.1))
    assert run.state is RunState.FINISHED
    assert 3 < len(office.sources()) < 100


def stopping(office: Office, times: int) -> VariationOperator:
    """Return an operator in whose third step somebody asks to stop."""

    def stop(brief: Brief) -> Proposal:
        for _ in range(times):
            office.stop.request()
        return Climber().vary(brief)

    return Scripted(Climber().vary, Climber().vary, stop)


def test_a_request_to_stop_lets_steps_under_way_finish(office: Office) -> None:
    run = office.drive(stopping(office, 1))
    assert run.state is RunState.STOPPED
    assert run.ended_by is not None
    assert (run.ended_by.cause, run.ended_by.goes_on("fake")) == (Cause.REQUEST, "avo resume fake")
    assert office.states() == [StepState.DONE] * 4


def test_a_stopped_run_goes_on_where_it_was(office: Office) -> None:
    office.drive(stopping(office, 1))
    office.stop = Stop()
    seen = []
    office.drive(Scripted(lambda brief: seen.append(office.store.run("fake")) or Climber().vary(brief)), max_attempts=8)
    assert {(each.state, each.ended_by) for each in seen} == {(RunState.RUNNING, None)}
    assert len(set(office.sources())) == 8
    assert [step.number for step in office.store.steps(office.run.id)] == list(range(8))


class LostCrew(InlineCrew):
    """Workers whose processes have all ended after the seed's step, as what asked the run to stop ended them too."""

    asked: Stop | None = None

    def wait(self, timeout_s: float) -> Sequence[WorkerReport]:
        if self.begun:
            if self.asked:
                self.asked.request()
            raise RayGone("no process left")
        return super().wait(timeout_s)


@pytest.mark.parametrize("asked", [True, False])
def test_a_stop_that_ends_ray_too_is_a_stop(office: Office, asked: bool) -> None:
    crew = LostCrew(office.store, office.run, Climber(), FakeEvaluator(judge))
    crew.asked = office.stop if asked else None
    session = office.session(crew, RunConfig(workers=1), None, office.tick)
    with nullcontext() if asked else pytest.raises(RayGone, match="no process left"):
        session.drive()
    assert office.store.run("fake").state is RunState.STOPPED
    assert StepState.RUNNING not in office.states()


class SilentCrew(InlineCrew):
    """Workers that claim a step and never come back, but for the seed's."""

    def start(self, worker: int, seeding: bool) -> None:
        if seeding:
            super().start(worker, seeding)
        else:
            self.store.claims.claim(self.run.id, worker=f"w{worker}", operator="silent", now=NOW)


@pytest.mark.parametrize("requests", [1, 2])
def test_a_step_that_does_not_finish_is_abandoned(office: Office, requests: int) -> None:
    crew = SilentCrew(office.store, office.run, Climber(), FakeEvaluator(judge))
    ticks = 0

    def clock() -> datetime:
        nonlocal ticks
        ticks += 1
        if ticks == 20:
            for _ in range(requests):
                office.stop.request()
        return NOW + timedelta(seconds=ticks)

    run = office.session(crew, RunConfig(workers=1), NOW + timedelta(hours=1), clock).drive()
    assert run.state is RunState.STOPPED
    assert office.states() == [StepState.DONE, StepState.ABANDONED]
    waited_out = ticks > 20 + GRACE.total_seconds()
    assert waited_out == (requests == 1)


class BusyCrew(SilentCrew):
    """Workers that are heard from and never come back, but for the seed's."""

    seconds = 0

    def clock(self) -> datetime:
        """Return a time that is a second later at each call."""
        self.seconds += 1
        return NOW + timedelta(seconds=self.seconds)

    def wait(self, timeout_s: float) -> Sequence[WorkerReport]:
        for step in self.store.pages.running(self.run.id):
            self.store.claims.keep(step.id, now=NOW + timedelta(seconds=self.seconds))
        return super().wait(timeout_s)


@pytest.mark.parametrize(("grace", "stop_after"), [(0.0, None), (10.0, None), (10.0, 60)])
def test_at_the_limit_of_time_a_step_may_finish_what_it_evaluates_for_a_while(
    office: Office, grace: float, stop_after: int | None
) -> None:
    crew, limit = BusyCrew(office.store, office.run, Climber(), FakeEvaluator(judge)), 36

    def clock() -> datetime:
        if stop_after is not None and crew.seconds == limit + stop_after:
            office.stop.request()
        return crew.clock()

    config = RunConfig(workers=1, max_hours=0.01, grace=grace)
    run = office.session(crew, config, NOW + timedelta(seconds=limit), clock).drive()
    waits = min(60 * grace, stop_after + GRACE.total_seconds() if stop_after else 3600)
    assert limit + waits <= crew.seconds < limit + waits + 15
    assert office.states() == [StepState.DONE, StepState.ABANDONED]
    assert run.ended_by is not None
    assert run.ended_by.cause is (Cause.REQUEST if stop_after else Cause.LIMIT)
    if not stop_after:
        assert run.ended_by == Ending(Cause.LIMIT, "has used its 0.01 hours", "max_hours")
        assert run.ended_by.goes_on("fake") == "avo resume fake"


def test_steps_that_a_killed_process_left_behind_are_abandoned_and_the_run_goes_on(office: Office) -> None:
    office.drive(Climber(), max_attempts=3)
    office.store.claims.claim(office.run.id, worker="w0", operator="climber", now=NOW)
    office.drive(Climber(), max_attempts=5)
    assert office.states() == [*[StepState.DONE] * 3, StepState.ABANDONED, *[StepState.DONE] * 2]
    assert "left behind" in office.store.steps(office.run.id)[3].reason


def test_a_run_killed_before_its_seed_was_judged_begins_with_the_seed(office: Office) -> None:
    office.store.claims.claim(office.run.id, worker="w0", operator="seed", now=NOW)
    office.drive(Climber(), max_attempts=3)
    assert office.sources()[0] == SEED
    assert office.states() == [StepState.ABANDONED, *[StepState.DONE] * 3]


def test_a_dead_worker_costs_its_step_and_not_the_run(office: Office) -> None:
    run = office.drive(Climber(), max_attempts=5, workers=2, deaths=range(MAX_TROUBLES - 1))
    assert run.state is RunState.FINISHED
    assert len(office.sources()) == 5
    assert office.states().count(StepState.ABANDONED) == MAX_TROUBLES - 1
    assert office.store.steps(run.id)[0].reason == "the operator's process died"


@pytest.mark.long
def test_a_worker_that_dies_now_and_then_does_not_end_the_run(office: Office) -> None:
    run = office.drive(Climber(), max_attempts=3 * MAX_TROUBLES, deaths=range(1, 100, 2))
    assert run.state is RunState.FINISHED
    assert office.states().count(StepState.ABANDONED) > MAX_TROUBLES


def test_workers_that_die_again_and_again_end_the_run(office: Office) -> None:
    with pytest.raises(RunFailed, match="the operator's process died"):
        office.drive(Climber(), max_attempts=5, deaths=range(100))
    assert office.states() == [StepState.ABANDONED] * MAX_TROUBLES
    run = office.store.run("fake")
    assert run.state is RunState.STOPPED
    assert run.ended_by is not None
    assert (run.ended_by.cause, run.ended_by.goes_on("fake")) == (Cause.FAILED, "avo doctor && avo resume fake")
    assert "the operator's process died" in run.ended_by.why


def test_an_operator_with_nothing_left_to_try_ends_the_run(office: Office) -> None:
    run = office.drive(Scripted(lambda brief: Proposal(None, "exhausted")), workers=2)
    assert run.state is RunState.FINISHED
    assert len(office.states()) == 1 + 2 * PATIENCE
    assert run.ended_by is not None
    assert run.ended_by.cause is Cause.EXHAUSTED
    assert "nothing left to try" in run.ended_by.why


def test_something_new_wakes_the_resting_workers(office: Office) -> None:
    def nothing(brief: Brief) -> Proposal:
        return Proposal(None, "nothing")

    script = [nothing] * (2 * PATIENCE - 1) + [proposing("tflops = 110.0"), nothing]
    office.drive(Scripted(*script), workers=2)
    assert len(office.states()) == 1 + 2 * PATIENCE + 2 * PATIENCE


def test_an_operator_that_fails_every_step_ends_the_run_with_its_reason(office: Office) -> None:
    def stumbles(brief: Brief) -> Proposal:
        raise KeyError("lost")

    with pytest.raises(RunFailed, match="KeyError: 'lost'"):
        office.drive(Scripted(stumbles))
    assert office.states() == [StepState.DONE, *[StepState.FAILED] * PATIENCE]


@contextmanager
def signal_handled(number: int, handler: signal.Handlers) -> Iterator[None]:
    """Have a signal handled like this as long as the context lasts."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def test_signals_ask_once_to_stop_and_twice_to_stop_at_once(request: pytest.FixtureRequest) -> None:
    stop = Stop()
    ours = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # ignored where a shell has put us in the background
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, ours))
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_on_signals(stop):
        os.kill(os.getpid(), signal.SIGTERM)
        assert (stop.requested, stop.at_once) == (True, False)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.at_once
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_terminal_that_is_closed_asks_once_to_stop_however_often_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    stop, replaced = Stop(), list[int]()
    monkeypatch.setattr(os, "isatty", lambda stream: stream == 2)
    monkeypatch.setattr(os, "dup2", lambda _, stream: replaced.append(stream))
    with signal_handled(signal.SIGHUP, signal.SIG_DFL), stop_on_signals(stop):
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        assert (stop.requested, stop.at_once) == (True, False)
    assert replaced == [2, 2], "a file, as standard output is here, is still written to"


def test_a_run_under_nohup_outlives_its_terminal() -> None:
    stop = Stop()
    with signal_handled(signal.SIGHUP, signal.SIG_IGN), stop_on_signals(stop):
        os.kill(os.getpid(), signal.SIGHUP)
    assert not stop.requested


ASKS = """
import sys
from avo.errors import RunBusy
from avo.search.leases import exclusive
from avo.search.run import utc_now
from avo.lineage_db.store import Store

with Store.open(sys.argv[1], create=False) as store:
    for name in sys.argv[2:]:
        try:
            with exclusive(store, store.run(name), clock=utc_now, lost=print, say=print):
                print(name, "free")
        except RunBusy as error:
            print(error)
"""


@pytest.mark.long
def test_one_process_at_a_time_drives_a_run(office: Office) -> None:
    make_run(office.store, name="other")
    command = [sys.executable, "-c", ASKS, office.store.url, "other", "fake"]
    with exclusive(office.store, office.run, clock=utc_now, lost=print, say=print):
        held = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    freed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert held[0] == "other free"
    assert "run 'fake' is being worked on" in held[1]
    assert freed == ["other free", "fake free"]
