"""Runs, times and errors: what a store keeps and gives back, on every kind of database."""

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from avo.lineage_db.errors import InvalidRun, RunExists, StoreError, UnknownRun, UnknownVersion
from avo.lineage_db.records import RunState
from avo.lineage_db.store import Store
from tests.decisions import accept

HUGE = 10**30


def test_a_run_is_given_back_as_created(store: Store, make: Any) -> None:
    run = make.run(store, config={"steps": 3, "islands": [1, 2], "nested": {"a": None}}, seed=2**62)
    assert store.run("mha-h100") == run
    assert (run.state, run.seed, run.created, run.updated) == (RunState.RUNNING, 2**62, make.now, make.now)
    assert run.config == {"steps": 3, "islands": [1, 2], "nested": {"a": None}}


def test_a_run_name_can_be_taken_once(store: Store, make: Any) -> None:
    make.run(store)
    with pytest.raises(RunExists, match=r"^a run named 'mha-h100' exists already: resume it, or choose another name$"):
        make.run(store)
    assert len(store.runs()) == 1


@pytest.mark.parametrize("name", ["", "a@1", "a b", "a/b", "é", "a\n", "x" * 81])
def test_a_run_name_that_could_not_be_typed_is_refused(store: Store, make: Any, name: str) -> None:
    with pytest.raises(InvalidRun, match="use 1 to 80 letters, digits"):
        make.run(store, name)
    assert issubclass(InvalidRun, ValueError)


def test_a_run_name_of_80_characters_is_accepted(store: Store, make: Any) -> None:
    assert make.run(store, "x" * 80).name == "x" * 80


def test_a_seed_no_database_holds_is_refused(store: Store, make: Any) -> None:
    with pytest.raises(InvalidRun, match="seed 9223372036854775808 is too large"):
        make.run(store, seed=2**63)


def test_free_run_names_count_from_2(store: Store, make: Any) -> None:
    assert store.free_run_name("a") == "a"
    make.run(store, "a")
    assert store.free_run_name("a") == "a-2"
    make.run(store, "a-2")
    assert store.free_run_name("a") == "a-3"
    with pytest.raises(InvalidRun):
        store.free_run_name("a@b")


def test_an_unknown_run_is_answered_with_the_ten_newest_names(store: Store, make: Any) -> None:
    with pytest.raises(UnknownRun, match=r"^no run 'x': the database holds none yet, start one with avo run$"):
        store.run("x")
    for number in range(12):
        make.run(store, f"r{number}")
    with pytest.raises(UnknownRun) as caught:
        store.run("x")
    assert str(caught.value) == "no run 'x': choose one of r11, r10, r9, r8, r7, r6, r5, r4, r3, r2"


@pytest.mark.parametrize("run_id", [99, -1, HUGE])
def test_an_unknown_run_id_is_refused_by_every_write(store: Store, make: Any, run_id: int) -> None:
    make.run(store)
    for write in (
        lambda: store.set_run_state(run_id, RunState.STOPPED, now=make.now),
        lambda: store.claims.claim(run_id, worker="w", operator="o", now=make.now),
        lambda: store.claims.abandon_running(run_id, reason="r", now=make.now),
        lambda: store.revision(run_id),
    ):
        with pytest.raises(UnknownRun, match=f"no run with id {run_id}: choose one of mha-h100"):
            write()


@pytest.mark.parametrize("run_id", [99, HUGE])
def test_an_unknown_run_id_reads_as_an_empty_run(store: Store, make: Any, run_id: int) -> None:
    make.version(store, make.run(store), 5.0)
    assert (
        store.steps(run_id) == store.attempt_summaries(run_id) == store.attempts(run_id) == store.versions(run_id) == []
    )
    with pytest.raises(UnknownVersion):
        store.version(run_id)


def test_a_run_state_change_keeps_the_configuration_unless_given(store: Store, make: Any) -> None:
    run = make.run(store)
    later = make.now + timedelta(hours=1)
    stopped = store.set_run_state(run.id, RunState.STOPPED, now=later)
    assert (stopped.state, stopped.config, stopped.updated, stopped.created) == (
        RunState.STOPPED,
        run.config,
        later,
        make.now,
    )
    assert store.set_run_state(run.id, RunState.RUNNING, now=later, config={"steps": 99}).config == {"steps": 99}
    assert store.run(run.name).config == {"steps": 99}


def test_summaries_come_newest_first_with_counts_and_speeds(store: Store, make: Any) -> None:
    first, second = make.run(store, "first"), make.run(store, "second")
    make.version(store, first, 5.0)
    make.version(store, first, 9.0, parents=(0,))
    make.version(store, first, 8.0, parents=(1,))
    make.attempt(store, make.step(store, first))
    newest, oldest = store.runs()
    assert (newest.run, newest.attempts, newest.versions) == (second, 0, 0)
    assert (newest.best_geomean, newest.seed_geomean) == (None, None)
    assert (oldest.run.name, oldest.attempts, oldest.versions) == ("first", 4, 3)
    assert oldest.best_geomean == pytest.approx(8.0)
    assert oldest.seed_geomean == pytest.approx(5.0)


def test_the_revision_changes_with_every_write_and_only_then(store: Store, make: Any) -> None:
    run = make.run(store)
    seen = [store.revision(run.id)]
    step = make.step(store, run)
    seen.append(store.revision(run.id))
    attempt = make.attempt(store, step, 5.0)
    seen.append(store.revision(run.id))
    assert seen[-1][0] == attempt.id
    make.conclude(store, step, attempt, decide=accept)
    seen.append(store.revision(run.id))
    store.set_run_state(run.id, RunState.STOPPED, now=make.now)
    seen.append(store.revision(run.id))
    make.version(store, make.run(store, "other"), 5.0)
    assert len(set(seen)) == 5
    assert store.revision(run.id) == seen[-1]


def test_times_are_kept_as_instants_and_given_back_in_utc(store: Store, make: Any) -> None:
    local = make.now.astimezone(timezone(timedelta(hours=5, minutes=30)))
    run = make.run(store, now=local)
    assert run.created == make.now
    assert store.run(run.name).created.utcoffset() == timedelta(0)


def test_a_time_without_time_zone_is_refused(store: Store, make: Any) -> None:
    with pytest.raises(ValueError, match="a time without time zone cannot be stored: 2030-01-01"):
        make.run(store, now=datetime(2030, 1, 1))
    assert store.runs() == []


def test_a_configuration_that_is_not_plain_data_is_refused(store: Store, make: Any) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        make.run(store, config={"x": object()})


def test_another_store_on_the_same_url_sees_everything(store: Store, make: Any) -> None:
    run = make.run(store)
    make.version(store, run, 5.0)
    with Store.open(store.url, create=False) as other:
        assert other.run("mha-h100") == store.run("mha-h100")
        assert other.versions(run.id) == store.versions(run.id)


def test_every_error_is_one_line(store: Store, make: Any) -> None:
    for call in (lambda: store.run("x\ny"), lambda: make.run(store, "x\ny"), lambda: store.attempt(1, 1)):
        with pytest.raises(StoreError) as caught:
            call()
        assert "\n" not in str(caught.value)
