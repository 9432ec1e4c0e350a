"""The journal of a run: nothing that was written is lost, and what ended is not written to."""

from dataclasses import replace
from typing import Any

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.target import ScoreKind
from avo.lineage_db.directions import Direction, Evidence
from avo.lineage_db.entries import Spend
from avo.lineage_db.errors import StepNotRunning, UnknownRun
from avo.lineage_db.records import PendingReply, StepState, Submission
from avo.lineage_db.store import Store
from tests.decisions import ACCEPTED, accept, refuse


def call(store: Store, run_id: int, step_id: int | None, make: Any, **values: Any) -> Any:
    fields = {"model": "m", "input_tokens": 100, "cached_tokens": 40, "output_tokens": 7, "usd": 0.5, "seconds": 2.0}
    return store.journal.add_call(run_id, step_id, **(fields | {"error": ""} | values), now=make.now)


def test_a_transcript_keeps_its_messages_in_order(store: Store, make: Any) -> None:
    step, other = (make.step(store, make.run(store, name)) for name in ("one", "two"))
    contents = [{"role": "user", "content": "\0 \ud800"}, {"role": "tool", "content": None}]
    for content in contents:
        store.journal.add_message(step.id, "message", content, now=make.now)
    store.journal.add_message(other.id, "summary", {"content": "else"}, now=make.now)
    found = store.journal.messages(step.id)
    assert [message.content for message in found] == contents
    assert [message.number for message in found] == [0, 1]
    assert found[0].kind == "message"
    assert store.journal.messages(9999) == []


def test_an_ended_step_takes_no_message_and_no_note_but_its_calls_still_cost(store: Store, make: Any) -> None:
    run = make.run(store)
    step = make.step(store, run)
    store.claims.fail(step.id, state=StepState.ABANDONED, reason="killed", now=make.now)
    with pytest.raises(StepNotRunning):
        store.journal.add_message(step.id, "message", {}, now=make.now)
    with pytest.raises(StepNotRunning):
        store.journal.remember(step.id, "tiles of 64 spill", now=make.now)
    call(store, run.id, step.id, make)
    assert store.journal.spend(run.id).calls == 1


def test_spend_is_the_sum_of_all_calls_failed_ones_included(store: Store, make: Any) -> None:
    run, other = make.run(store), make.run(store, "other")
    step = make.step(store, run)
    assert store.journal.spend(run.id) == Spend()
    call(store, run.id, step.id, make)
    call(store, run.id, None, make, error="timed out", output_tokens=0)
    call(store, run.id, step.id, make, usd=None, input_tokens=2**40)
    call(store, other.id, None, make, input_tokens=10**6)
    assert store.journal.spend(run.id) == Spend(3, 200 + 2**40, 120, 14, 1.0)
    assert store.journal.spend(run.id, step_id=step.id).calls == 2
    assert store.journal.spend(run.id).tokens == 214 + 2**40
    assert [found.error for found in store.journal.calls(run.id)] == ["", "timed out", ""]
    assert len(store.journal.calls(run.id, step_id=step.id)) == 2
    with pytest.raises(UnknownRun):
        call(store, 9999, None, make)


def test_how_much_of_a_reply_has_come_is_known_until_the_call_has_ended(store: Store, make: Any) -> None:
    run = make.run(store)
    step, other = make.step(store, run), make.step(store, run)
    for heard, characters in ((None, 0), (make.now, 1200)):
        reply = PendingReply("m", make.now, heard, characters)
        changes = store.revision(run.id)
        store.journal.listen(step.id, reply, now=make.now)
        assert store.revision(run.id) != changes, "who watches reads it"
        assert [each.reply for each in store.steps(run.id)] == [reply, None]
    call(store, run.id, other.id, make)
    assert store.steps(run.id)[0].reply == reply
    call(store, run.id, step.id, make)
    store.claims.fail(other.id, state=StepState.ABANDONED, reason="killed", now=make.now)
    store.journal.listen(other.id, reply, now=make.now)
    assert [each.reply for each in store.steps(run.id)] == [None, None]


def test_a_request_whose_step_is_abandoned_has_a_row_unless_none_was_under_way(store: Store, make: Any) -> None:
    run = make.run(store)
    asking, waiting, _ = (make.step(store, run) for _ in range(3))
    store.journal.listen(asking.id, PendingReply("m", make.now, None, 0), now=make.now)
    put_off = PendingReply("m", make.now, None, 0, make.now, "http://here: HTTP 503: down (4 times)")
    store.journal.listen(waiting.id, put_off, now=make.now)
    assert store.steps(run.id)[1].reply == put_off
    call(store, run.id, asking.id, make, usd=1.25)
    store.journal.listen(asking.id, PendingReply("m", make.now, None, 0), now=make.now)
    store.claims.abandon_running(run.id, reason="killed", now=make.now)
    known, lost = store.journal.calls(run.id)
    assert (lost.step_id, lost.model, lost.usd, lost.input_tokens) == (asking.id, "m", None, 0)
    assert lost.error == "the step ended before the reply: its cost is not known"
    assert store.journal.spend(run.id).usd == known.usd == 1.25
    call(store, run.id, asking.id, make, usd=0.5)  # its worker lives, and so came its reply
    assert [(each.usd, each.error) for each in store.journal.calls(run.id)] == [(1.25, ""), (0.5, "")]
    assert store.journal.spend(run.id).usd == 1.75


