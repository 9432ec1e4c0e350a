"""Versions, and decisions on attempts, on every kind of database."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from avo.lineage_db.decision import Decision, Ruling
from avo.lineage_db.errors import UnknownVersion
from avo.lineage_db.records import Attempt, Run, StepState, Submission, Version
from avo.lineage_db.store import Store
from tests.decisions import ACCEPTED, REFUSED, accept, never, refuse

HUGE = 10**30


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


def test_a_version_has_the_words_of_its_submission_and_its_attempt_those_of_its_last_edit(
    store: Store, make: Any
) -> None:
    run = make.run(store)
    make.version(store, run, 5.0)
    assert [attempt.whole_change for attempt in store.history(run.id).attempts] == [""]
    step = make.step(store, run)
    first = make.attempt(store, step, 5.5, source="first")
    last = make.attempt(store, step, 6.0, source="last", built_on=first.id)
    assert store.history(run.id).attempts[2].built_on == first.id
    said = Submission(last.id, "tiles, then warps", "why", "+9%", "+20%")
    version = make.conclude(store, step, last, parents=(0,), decide=accept, submission=said)
    assert (version.change, version.attempt.change, version.seen) == ("tiles, then warps", "tile 64", "+20%")
    assert store.version(run.id) == store.versions(run.id)[1] == version
    assert store.attempt(run.id, last.id).built_on == first.id
    assert [accepted.change for accepted in store.pages.accepted(run.id)] == ["tile 64", "tiles, then warps"]
    for attempts in (store.history(run.id).attempts, store.attempt_summaries(run.id)):
        assert [(one.change, one.whole_change, one.seen, one.built_on) for one in attempts] == [
            ("tile 64", "", "", None), ("tile 64", "", "", None), ("tile 64", "tiles, then warps", "+20%", first.id),
        ]  # fmt: skip


def test_a_refused_attempt_ends_the_step_and_leaves_the_lineage(store: Store, make: Any) -> None:
    run = make.run(store)
    step = make.step(store, run)
    assert make.conclude(store, step, make.attempt(store, step, 6.0), decide=refuse) is None
    assert store.versions(run.id) == []
    assert store.steps(run.id)[0].state is StepState.DONE


NO_GAIN = Decision(Ruling.NO_GAIN, "+0.4% in the mean over version 0, +1% is needed", 0.004, 0.75, 0.03)
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


def test_a_step_that_fails_decides_on_what_was_acceptable_in_it_and_one_that_is_abandoned_does_not(
    store: Store, make: Any
) -> None:
    run = make.run(store)
    failed, abandoned = make.step(store, run), make.step(store, run)
    for step in (failed, abandoned):
        make.attempt(store, step, 6.0, decision=ACCEPTABLE)
    store.claims.fail(failed.id, state=StepState.FAILED, reason="an error", now=make.now)
    store.claims.fail(abandoned.id, state=StepState.ABANDONED, reason="the worker was gone", now=make.now)
    unsubmitted = replace(ACCEPTABLE, ruling=Ruling.NOT_SUBMITTED)
    assert decisions(store, run) == [unsubmitted, ACCEPTABLE]
    again = make.step(store, run)
    assert again.redoes == abandoned.number
    make.conclude(store, again, make.attempt(store, again, 7.0), decide=accept)
    assert decisions(store, run) == [unsubmitted, unsubmitted, ACCEPTED]


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


def test_attempts_become_versions_together_and_in_order_unless_they_are_refused(store: Store, make: Any) -> None:
    run = make.run(store)
    step = make.step(store, run)
    made = [make.attempt(store, step, tflops, decision=ACCEPTABLE) for tflops in (6.0, 4.0, 5.0)]

    def decide(versions: Sequence[Version], attempt: Attempt) -> Decision:
        return refuse(versions, attempt) if attempt.id == made[2].id else accept(versions, attempt)

    last = store.results.conclude(
        step.id, attempt_id=made[0].id, parents=(), reason="", now=make.now, decide=decide,
        before=[made[1].id, made[2].id],
    )  # fmt: skip
    assert last == store.version(run.id) == store.start(run.id)
    found = store.versions(run.id)
    assert [(version.number, version.attempt.id, version.step_number) for version in found] == [
        (0, made[1].id, step.number),
        (1, made[0].id, step.number),
    ]
    assert [each and each.ruling for each in decisions(store, run)] == [
        Ruling.ACCEPTED,
        Ruling.ACCEPTED,
        Ruling.OVERTAKEN,
    ]
    assert [each.grown for each in store.steps(run.id)] == [0]
    assert store.runs()[0].seed_geomean == pytest.approx(6.0)


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
    with pytest.raises(UnknownVersion, match="no versions yet: avo status RUN says how far it is"):
        store.version(run.id)
    make.version(store, run, 5.0)
    make.version(store, run, 6.0)
    with pytest.raises(UnknownVersion, match=f"^no version {number}: choose one from 0 to 1$"):
        store.version(run.id, number)
