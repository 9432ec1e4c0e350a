"""Looks: kept as they were seen, counted once, and read as they come, on every kind of database."""

from dataclasses import replace
from typing import Any

import pytest

from avo.evaluator.evaluation import Status
from avo.lineage_db.errors import StepNotRunning
from avo.lineage_db.looked import Looked
from avo.lineage_db.records import StepState
from avo.lineage_db.store import Store


def looked(make: Any, digest: str, **values: Any) -> Looked:
    found = Looked(0, 0, digest, "p" * 64, None, 123.0, 1.5, "tile: 64 -> 128", (0,), make.now)
    return replace(found, **values)


def test_looks_are_given_back_as_recorded_and_counted_with_run_and_step(store: Store, make: Any) -> None:
    run = make.run(store)
    make.version(store, run, 5.0)
    first, second = make.step(store, run), make.step(store, run)
    seen = [
        looked(make, "a", critical=("hbm", "tensor")),
        looked(make, "b", plan_digest=None, fault=Status.DOES_NOT_FIT, geomean_tflops=0.0, doubt=1.0),
    ]
    assert store.results.record_looks(first.id, seen, now=make.now) == 2
    assert store.results.record_looks(second.id, [looked(make, "c"), looked(make, "a")], now=make.now) == 1
    found = store.history(run.id).looks
    expected = [*seen, looked(make, "c")]
    assert list(found) == [
        replace(each, look_id=number, step_number=step)
        for number, (each, step) in enumerate(zip(expected, (1, 1, 2), strict=True), start=1)
    ]
    assert store.run(run.name).looks == 3
    assert [step.looks for step in store.steps(run.id)] == [0, 2, 1]


def test_a_history_reads_new_looks_and_those_of_its_run_alone(store: Store, make: Any) -> None:
    run, other = make.run(store), make.run(store, "other")
    step, of_other = make.step(store, run), make.step(store, other)
    before = store.history(run.id)
    store.results.record_looks(step.id, [looked(make, "a", parents=())], now=make.now)
    store.results.record_looks(of_other.id, [looked(make, "a", parents=())], now=make.now)
    with Store.open(store.url) as writer:
        writer.results.record_looks(step.id, [looked(make, "b", parents=())], now=make.now)
    assert [look.digest for look in store.history(run.id).looks] == ["a", "b"]
    assert list(before.looks) == []
    assert len(store.history(other.id).looks) == 1


def test_a_step_that_has_ended_looks_at_nothing_more(store: Store, make: Any) -> None:
    run = make.run(store)
    step = make.step(store, run)
    store.claims.fail(step.id, state=StepState.ABANDONED, reason="killed", now=make.now)
    with pytest.raises(StepNotRunning):
        store.results.record_looks(step.id, [looked(make, "a")], now=make.now)
    assert store.run(run.name).looks == 0
