"""Steps, and the comparisons of measured speeds that are made in them, on every kind of database."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from avo.evaluator.evaluation import Comparison, Verdict
from avo.lineage_db.driving import LEASE
from avo.lineage_db.errors import StepNotRunning
from avo.lineage_db.records import StepState
from avo.lineage_db.store import Store
from tests.decisions import never

HUGE = 10**30


def test_steps_are_numbered_from_0_in_each_run(store: Store, make: Any) -> None:
    one, two = make.run(store, "one"), make.run(store, "two")
    assert [make.step(store, run).number for run in (one, one, two, one)] == [0, 1, 0, 2]
    step = store.steps(one.id)[0]
    assert (step.worker, step.operator, step.state, step.started, step.finished, step.reason) == (
        "w0",
        "mutate",
        StepState.RUNNING,
        make.now,
        None,
        "",
    )


@pytest.mark.parametrize("state", [StepState.FAILED, StepState.ABANDONED])
def test_a_failed_step_keeps_its_reason(store: Store, make: Any, state: StepState) -> None:
    run = make.run(store)
    failed = store.claims.fail(make.step(store, run).id, state=state, reason="boom", now=make.now)
    assert store.steps(run.id) == [failed]
    assert (failed.state, failed.reason, failed.finished) == (state, "boom", make.now)


def test_a_step_does_not_fail_as_done(store: Store, make: Any) -> None:
    step = make.step(store, make.run(store))
    with pytest.raises(ValueError, match="a step cannot fail as done"):
        store.claims.fail(step.id, state=StepState.DONE, reason="", now=make.now)


def test_a_candidate_is_announced_by_one_running_step_at_a_time(store: Store, make: Any) -> None:
    run, other_run = make.run(store), make.run(store, name="other")
    first, second = make.step(store, run), make.step(store, run)
    assert store.claims.announce(first.id, "d1", now=make.now)
    assert store.claims.announce(first.id, "d1", now=make.now)
    assert not store.claims.announce(second.id, "d1", now=make.now)
    assert store.claims.announce(make.step(store, other_run).id, "d1", now=make.now)
    assert store.claims.announce(second.id, "d2", now=make.now)
    assert [step.digest for step in store.steps(run.id)] == ["d1", "d2"]
    assert not store.claims.announce(second.id, "d1", now=make.now)
    assert store.claims.announce(first.id, "d3", now=make.now)
    assert not store.claims.announce(second.id, "d1", now=make.now), "a step may evaluate several at once"
    store.claims.answer(first.id, "d3", None, now=make.now, spent=True)
    assert [answer.spent for answer in store.claims.answers(run.id)] == [True]
    assert store.claims.announce(second.id, "d3", now=make.now)
    store.claims.withdraw(second.id, "d3")
    assert store.claims.announce(first.id, "d3", now=make.now)
    store.claims.withdraw(first.id, "d3")
    assert store.claims.announce(second.id, "d3", now=make.now)
    store.claims.fail(first.id, state=StepState.ABANDONED, reason="", now=make.now)
    assert store.claims.announce(second.id, "d1", now=make.now)
    with pytest.raises(StepNotRunning):
        store.claims.announce(first.id, "d1", now=make.now)


def test_what_a_step_announced_counts_no_more_when_its_lease_is_over(store: Store, make: Any) -> None:
    """The previous driver was killed, and the next one may start much later."""
    run = make.run(store)
    first, second = make.step(store, run), make.step(store, run)
    assert store.claims.announce(first.id, "d1", now=make.now)
    later = make.now + LEASE + timedelta(seconds=1)
    store.claims.keep(second.id, now=later)
    assert store.claims.announce(second.id, "d1", now=later)


def test_abandoning_ends_the_running_steps_of_one_run_only(store: Store, make: Any) -> None:
    run, other = make.run(store, "a"), make.run(store, "b")
    done, *_ = [make.step(store, run) for _ in range(3)]
    make.step(store, other)
    make.conclude(store, done, None, decide=never)
    assert store.claims.abandon_running(run.id, reason="killed", now=make.now) == 2
    assert [step.state for step in store.steps(run.id)] == [StepState.DONE, StepState.ABANDONED, StepState.ABANDONED]
    assert [step.reason for step in store.steps(run.id)] == ["tried tiles", "killed", "killed"]
    assert store.steps(other.id)[0].state is StepState.RUNNING
    assert store.claims.abandon_running(run.id, reason="killed", now=make.now) == 0


def test_nothing_is_written_to_a_step_that_was_abandoned(store: Store, make: Any) -> None:
    run = make.run(store)
    step = make.step(store, run)
    attempt = make.attempt(store, step, 5.0)
    store.claims.abandon_running(run.id, reason="stopped", now=make.now)
    before = store.revision(run.id)
    for write in (
        lambda: make.attempt(store, step, 6.0),
        lambda: make.conclude(store, step, attempt, decide=never),
        lambda: store.claims.fail(step.id, state=StepState.FAILED, reason="", now=make.now),
    ):
        with pytest.raises(StepNotRunning, match="is abandoned, not running: claim a new step"):
            write()
    assert store.revision(run.id) == before


@pytest.mark.parametrize("step_id", [99, HUGE])
def test_nothing_is_written_to_a_step_that_does_not_exist(store: Store, make: Any, step_id: int) -> None:
    with pytest.raises(StepNotRunning, match=f"step with id {step_id} does not exist"):
        store.claims.fail(step_id, state=StepState.FAILED, reason="", now=make.now)


def test_comparisons_are_numbered_over_the_run_by_all_workers_together(store: Store, make: Any) -> None:
    run, other = make.run(store, "a"), make.run(store, "b")
    first, second = make.step(store, run), make.step(store, run)
    assert [store.results.number_comparison(step.id, now=make.now) for step in (first, second, first)] == [1, 2, 3]
    assert store.results.number_comparison(make.step(store, other).id, now=make.now) == 1


def test_a_new_comparison_takes_the_place_of_the_old_and_nothing_else_changes(store: Store, make: Any) -> None:
    run = make.run(store)
    step = make.step(store, run)
    attempt, faulty = make.attempt(store, step, 5.0), make.attempt(store, step)
    comparison = Comparison("plan", 1e-9, (0.125, -0.25), Verdict.FASTER)
    recorded = store.results.record_comparison(step.id, attempt.id, comparison, now=make.now)
    assert recorded == store.attempt(run.id, attempt.id)
    score = recorded.evaluation.score
    assert score is not None
    assert score.comparison == comparison
    plain = replace(recorded.evaluation, score=replace(score, comparison=None))
    assert replace(recorded, evaluation=plain) == attempt
    with pytest.raises(ValueError, match="only a correct attempt"):
        store.results.record_comparison(step.id, faulty.id, comparison, now=make.now)


def test_a_step_that_is_over_compares_nothing_more(store: Store, make: Any) -> None:
    run = make.run(store)
    step = make.step(store, run)
    attempt = make.attempt(store, step, 5.0)
    store.claims.abandon_running(run.id, reason="stopped", now=make.now)
    with pytest.raises(StepNotRunning):
        store.results.number_comparison(step.id, now=make.now)
    with pytest.raises(StepNotRunning):
        store.results.record_comparison(step.id, attempt.id, Comparison("p", 0.1, (), Verdict.UNDECIDED), now=make.now)
