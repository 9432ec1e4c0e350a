"""What a store keeps and gives back, on every kind of database."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from evaluator.candidate import Candidate
from evaluator.evaluation import CaseResult, Comparison, Resources, Verdict
from lineage_db.decision import Decision, Ruling
from lineage_db.driving import LEASE
from lineage_db.errors import (
    ForeignEvaluation,
    InvalidRun,
    RunExists,
    StepNotRunning,
    StoreError,
    UnknownAttempt,
    UnknownRun,
    UnknownVersion,
)
from lineage_db.records import Attempt, Run, RunState, StepState, Version
from lineage_db.store import Store
from tests.decisions import ACCEPTED, REFUSED, accept, refuse

HUGE = 10**30


def never(versions: Sequence[Version], attempt: Attempt) -> Decision | None:
    raise AssertionError("decide must not be asked")


# Runs


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


# Comparisons of measured speeds


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


# Steps


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


# Attempts


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


# Versions


def test_an_accepted_attempt_becomes_the_next_version(store: Store, make: Any) -> None:
    run = make.run(store)
    make.version(store, run, 5.0)
    step = make.step(store, run)
    attempt = make.attempt(store, step, 6.0)
    seen = []

    def decide(versions: Sequence[Version], attempt: Attempt) -> Decision | None:
        seen.append(([version.number for version in versions], attempt))
        return ACCEPTED

    version = make.conclude(store, step, attempt, parents=(0,), decide=decide)
    assert seen == [([0], attempt)]
    assert version == Version(run.id, 1, (0,), make.now, replace(attempt, decision=ACCEPTED), step_number=step.number)
    assert store.versions(run.id)[1] == version
    done = store.steps(run.id)[1]
    assert (done.state, done.reason, done.finished) == (StepState.DONE, "tried tiles", make.now)


def test_a_version_tells_the_step_that_accepted_it_whichever_evaluated_it(store: Store, make: Any) -> None:
    run = make.run(store)
    make.version(store, run, 5.0)
    early, late = make.step(store, run), make.step(store, run)
    attempt = make.attempt(store, early, 6.0)
    make.conclude(store, late, attempt, parents=(0,), decide=accept)
    assert [version.step_number for version in store.versions(run.id)] == [0, 2]
    assert store.version(run.id) == store.versions(run.id)[1]


def test_a_refused_attempt_ends_the_step_and_leaves_the_lineage(store: Store, make: Any) -> None:
    run = make.run(store)
    step = make.step(store, run)
    assert make.conclude(store, step, make.attempt(store, step, 6.0), decide=refuse) is None
    assert store.versions(run.id) == []
    assert store.steps(run.id)[0].state is StepState.DONE


NO_GAIN = Decision(Ruling.NO_GAIN, "+0.4% in the mean over version 0, +1% is needed", 0.004, 0.75)
ACCEPTABLE = Decision(Ruling.ACCEPTABLE, "+2.0% in the mean over version 0", 0.02)


def decisions(store: Store, run: Run) -> list[Decision | None]:
    """Return the decisions on the attempts of a run, which every way to read them gives."""
    whole = [attempt.decision for attempt in store.attempts(run.id)]
    assert [attempt.decision for attempt in store.history(run.id).attempts] == whole
    with Store.open(store.url) as other:
        assert [attempt.decision for attempt in other.history(run.id).attempts] == whole
        assert [attempt.decision for attempt in other.attempt_summaries(run.id)] == whole
    known = {version.attempt.id: version.attempt.decision for version in store.versions(run.id)}
    assert [known.get(attempt.id, attempt.decision) for attempt in store.attempts(run.id)] == whole
    return whole


def test_a_decision_is_recorded_with_its_attempt(store: Store, make: Any) -> None:
    run = make.run(store)
    step = make.step(store, run)
    attempt = make.attempt(store, step, 6.0, decision=NO_GAIN)
    make.attempt(store, step)
    assert attempt.decision == NO_GAIN
    assert decisions(store, run) == [NO_GAIN, None]


def test_a_refusal_stands_and_is_the_reason_of_the_step_that_submits_it(store: Store, make: Any) -> None:
    run = make.run(store)
    step = make.step(store, run)
    make.conclude(store, step, make.attempt(store, step, 6.0, decision=NO_GAIN), decide=refuse)
    assert decisions(store, run) == [NO_GAIN]
    reason = "tried tiles; not accepted: +0.4% in the mean over version 0, +1% is needed"
    assert store.steps(run.id)[0].reason == reason


def test_the_end_of_a_step_decides_on_what_was_acceptable_in_it_and_on_nothing_else(store: Store, make: Any) -> None:
    run = make.run(store)
    other, step = make.step(store, run), make.step(store, run)
    make.attempt(store, other, 6.0, decision=ACCEPTABLE)
    made = [make.attempt(store, step, 6.0, decision=each) for each in (ACCEPTABLE, NO_GAIN, ACCEPTABLE)]
    assert decisions(store, run) == [ACCEPTABLE, ACCEPTABLE, NO_GAIN, ACCEPTABLE]
    make.conclude(store, step, made[2], decide=accept)
    unsubmitted = replace(ACCEPTABLE, ruling=Ruling.NOT_SUBMITTED)
    assert decisions(store, run) == [ACCEPTABLE, unsubmitted, NO_GAIN, ACCEPTED]


def test_what_is_no_longer_acceptable_was_overtaken(store: Store, make: Any) -> None:
    run = make.run(store)
    step = make.step(store, run)
    assert decisions(store, run) == []
    make.conclude(store, step, make.attempt(store, step, 6.0, decision=ACCEPTABLE), decide=refuse)
    assert decisions(store, run) == [replace(REFUSED, ruling=Ruling.OVERTAKEN)]


def test_a_step_without_an_attempt_is_concluded_unasked(store: Store, make: Any) -> None:
    run = make.run(store)
    assert make.conclude(store, make.step(store, run), None, decide=never) is None
    assert store.steps(run.id)[0].state is StepState.DONE


def test_an_attempt_becomes_a_version_once(store: Store, make: Any) -> None:
    run = make.run(store)
    make.version(store, run, 5.0)
    assert make.conclude(store, make.step(store, run), store.attempts(run.id)[0], decide=never) is None
    assert len(store.versions(run.id)) == 1


def test_an_error_in_the_decision_undoes_everything_and_comes_through(store: Store, make: Any) -> None:
    run = make.run(store)
    step = make.step(store, run)
    attempt = make.attempt(store, step, 5.0)
    before = store.revision(run.id)
    with pytest.raises(AssertionError, match="must not be asked"):
        make.conclude(store, step, attempt, decide=never)
    assert store.revision(run.id) == before
    assert store.steps(run.id)[0].state is StepState.RUNNING


def test_parents_must_be_versions_of_the_run(store: Store, make: Any) -> None:
    run = make.run(store)
    make.version(store, run, 5.0)
    step = make.step(store, run)
    with pytest.raises(UnknownVersion, match=r"^no version 1: choose one from 0 to 0$"):
        make.attempt(store, step, 6.0, parents=(0, 1))
    attempt = make.attempt(store, step, 6.0, parents=(0,))
    with pytest.raises(UnknownVersion, match="no version -1"):
        make.conclude(store, step, attempt, parents=(-1,), decide=accept)


def test_the_best_version_is_the_latest_whatever_speeds_were_recorded(store: Store, make: Any) -> None:
    run = make.run(store)
    for tflops in (5.0, 9.0, 7.0):
        make.version(store, run, tflops)
    assert store.version(run.id).number == 2
    assert store.version(run.id, 0) == store.versions(run.id)[0]


@pytest.mark.parametrize("number", [2, -1, HUGE])
def test_an_unknown_version_is_answered_with_the_range(store: Store, make: Any, number: int) -> None:
    run = make.run(store)
    with pytest.raises(UnknownVersion, match="no versions yet: wait until its seed is evaluated"):
        store.version(run.id)
    make.version(store, run, 5.0)
    make.version(store, run, 6.0)
    with pytest.raises(UnknownVersion, match=f"^no version {number}: choose one from 0 to 1$"):
        store.version(run.id, number)


# Time and change


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
