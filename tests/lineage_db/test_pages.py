"""Pages of a run: the same as its whole, piece by piece."""

import math
from datetime import timedelta
from typing import Any

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Status
from avo.lineage_db.decision import unrivalled
from avo.lineage_db.entries import PaidStep, Spend
from avo.lineage_db.records import Outcome, StepState
from avo.lineage_db.store import Store
from tests.decisions import accept


def recorded(store: Store, make: Any, speeds: tuple[float, ...], name: str = "one") -> Any:
    """Record a run with one step an attempt; those that are fast enough become versions."""
    run = make.run(store, name)
    for place, tflops in enumerate(speeds):
        step = make.step(store, run)
        attempt = make.attempt(store, step, tflops, source=f"x = {place}\n")
        make.conclude(store, step, attempt, decide=accept)
    return run


def test_attempts_and_steps_of_one_run_are_counted(store: Store, make: Any) -> None:
    empty = make.run(store, "empty")
    recorded(store, make, (1.0,), "other")
    run = recorded(store, make, (1.0, 0.0, 2.0))
    make.step(store, run)
    assert (sum(store.pages.verdicts(run.id).values()), store.pages.begun(run.id)) == (3, 4)
    assert (store.pages.verdicts(empty.id), store.pages.begun(empty.id)) == ({}, 0)


def test_verdicts_are_those_of_the_attempts_after_one(store: Store, make: Any) -> None:
    run = recorded(store, make, (1.0, 0.0, 0.0, 2.0))
    ids = [attempt.attempt_id for attempt in store.attempt_summaries(run.id)]
    assert store.pages.verdicts(run.id) == {Status.CORRECT: 2, Status.INCORRECT: 2}
    assert store.pages.verdicts(run.id, after=ids[0]) == {Status.INCORRECT: 2, Status.CORRECT: 1}
    found = store.pages.latest(run.id, 2, after=ids[0])
    assert [status for _, status in found] == [Status.CORRECT, Status.INCORRECT], "the newest first"


def test_accepted_versions_say_what_they_gained_over_the_fastest_of_their_parents(store: Store, make: Any) -> None:
    run = recorded(store, make, (100.0,))
    for tflops, parents in ((120.0, (0,)), (132.0, (0, 1))):
        step = make.step(store, run)
        attempt = make.attempt(store, step, tflops, source=f"x = {tflops}\n")
        make.conclude(store, step, attempt, parents=parents, decide=accept)
    every = store.pages.accepted(run.id)
    assert [version.gain for version in every] == [None, pytest.approx(0.2), pytest.approx(0.1)]
    assert store.pages.accepted(run.id, last=2) == every[1:]
    assert store.pages.accepted(run.id, after=0, last=1) == every[2:]


def test_steps_that_have_ended_say_what_they_paid_for_models_and_gained(store: Store, make: Any) -> None:
    run = recorded(store, make, (100.0,))  # calls no model
    told = ((110.0, [("big", 0.5), ("small", None), ("big", 0.25)]), (105.0, [("small", 0.1)]), (121.0, [("big", 1.0)]))
    for tflops, called in told:
        step = make.step(store, run)
        for model, usd in called:
            store.journal.add_call(
                run.id, step.id, model=model, input_tokens=90, cached_tokens=0, output_tokens=10, usd=usd, seconds=1.0,
                error="", now=make.now,
            )  # fmt: skip
        if tflops == 121.0:  # a request that was lost used nothing
            store.journal.add_call(
                run.id, step.id, model="big", input_tokens=0, cached_tokens=0, output_tokens=0, usd=None, seconds=1.0,
                error="lost", now=make.now,
            )  # fmt: skip
        attempt = make.attempt(store, step, tflops, source=f"x = {tflops}\n")
        make.conclude(store, step, attempt, parents=(0,), decide=accept)
    make.step(store, run)
    ten = pytest.approx(math.log(1.1))
    first, second, third = store.pages.paid(run.id, last=10)
    assert first == PaidStep(1, "big", 300, None, ten)
    assert second == PaidStep(2, "small", 100, 0.1, 0.0)
    assert third == PaidStep(3, "big", 100, 1.0, ten)
    assert store.pages.paid(run.id, last=2) == [second, third]
    assert store.pages.paid(run.id, last=10, before=make.now - timedelta(seconds=1)) == []


def test_the_latest_acceptable_attempts_are_named_until_they_are_refused(store: Store, make: Any) -> None:
    run = recorded(store, make, (1.0, 0.0))
    step = make.step(store, run)
    first, second, third = (
        make.attempt(store, step, 2.0, source=f"y = {place}\n", decision=unrivalled()).id for place in range(3)
    )
    assert store.pages.acceptable(run.id, last=2) == (third, second)
    assert store.pages.refused(run.id, store.pages.acceptable(run.id)) == []
    store.claims.fail(step.id, state=StepState.FAILED, reason="raised", now=make.now)
    assert store.pages.acceptable(run.id) == ()
    refused = store.pages.refused(run.id, (third, first))
    assert [each.attempt_id for each in refused] == [first, third], "the oldest first"


def test_the_last_steps_that_ended_in_order_have_start_end_and_tries(store: Store, make: Any) -> None:
    run = recorded(store, make, (1.0, 2.0, 3.0))
    lost, _running = make.step(store, run), make.step(store, run)
    store.claims.fail(lost.id, state=StepState.ABANDONED, reason="killed", now=make.now)
    every = store.steps(run.id)
    assert store.pages.finished(run.id, 4) == [(step.started, step.finished, 1) for step in every[2:0:-1]]


