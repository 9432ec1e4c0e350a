"""Requests: what may be asked of the process that drives a run, and when that is forgotten."""

from typing import Any

import pytest

from avo.lineage_db.driving import LEASE
from avo.lineage_db.errors import RunNotDriven, RunStopping
from avo.lineage_db.records import Request, Run, RunState
from avo.lineage_db.store import Store


@pytest.fixture
def run(store: Store, make: Any) -> Run:
    made: Run = make.run(store)
    store.driving.take(made.id, "a:1", now=make.now)
    return made


def test_a_run_that_nobody_drives_cannot_be_asked(store: Store, make: Any) -> None:
    run = make.run(store)
    with pytest.raises(
        RunNotDriven, match=r"run 'mha-h100' is interrupted and no process works on it: continue it with avo resume"
    ):
        store.driving.ask(run.id, Request.STOP, now=make.now)
    store.driving.take(run.id, "a:1", now=make.now)
    with pytest.raises(RunNotDriven):
        store.driving.ask(run.id, Request.STOP, now=make.now + 2 * LEASE)
    assert store.driving.request(run.id) is Request.NONE


def test_a_pause_is_seen_by_everybody_and_taken_back(store: Store, run: Run, make: Any) -> None:
    before = store.revision(run.id)
    store.driving.ask(run.id, Request.PAUSE, now=make.now)
    assert store.driving.request(run.id) is Request.PAUSE
    assert store.revision(run.id) != before
    assert store.run(run.name).state_at(make.now) is RunState.PAUSED
    assert store.run(run.name).state_at(make.now + 2 * LEASE) is RunState.INTERRUPTED
    store.driving.ask(run.id, Request.NONE, now=make.now)
    assert store.run(run.name).state_at(make.now) is RunState.RUNNING


def test_a_request_to_stop_is_only_made_more_urgent(store: Store, run: Run, make: Any) -> None:
    store.driving.ask(run.id, Request.PAUSE, now=make.now)
    store.driving.ask(run.id, Request.STOP, now=make.now)
    for request in (Request.PAUSE, Request.NONE):
        with pytest.raises(RunStopping, match="was asked to stop"):
            store.driving.ask(run.id, request, now=make.now)
    assert store.driving.ask(run.id, Request.STOP_NOW, now=make.now) is Request.STOP_NOW
    assert store.driving.ask(run.id, Request.STOP, now=make.now) is Request.STOP_NOW
    assert store.driving.request(run.id) is Request.STOP_NOW


def test_a_request_ends_with_the_session_and_does_not_reach_the_next(store: Store, run: Run, make: Any) -> None:
    store.driving.ask(run.id, Request.STOP, now=make.now)
    store.driving.release(run.id, "a:1", now=make.now)
    assert store.driving.request(run.id) is Request.NONE
    store.driving.take(run.id, "a:1", now=make.now)
    store.driving.ask(run.id, Request.PAUSE, now=make.now)
    store.driving.take(run.id, "b:2", now=make.now + 2 * LEASE)  # a:1 was killed
    assert store.driving.request(run.id) is Request.NONE
