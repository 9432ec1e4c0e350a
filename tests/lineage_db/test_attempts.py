"""Attempts: what is kept of them and given back, on every kind of database."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import CaseResult, Resources
from avo.lineage_db.errors import AlreadyRecorded, ForeignEvaluation, UnknownAttempt
from avo.lineage_db.records import StepState
from avo.lineage_db.store import Store
from tests.decisions import ACCEPTED, accept

HUGE = 10**30


def test_an_attempt_is_given_back_as_recorded(store: Store, make: Any) -> None:
    run = make.run(store)
    make.version(store, run, 5.0)
    evaluation = make.evaluation(
        6.0,
        message="",
        plan_digest="p" * 64,
        cases=(CaseResult("a", True, 1e-3, None), CaseResult("b", False, float("inf"), 0.1, "large")),
        resources=(Resources("kernel", 168, 0, 99328, 0, 8, 2),),
    )
    attempt = make.attempt(store, make.step(store, run), parents=(0,), evaluation=evaluation)
    assert store.attempt(run.id, attempt.id) == attempt
    assert store.attempts(run.id)[-1] == attempt
    assert (attempt.evaluation, attempt.parents, attempt.change) == (evaluation, (0,), "tile 64")
    assert attempt.digest == Candidate("mha", attempt.source).digest
    assert attempt.finished - attempt.started == timedelta(seconds=2)


def test_attempts_of_the_same_source_are_all_kept(store: Store, make: Any) -> None:
    run = make.run(store)
    step = make.step(store, run)
    assert make.attempt(store, step).digest == make.attempt(store, step).digest
    assert len(store.attempts(run.id)) == 2


def test_an_attempt_that_is_to_be_recorded_once_is_not_recorded_beside_an_earlier_one(store: Store, make: Any) -> None:
    run = make.run(store)
    first, second = make.step(store, run), make.step(store, run)
    make.attempt(store, second, source="x = 2\n")
    attempt = make.attempt(store, first, once=True)
    with pytest.raises(AlreadyRecorded, match="the candidate is attempt 2 of the run already") as refused:
        make.attempt(store, second, once=True)
    assert refused.value.attempt == attempt
    assert make.attempt(store, first, once=True) == attempt, "a call is repeated where the connection was lost after it"
    assert len(store.attempts(run.id)) == 2


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(source="a\0b\ud800c", message="a\0b")
@given(source=st.text(st.characters(exclude_categories=())), message=st.text(min_size=1))
def test_any_source_and_message_survives(store: Store, make: Any, source: str, message: str) -> None:
    run = make.run(store, store.free_run_name("any"))
    attempt = make.attempt(store, make.step(store, run), source=source, evaluation=make.evaluation(message=message))
    assert store.attempt(run.id, attempt.id).source == source
    assert store.attempt(run.id, attempt.id).evaluation.message == message
    assert len(store.attempt_summaries(run.id)[0].message) == len(message)


def test_text_no_column_takes_is_made_storable_in_summaries_and_reasons(store: Store, make: Any) -> None:
    run = make.run(store)
    step = make.step(store, run)
    make.attempt(store, step, evaluation=make.evaluation(message="a\0b\ud800c"))
    assert store.attempt_summaries(run.id)[0].message == "a?b?c"
    assert store.claims.fail(step.id, state=StepState.FAILED, reason="\0", now=make.now).reason == "?"


def test_an_evaluation_of_something_else_is_refused(store: Store, make: Any) -> None:
    run = make.run(store)
    step = make.step(store, run)
    with pytest.raises(ForeignEvaluation, match=r"^an evaluation of target 'b200' does not belong in a run of target"):
        make.attempt(store, step, evaluation=make.evaluation(target="b200"))
    with pytest.raises(ForeignEvaluation, match="suite 'other'"):
        make.attempt(store, step, evaluation=make.evaluation(suite="other"))
    with pytest.raises(ForeignEvaluation, match="problem 'gqa'"):
        store.results.record_attempt(
            step_id=step.id,
            candidate=Candidate("gqa", ""),
            change="",
            parents=(),
            evaluation=make.evaluation(),
            started=make.now,
            finished=make.now,
        )
    assert store.attempts(run.id) == []


@pytest.mark.parametrize("attempt_id", [99, -1, HUGE])
def test_an_unknown_attempt_is_refused(store: Store, make: Any, attempt_id: int) -> None:
    run = make.run(store)
    with pytest.raises(UnknownAttempt, match=f"the run has no attempt {attempt_id}"):
        store.attempt(run.id, attempt_id)


def test_an_attempt_is_found_in_its_own_run_only(store: Store, make: Any) -> None:
    run, other = make.run(store, "a"), make.run(store, "b")
    attempt = make.attempt(store, make.step(store, run), 5.0)
    with pytest.raises(UnknownAttempt):
        store.attempt(other.id, attempt.id)
    step = make.step(store, other)
    with pytest.raises(UnknownAttempt):
        make.conclude(store, step, attempt, decide=accept)
    assert store.steps(other.id)[0].state is StepState.RUNNING


def test_the_attempts_of_each_run_are_numbered_from_one(store: Store, make: Any) -> None:
    first, second = make.run(store, "a"), make.run(store, "b")
    for run in (first, second, first):
        make.version(store, run, 5.0 + len(store.attempts(run.id)))
    made = make.attempt(store, make.step(store, second), 4.0, hypothesis="h", built_on=1)
    assert [attempt.id for attempt in store.attempts(first.id)] == [1, 2]
    assert [attempt.attempt_id for attempt in store.attempt_summaries(second.id)] == [1, 2]
    assert [version.attempt.id for version in store.versions(first.id)] == [1, 2]
    assert (store.attempt(second.id, 2), store.attempt(first.id, 2).built_on) == (made, None)
    assert [attempt.decision for attempt in store.attempts(first.id)] == [ACCEPTED, ACCEPTED]
    assert [attempt.decision for attempt in store.attempts(second.id)] == [ACCEPTED, None]


def test_summaries_are_the_attempts_of_a_run_without_sources(store: Store, make: Any) -> None:
    run = make.run(store)
    make.version(store, run, 5.0)
    make.attempt(store, make.step(store, run), parents=(0,))
    make.version(store, make.run(store, "other"), 6.0)
    seed, fault = store.attempt_summaries(run.id)
    assert (seed.step_number, seed.version, seed.geomean_tflops) == (0, 0, pytest.approx(5.0))
    assert (fault.step_number, fault.version, fault.geomean_tflops) == (1, None, 0.0)
    assert (fault.status, fault.message, fault.change, fault.parents, fault.seconds, fault.plan_digest) == (
        "incorrect",
        "wrong",
        "tile 64",
        (0,),
        1.5,
        None,
    )
    assert store.attempt_summaries(run.id, after=seed.attempt_id) == [fault]
    assert store.attempt_summaries(run.id, after=fault.attempt_id) == store.attempt_summaries(run.id, after=HUGE) == []
    assert store.attempt_summaries(run.id, after=-HUGE) == [seed, fault]
