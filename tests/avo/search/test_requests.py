"""What a driver does that is asked to stop or to pause through the database."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from avo.agents.operator import Brief, Proposal
from avo.config import RunConfig
from avo.evaluator.fake import FakeEvaluator
from avo.lineage_db.records import Request, Run, RunState, StepState
from avo.lineage_db.store import Store
from avo.search.run import GRACE, RunSession, Stop, WorkerReport
from tests.avo.fakes import NOW, Climber, InlineCrew, Scripted, judge, make_run


class Driven:
    """A driven run whose clock moves a second each time somebody looks at it."""

    def __init__(self, path: Path) -> None:
        self.store = Store.open(str(path / "runs.db"))
        self.run = make_run(self.store)
        self.store.driving.take(self.run.id, "a:1", now=NOW)
        self.said: list[str] = []
        self.now = NOW
        self.rests = 0

    def tick(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    def ask(self, request: Request) -> None:
        self.store.driving.ask(self.run.id, request, now=NOW)

    def asking(self, request: Request) -> Scripted:
        """Return an operator in whose second step somebody asks."""

        def ask(brief: Brief) -> Proposal:
            self.ask(request)
            return Climber().vary(brief)

        return Scripted(Climber().vary, ask, Climber().vary)

    def rest(self, seconds: float) -> None:
        """End the pause when it has lasted three rests."""
        self.rests += 1
        if self.rests == 3:
            self.ask(Request.NONE)

    def drive(self, operator: Scripted, crew: type[InlineCrew] = InlineCrew, hours: float | None = None) -> Run:
        return RunSession(
            self.store, self.run, RunConfig(workers=1, max_attempts=6),
            deadline=None if hours is None else NOW + timedelta(hours=hours),
            hire=crew(self.store, self.run, operator, FakeEvaluator(judge)).hire,
            stop=Stop(), say=self.said.append, clock=self.tick, rest=self.rest,
        ).drive()  # fmt: skip


@pytest.fixture
def driven(tmp_path: Path) -> Driven:
    return Driven(tmp_path)


def test_a_run_asked_to_stop_finishes_its_steps_and_stops(driven: Driven) -> None:
    assert driven.drive(driven.asking(Request.STOP)).state is RunState.STOPPED
    assert [step.state for step in driven.store.steps(driven.run.id)] == [StepState.DONE] * 3
    assert "stopping, as requested" in driven.said


class Unfinished(InlineCrew):
    """Begins its third step, is asked to stop at once, and never ends it."""

    def wait(self, timeout_s: float) -> Sequence[WorkerReport]:
        if self.begun < 2:
            return super().wait(timeout_s)
        if self.begun == 2:
            self.begun += 1
            self.store.claims.claim(self.run.id, worker="w0", operator="any", now=NOW)
            self.store.driving.ask(self.run.id, Request.STOP, now=NOW)
        else:
            self.store.driving.ask(self.run.id, Request.STOP_NOW, now=NOW)
        return []


def test_a_run_asked_to_stop_at_once_abandons_its_steps(driven: Driven) -> None:
    assert driven.drive(Scripted(Climber().vary), Unfinished).state is RunState.STOPPED
    assert driven.store.steps(driven.run.id)[-1].state is StepState.ABANDONED
    assert driven.now < NOW + GRACE, "it did not wait for what would not come"


def test_a_paused_run_starts_nothing_until_the_pause_is_over(driven: Driven) -> None:
    assert driven.drive(driven.asking(Request.PAUSE)).state is RunState.FINISHED
    assert driven.rests >= 3
    assert len(driven.store.attempts(driven.run.id)) == 6
    assert driven.said[:3] == ["paused: no new steps are started", "paused: all steps have ended", "the pause is over"]


def test_the_hours_of_a_run_go_on_in_a_pause(driven: Driven) -> None:
    driven.rests = 3  # nobody ends the pause
    assert driven.drive(driven.asking(Request.PAUSE), hours=0.05).state is RunState.FINISHED
    assert len(driven.store.attempts(driven.run.id)) == 3
