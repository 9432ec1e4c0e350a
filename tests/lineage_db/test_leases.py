"""Leases: who drives a run and who performs a step, until when, and who takes over."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from avo.lineage_db.driving import LEASE
from avo.lineage_db.errors import RunHeld
from avo.lineage_db.records import Doing, RunState, StepState
from avo.lineage_db.store import Store
from tests.decisions import refuse

SECOND = timedelta(seconds=1)


def test_a_run_has_one_driver_until_its_lease_is_over(store: Store, make: Any) -> None:
    run = make.run(store)
    store.driving.take(run.id, "a:1", now=make.now)
    with pytest.raises(
        RunHeld, match=r"run 'mha-h100' is being worked on by another process \(a:1\): stop that one"
    ) as held:
        store.driving.take(run.id, "b:2", now=make.now + LEASE - SECOND)
    assert held.value.until == make.now + LEASE
    store.driving.take(run.id, "a:1", now=make.now)
    store.driving.take(run.id, "b:2", now=make.now + LEASE)
    assert not store.driving.keep(run.id, "a:1", now=make.now)
    store.driving.release(run.id, "a:1", now=make.now)
    assert store.run(run.name).driver == "b:2"


def test_a_lease_that_is_renewed_goes_on_and_one_given_back_ends(store: Store, make: Any) -> None:
    run = make.run(store)
    store.driving.take(run.id, "a:1", now=make.now)
    before = store.revision(run.id)
    assert store.driving.keep(run.id, "a:1", now=make.now + LEASE / 2)
    assert store.revision(run.id) != before
    with pytest.raises(RunHeld):
        store.driving.take(run.id, "b:2", now=make.now + LEASE)
    store.driving.release(run.id, "a:1", now=make.now)
    store.driving.take(run.id, "b:2", now=make.now)


def test_a_driver_known_to_be_gone_is_replaced_at_once(store: Store, make: Any) -> None:
    run = make.run(store)
    store.driving.take(run.id, "a:1", now=make.now)
    with pytest.raises(RunHeld):
        store.driving.take(run.id, "b:2", now=make.now, gone="a:7")
    store.driving.take(run.id, "b:2", now=make.now, gone="a:1")


def test_a_driver_does_not_go_on_with_what_the_one_before_it_was_doing_when_it_was_killed(
    store: Store, make: Any
) -> None:
    run = make.run(store)
    store.driving.take(run.id, "a:1", now=make.now)
    store.driving.tell(run.id, Doing("starting Ray", make.now), now=make.now)
    store.driving.take(run.id, "b:2", now=make.now + LEASE)
    assert store.run(run.name).doing is None


def test_a_run_whose_driver_is_gone_is_interrupted_not_running(store: Store, make: Any) -> None:
    run = make.run(store)
    store.driving.take(run.id, "a:1", now=make.now)
    run = store.run(run.name)
    assert run.state is RunState.RUNNING
    assert run.state_at(make.now + LEASE) is RunState.RUNNING
    assert run.state_at(make.now + LEASE + SECOND) is RunState.INTERRUPTED
    finished = store.set_run_state(run.id, RunState.FINISHED, now=make.now)
    assert finished.state_at(make.now + 2 * LEASE) is RunState.FINISHED


def test_only_steps_whose_claim_ran_out_are_abandoned(store: Store, make: Any) -> None:
    run = make.run(store)
    silent, kept, done = (make.step(store, run) for _ in range(3))
    make.conclude(store, done, None, decide=refuse)
    before = store.revision(run.id)
    assert store.claims.keep(kept.id, now=make.now + LEASE / 2)
    later = make.now + LEASE + SECOND
    assert store.claims.abandon_expired(run.id, reason="gone", now=make.now + LEASE) == []
    assert store.revision(run.id) == before, "readers that poll have nothing to see"
    (abandoned,) = store.claims.abandon_expired(run.id, reason="gone", now=later)
    assert (abandoned.number, abandoned.state, abandoned.reason) == (silent.number, StepState.ABANDONED, "gone")
    assert not store.claims.keep(silent.id, now=later)
    assert store.steps(run.id)[1].state is StepState.RUNNING


def claims(store: Store, run_id: int, make: Any) -> Callable[..., tuple[int, int | None, int]]:
    def claim(worker: str, operator: str = "o") -> tuple[int, int | None, int]:
        step = store.claims.claim(run_id, worker=worker, operator=operator, now=make.now)
        return step.number, step.redoes, step.turn

    return claim


def test_an_abandoned_step_is_repeated_once_by_the_worker_that_asks_first(store: Store, make: Any) -> None:
    run = make.run(store)
    claim = claims(store, run.id, make)
    assert [claim("w0"), claim("w1")] == [(0, None, 0), (1, None, 0)]
    store.claims.abandon_running(run.id, reason="killed", now=make.now)
    assert claim("w2") == (2, 0, -1)
    assert claim("w2") == (3, 1, -1)
    assert claim("w2") == (4, None, 0)
    assert claim("w1") == (5, None, 1)
    store.claims.abandon_running(run.id, reason="killed", now=make.now, worker="w2")
    assert claim("w1") == (6, 4, 1), "what was repeated already is not repeated again"
    assert claim("w1") == (7, None, 2)


def test_its_own_abandoned_step_comes_before_another_workers(store: Store, make: Any) -> None:
    run = make.run(store)
    claim = claims(store, run.id, make)
    claim("w0"), claim("w1")
    store.claims.abandon_running(run.id, reason="killed", now=make.now)
    assert [claim("w1"), claim("w0")] == [(2, 1, 0), (3, 0, 0)]


def test_a_step_of_another_operator_is_not_repeated(store: Store, make: Any) -> None:
    run = make.run(store)
    claim = claims(store, run.id, make)
    claim("w0", "seed")
    store.claims.abandon_running(run.id, reason="killed", now=make.now)
    assert claim("w1") == (1, None, 0)
    assert claim("w1", "seed") == (2, 0, 0)