def test_notes_outlive_their_step(store: Store, make: Any) -> None:
    run = make.run(store)
    for text in ("first", "second"):
        step = make.step(store, run)
        store.journal.remember(step.id, text, now=make.now)
        make.conclude(store, step, None, decide=refuse)
    assert [(note.step_number, note.text) for note in store.journal.memories(run.id)] == [(0, "first"), (1, "second")]


def test_what_a_step_hands_over_is_told_apart_from_its_notes(store: Store, make: Any) -> None:
    run = make.run(store)
    step = make.step(store, run)
    store.journal.remember(step.id, "a note", now=make.now)
    handed_over = store.journal.remember(step.id, "go on with tiles", now=make.now, handover=True)
    assert [(each.text, each.handover) for each in store.journal.memories(run.id)] == [
        ("a note", False), ("go on with tiles", True),
    ]  # fmt: skip
    assert store.journal.memories(run.id)[1] == handed_over


def test_interventions_come_back_as_they_were_made_and_only_one_worker_makes_each(store: Store, make: Any) -> None:
    run = make.run(store)
    fields = {
        "after_step": 4,
        "level": "restart",
        "reason": "five steps without a version",
        "directions": ["split the loop", "fewer stages"],
        "source": "knowledge base",
        "restart_from": 2,
        "now": make.now,
    }
    made = store.journal.intervene(run.id, **fields, seen=0)
    assert store.journal.intervene(run.id, **fields, seen=0) is None
    assert store.journal.interventions(run.id) == [made]
    assert made is not None
    assert made.directions == ("split the loop", "fewer stages")
    assert made.restart_from == 2


def test_every_write_is_seen_by_readers_that_poll(store: Store, make: Any) -> None:
    run = make.run(store)
    step = make.step(store, run)
    seen = [store.revision(run.id)]
    store.journal.add_message(step.id, "message", {}, now=make.now)
    seen.append(store.revision(run.id))
    call(store, run.id, step.id, make)
    seen.append(store.revision(run.id))
    store.journal.remember(step.id, "x", now=make.now)
    seen.append(store.revision(run.id))
    assert len(set(seen)) == 4


def test_a_hypothesis_stays_with_its_attempt_and_a_submission_with_its_step(store: Store, make: Any) -> None:
    run = make.run(store)
    step = make.step(store, run)
    fields = {"change": "c", "parents": (), "started": make.now, "finished": make.now}
    attempt = store.results.record_attempt(
        step_id=step.id,
        candidate=Candidate("mha", "y = 1\n"),
        evaluation=make.evaluation(3.0),
        hypothesis="fewer registers let two CTAs reside",
        **fields,
    )
    submission = Submission(attempt.id, "c", attempt.hypothesis, "10% more", "12% more")
    store.results.conclude(
        step.id, attempt_id=attempt.id, parents=(), reason="r", now=make.now, decide=accept, submission=submission
    )
    assert attempt.hypothesis == "fewer registers let two CTAs reside"
    attempt = replace(attempt, decision=ACCEPTED)
    assert store.attempt(run.id, attempt.id) == attempt == store.attempts(run.id)[0]
    assert store.version(run.id).attempt == attempt == store.versions(run.id)[0].attempt
    assert store.attempt_summaries(run.id)[0].hypothesis == attempt.hypothesis
    assert store.steps(run.id)[0].submission == submission


def test_directions_are_memories_that_keep_what_their_step_saw_of_them(store: Store, make: Any) -> None:
    run = make.run(store)
    step = make.step(store, run)
    seen = Evidence(step.number, ScoreKind.PREDICTED, 0.03, 0.017, resolved=True, attempts=(1, 2), digest="d")
    found = [Direction("roles", "loads wait", (seen,)), Direction("pages", "prefetch")]
    store.journal.explore(step.id, found, now=make.now)
    store.journal.explore(step.id, [], now=make.now)
    store.journal.remember(step.id, "a note", now=make.now)
    kept = store.journal.memories(run.id)
    assert [each.direction for each in kept] == [*found, None]
    assert [each.text for each in kept] == [*(each.words for each in found), "a note"]
    store.claims.fail(step.id, state=StepState.ABANDONED, reason="killed", now=make.now)
    with pytest.raises(StepNotRunning):
        store.journal.explore(step.id, found, now=make.now)
