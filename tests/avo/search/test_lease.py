"""Leases while a run goes on: who is silent is replaced, and two processes never drive one run."""

import threading
from datetime import datetime, timedelta

import pytest

from avo.agents.operator import Brief, Proposal
from avo.config import RunConfig
from avo.errors import RunBusy
from avo.evaluator.fake import FakeEvaluator
from avo.lineage_db.driving import LEASE
from avo.lineage_db.errors import DatabaseUnavailable
from avo.lineage_db.records import RunState, StepState
from avo.lineage_db.store import Store
from avo.search.leases import exclusive, renewed
from avo.search.run import RunSession, Stop, utc_now
from tests.avo.fakes import NOW, Climber, InlineCrew, Scripted, judge, make_run
from tests.postgresql import Cluster

PATIENCE_S = 600.0


def test_a_lease_is_renewed_until_the_work_is_over_whatever_the_database_says() -> None:
    enough, count = threading.Event(), 0

    def renew() -> bool:
        nonlocal count
        count += 1
        if count == 2:
            raise DatabaseUnavailable("busy")
        if count > 3:
            enough.set()
        return True

    with renewed(renew, interval_s=0.001):
        assert enough.wait(PATIENCE_S)
    before = count
    assert not threading.Event().wait(0.02)
    assert count == before


def test_who_has_lost_a_lease_is_told_once() -> None:
    lost: list[str] = []
    told = threading.Event()

    def tell() -> None:
        lost.append("lost")
        told.set()

    with renewed(lambda: False, tell, interval_s=0.001):
        assert told.wait(PATIENCE_S)
    assert lost == ["lost"]


def test_a_step_under_way_is_kept(store: Store) -> None:
    run = make_run(store)
    seen: list[datetime | None] = []

    def thinks(brief: Brief) -> Proposal:
        (step,) = [step for step in store.steps(run.id) if step.state is StepState.RUNNING]
        seen.append(step.lease_until)
        return Proposal(None, "thought")

    crew = InlineCrew(store, run, Scripted(Climber().vary, thinks), FakeEvaluator(judge))
    crew.start(0, True)
    crew.wait(0)
    for _ in range(2):
        crew.start(0, False)
        crew.wait(0)
    assert seen == [NOW + LEASE]


class Silent(InlineCrew):
    """A crew whose second worker claims its first step and is not heard of again."""

    replaced = 0

    def start(self, worker: int, seeding: bool) -> None:
        """Remember the step, or lose it."""
        if worker == 1 and not self.replaced and not self.silent:
            self.silent = True
            self.store.claims.claim(self.run.id, worker="w1", operator="climber", now=NOW)
        else:
            super().start(worker, seeding)

    silent = False

    def replace(self, worker: int) -> None:
        """Count."""
        self.replaced += 1
        super().replace(worker)


@pytest.mark.long
def test_the_step_of_a_worker_that_is_not_heard_of_goes_to_another(store: Store) -> None:
    now = NOW

    def clock() -> datetime:
        nonlocal now
        now += timedelta(seconds=1)
        return now

    said: list[str] = []
    run = make_run(store)
    crew = Silent(store, run, Climber(), FakeEvaluator(judge))
    config = RunConfig(workers=2, max_attempts=60)
    run = RunSession(
        store, run, config, deadline=None, hire=crew.hire, stop=Stop(), say=said.append,
        clock=clock,
    ).drive()  # fmt: skip
    assert run.state is RunState.FINISHED
    steps = store.steps(run.id)
    (lost,) = [step for step in steps if step.state is StepState.ABANDONED]
    assert lost.reason == "its worker was not heard from for 60 s"
    assert [step.redoes for step in steps if step.redoes is not None] == [lost.number]
    assert len(store.attempt_summaries(run.id)) == 60
    assert crew.replaced == 1
    assert any("w1: its worker was not heard from" in line for line in said)


def test_a_process_that_lost_its_run_writes_nothing_more_to_it(store: Store) -> None:
    run = make_run(store)
    stop = Stop()

    def taken(brief: Brief) -> Proposal:
        store.claims.claim(run.id, worker="w5", operator="other", now=NOW)
        stop.dispossess()
        return Proposal(None, "")

    crew = InlineCrew(store, run, Scripted(taken), FakeEvaluator(judge))
    RunSession(
        store, run, RunConfig(workers=1), deadline=None, hire=crew.hire, stop=stop,
        say=print, clock=lambda: NOW,
    ).drive()  # fmt: skip
    assert store.run(run.name).state is RunState.RUNNING
    assert store.steps(run.id)[-1].state is StepState.RUNNING


@pytest.mark.postgresql
def test_two_processes_do_not_drive_one_run_on_a_server(cluster: Cluster) -> None:
    said: list[str] = []
    with cluster.database() as url, Store.open(url) as store:
        run = make_run(store)
        host = "localhost.elsewhere"

        def lives(line: str) -> None:
            """The other process renews its lease while this one waits for its end."""
            said.append(line)
            store.driving.keep(run.id, f"{host}:1", now=utc_now() + timedelta(seconds=9))

        store.driving.take(run.id, f"{host}:1", now=utc_now())
        with pytest.raises(RunBusy, match="is being worked on by another process"):  # noqa: SIM117
            with exclusive(store, run, clock=utc_now, lost=print, say=lives):
                pass
        assert "localhost.elsewhere:1 drives run 'fake', or was killed" in said[0]
        store.driving.take(run.id, f"{host}:1", now=utc_now(), lease=timedelta(seconds=0.5))
        with exclusive(store, run, clock=utc_now, lost=print, say=said.append):
            assert store.run(run.name).driver != f"{host}:1"
        assert store.run(run.name).driver is None