def test_outcomes_come_in_pages_that_are_the_whole_together(store: Store, make: Any) -> None:
    recorded(store, make, (0.0,), "other")
    run = recorded(store, make, (1.0, 0.0, 2.0, 0.0, 0.0))
    found: list[Outcome] = []
    while page := store.pages.outcomes(run.id, after=found[-1].attempt_id if found else 0, limit=2):
        assert len(page) <= 2
        found += page
    assert [(each.attempt_id, each.status, each.message, each.geomean_tflops) for each in found] == [
        (each.attempt_id, each.status, each.message, each.geomean_tflops) for each in store.attempt_summaries(run.id)
    ]
    assert {outcome.status for outcome in found} == {Status.CORRECT, Status.INCORRECT}


def test_attempts_by_id_are_those_of_the_run(store: Store, make: Any) -> None:
    other = recorded(store, make, (1.0,), "other")
    run = recorded(store, make, (1.0, 0.0, 2.0))
    every = store.attempt_summaries(run.id)
    foreign = store.attempt_summaries(other.id)[0].attempt_id
    assert store.pages.attempts(run.id, [every[2].attempt_id, every[0].attempt_id, foreign, 10**30]) == [
        every[0],
        every[2],
    ]
    assert store.pages.attempts(run.id, []) == []


def test_steps_are_found_by_number_and_the_running_ones_by_state(store: Store, make: Any) -> None:
    run = recorded(store, make, (1.0, 2.0, 3.0))
    left, lost = make.step(store, run), make.step(store, run)
    store.claims.fail(lost.id, state=StepState.ABANDONED, reason="killed", now=make.now)
    every = store.steps(run.id)
    assert store.pages.steps(run.id, range(1, 3)) == every[1:3]
    assert store.pages.steps(run.id, range(4, 99)) == every[4:]
    assert store.pages.running(run.id) == [left]


def test_what_steps_tried_and_spent_is_counted_for_each(store: Store, make: Any) -> None:
    run = make.run(store)
    one, two, three = (make.step(store, run) for _ in range(3))
    for step, source in ((one, "a = 1\n"), (one, "b = 1\n"), (two, "c = 1\n")):
        make.attempt(store, step, 1.0, source=source)
    for _ in range(2):
        store.journal.add_call(
            run.id, two.id, model="m", input_tokens=10, cached_tokens=4, output_tokens=3, usd=0.25, seconds=1.0,
            error="", now=make.now,
        )  # fmt: skip
    ids = [one.id, two.id, three.id]
    assert store.pages.attempt_counts(ids) == {one.id: 2, two.id: 1}
    assert store.pages.spends(ids) == {two.id: Spend(2, 20, 8, 6, 0.5)}
    assert store.pages.attempt_counts([]) == store.pages.spends([]) == {}


def test_versions_and_messages_are_read_from_where_a_reader_stands(store: Store, make: Any) -> None:
    run = recorded(store, make, (1.0, 0.0, 2.0, 3.0))
    every = store.versions(run.id)
    assert [store.versions(run.id, after=number) for number in (-1, 0, 2)] == [every, every[1:], []]
    step = make.step(store, run)
    written = [store.journal.add_message(step.id, "message", {"n": n}, now=make.now) for n in range(3)]
    assert store.journal.messages(step.id, after=0) == written[1:]


def test_a_hypothesis_is_part_of_a_page(store: Store, make: Any) -> None:
    step = make.step(store, make.run(store))
    attempt = store.results.record_attempt(
        step_id=step.id, candidate=Candidate("mha", "x = 1\n"), change="c", parents=(), evaluation=make.evaluation(1.0),
        started=make.now, finished=make.now, hypothesis="because",
    )  # fmt: skip
    assert [attempt.hypothesis for attempt in store.pages.attempts(step.run_id, [attempt.id])] == ["because"]


def test_attempts_are_found_by_all_words_of_their_texts(store: Store, make: Any) -> None:
    run = make.run(store)
    step = make.step(store, run)
    one = make.attempt(store, step, 1.0, source="a = 1\n", change="Tile 128")
    two = make.attempt(store, step, 2.0, source="b = 1\n", change="tile 256", hypothesis="50%_of it waits")
    other = make.run(store, "other")
    make.attempt(store, make.step(store, other), 1.0, source="c = 1\n", change="tile 128")
    assert store.pages.find(run.id, ["TILE"]) == [one.id, two.id]
    assert store.pages.find(run.id, ["tile"], after=one.id) == [two.id]
    assert store.pages.find(run.id, ["tile", "waits"]) == [two.id]
    assert store.pages.find(run.id, ["50%_of"]) == [two.id]
    assert store.pages.find(run.id, ["5%of"]) == []
    assert store.pages.find(run.id, ["correct", "256"]) == [two.id], "the verdict"
    assert store.pages.find(run.id, ["incorrect"]) == []


def test_what_a_run_wrote_since_a_moment_and_the_last_attempt_before_it_are_known(store: Store, make: Any) -> None:
    run, other = make.run(store), make.run(store, "other")
    step = make.step(store, run)
    first = make.attempt(store, step, 5.0, source="x = 1")
    for each, noise in ((other, "n"), (run, "s")):
        made = make.attempt(store, make.step(store, each), 6.0, source=noise * 1000)
    store.journal.add_message(step.id, "message", {"words": "w" * 500}, now=make.now)
    later = make.now + timedelta(days=1)
    assert store.pages.last_before(run.id, make.now) == 0
    assert store.pages.last_before(run.id, later) == made.id
    assert first.id < made.id
    whole = store.upkeep.written(run.id, make.now)
    assert 1500 < whole < store.upkeep.size()
    assert store.upkeep.written(run.id, later) == 0
    assert (store.upkeep.free() is None) is store.url.startswith("postgresql")
