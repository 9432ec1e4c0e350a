"""Events of a run: all of them, each once, in order."""

from pathlib import Path

import pytest

from avo.evaluator.evaluation import Status
from avo.lineage_db.decision import Decision, Ruling
from avo.lineage_db.driving import LEASE
from avo.lineage_db.errors import DatabaseUnavailable
from avo.lineage_db.records import Request, StepState
from avo.lineage_db.store import Store
from avo.watch.events import Event, EventKind, EventReader
from tests.avo.recorded import Recorded


@pytest.fixture
def run(store: Store) -> Recorded:
    made = Recorded(store)
    store.driving.take(made.run.id, "box:7", now=made.now)
    return made


def busy(run: Recorded) -> None:
    """Three steps, of which one is abandoned after its attempt, and trouble with a model."""
    run.step(100.0, change="seed")
    step = run.claim("w1")
    run.wait(1)
    run.store.journal.add_call(
        run.run.id, step.id, model="m", input_tokens=1, cached_tokens=0, output_tokens=0, usd=None, seconds=1.0,
        error="429: slow\ndown", now=run.now,
    )  # fmt: skip
    run.wait(1)
    run.look(step, "a")
    run.evaluate(step, Status.INCORRECT, (0,), "tile")
    run.wait(1)
    run.abandon(step)
    run.wait(1)
    run.step(150.0, (0,), "stages")
    run.store.journal.intervene(
        run.run.id, after_step=2, level="nudge", reason="stuck", directions=[], source="", restart_from=None,
        now=run.now, seen=0,
    )  # fmt: skip


ALL = [
    "run live: created",
    "step 0 started by worker-0, mutate",
    "attempt 1 correct: 100 predicted TFLOPS [seed]",
    "version 0 accepted: 100 predicted TFLOPS, the best so far [seed]",
    "step 0 done",
    "step 1 started by w1, mutate",
    "model m gave no reply: 429: slow",
    "attempt 2 incorrect: case ragged: 12 of 77 rows are wrong, relative error 0.41 [tile]",
    "step 1 abandoned, 1 look: worker died",
    "step 2 started by worker-0, mutate, repeats step 1",
    "attempt 3 correct: 150 predicted TFLOPS [stages]",
    "version 1 accepted: 150 predicted TFLOPS, the best so far [stages]",
    "step 2 done",
    "supervisor, nudge: stuck",
    "run live: running",
]


def texts(events: list[Event]) -> list[str]:
    return [event.text for event in events]


def test_a_run_that_was_never_looked_at_is_told_whole_and_in_order(run: Recorded) -> None:
    busy(run)
    reader = EventReader("live")
    assert texts(reader.read(run.store, run.now)) == ALL
    assert reader.read(run.store, run.now) == []


def test_a_reader_that_looks_all_the_time_sees_the_same_each_once(
    run: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, seen = EventReader("live"), []

    def look(seconds: float = 0.0) -> None:
        seen.extend(reader.read(run.store, run.now))
        seen.extend(reader.read(run.store, run.now))
        wait(seconds)

    wait, claim, evaluate, conclude = run.wait, run.claim, run.evaluate, run.conclude
    monkeypatch.setattr(run, "wait", look)
    monkeypatch.setattr(run, "claim", lambda worker="worker-0": (look(), claim(worker))[1])
    monkeypatch.setattr(run, "evaluate", lambda *given: (look(), evaluate(*given))[1])
    monkeypatch.setattr(run, "conclude", lambda *given: (look(), conclude(*given))[1])
    busy(run)
    look()
    assert sorted(texts(seen)) == sorted(ALL)
    assert [text for text in texts(seen) if not text.startswith("run live: running")] == ALL[:-1]


def test_an_attempt_that_is_refused_when_its_step_ends_is_told_again(run: Recorded) -> None:
    run.step(100.0, change="seed")
    reader = EventReader("live")
    step = run.claim()
    decision = Decision(Ruling.ACCEPTABLE, "+20% in the mean over version 0")
    attempt = run.evaluate(step, 120.0, (0,), "tile", decision=decision)
    assert texts(reader.read(run.store, run.now))[-2] == "attempt 2 correct: 120 predicted TFLOPS [tile]"
    run.wait(1)
    run.store.results.conclude(
        step.id, attempt_id=None, parents=(), reason="none", now=run.now, decide=lambda versions, attempt: None
    )
    refused, ended = reader.read(run.store, run.now)
    assert refused.text == "attempt 2 not submitted: +20% in the mean over version 0"
    assert (refused.time, refused.attempt, refused.data["ruling"]) == (run.now, attempt.id, Ruling.NOT_SUBMITTED)
    assert ended.text == "step 1 done: none"
    assert reader.read(run.store, run.now) == []
    whole = texts(EventReader("live").read(run.store, run.now))
    assert "attempt 2 correct: 120 predicted TFLOPS [tile]; not submitted: +20% in the mean over version 0" in whole


def test_what_is_decided_after_a_reader_skipped_an_attempt_is_told(run: Recorded) -> None:
    run.step(100.0, change="seed")
    step = run.claim()
    run.evaluate(step, 120.0, (0,), "tile", decision=Decision(Ruling.ACCEPTABLE, "+20% in the mean over version 0"))
    reader = EventReader("live")
    reader.skip(run.store, run.now)
    run.store.claims.fail(step.id, state=StepState.FAILED, reason="raised", now=run.now)
    assert texts(reader.read(run.store, run.now)) == [
        "attempt 2 not submitted: +20% in the mean over version 0",
        "step 1 failed: raised",
    ]


def test_an_attempt_of_an_abandoned_step_is_refused_when_the_step_that_repeats_it_ends(run: Recorded) -> None:
    run.step(100.0, change="seed")
    step, reader = run.claim(), EventReader("live")
    decision = Decision(Ruling.ACCEPTABLE, "+20% in the mean over version 0")
    attempt = run.evaluate(step, 120.0, (0,), "tile", decision=decision)
    run.abandon(step)
    reader.skip(run.store, run.now)
    again = run.claim()
    run.store.claims.fail(again.id, state=StepState.FAILED, reason="raised", now=run.now)
    ended = run.now
    run.wait(60)
    (refused,) = (event for event in reader.read(run.store, run.now) if event.kind is EventKind.REFUSED)
    assert (refused.attempt, refused.time) == (attempt.id, ended)


def test_what_could_not_be_read_comes_with_the_next_look(run: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    busy(run)
    reader, looks = EventReader("live"), 0

    class Failing:
        """A store whose connection is lost at each of its reads in turn."""

        def __init__(self, at: int) -> None:
            self.left = at

        def __getattr__(self, name: str) -> object:
            self.left -= 1
            if self.left < 0:
                raise DatabaseUnavailable("gone")
            return getattr(run.store, name)

    while True:
        try:
            events = reader.read(Failing(looks), run.now)  # type: ignore[arg-type]
            break
        except DatabaseUnavailable:
            looks += 1
    assert looks >= 6
    assert texts(events) == ALL


def test_a_reader_that_skips_sees_what_comes_after(run: Recorded) -> None:
    busy(run)
    step = run.claim("w7")
    reader = EventReader("live")
    reader.skip(run.store, run.now)
    assert reader.read(run.store, run.now) == []
    run.evaluate(step, 90.0, (1,))
    run.store.claims.fail(step.id, state=StepState.FAILED, reason="raised", now=run.now)
    assert texts(reader.read(run.store, run.now)) == [
        "attempt 4 correct: 90.0 predicted TFLOPS []",
        "step 3 failed: raised",
    ]


def test_another_run_of_the_same_name_is_told_from_its_creation(run: Recorded, tmp_path: Path) -> None:
    busy(run)
    reader = EventReader("live")
    reader.read(run.store, run.now)
    with Store.open(str(tmp_path / "other.db")) as store:
        other = Recorded(store, now=run.now)
        other.drive()
        other.claim()
        told = ["run live: created", "step 0 started by worker-0, mutate", "run live: running"]
        assert texts(reader.read(store, run.now)) == told
        assert reader.read(store, run.now) == []


def test_states_of_the_run_are_events_also_those_that_time_brings(run: Recorded) -> None:
    reader = EventReader("live")
    reader.skip(run.store, run.now)
    run.store.driving.ask(run.run.id, Request.PAUSE, now=run.now)
    assert texts(reader.read(run.store, run.now)) == ["run live: paused"]
    assert not reader.over
    run.wait(2 * LEASE.total_seconds())
    assert texts(reader.read(run.store, run.now)) == ["run live: interrupted; continue with: avo resume live"]
    run.finish()
    (finished,) = reader.read(run.store, run.now)
    assert (finished.kind, finished.data["state"], reader.over) == (EventKind.RUN, "finished", True)


def test_an_event_as_data_has_its_ids_and_says_how_a_speed_is_known(run: Recorded) -> None:
    busy(run)
    events = [event.to_json() for event in EventReader("live").read(run.store, run.now)]
    (version,) = (event for event in events if event.get("version") == 1)
    assert version.items() >= {
        "event": "version", "run": "live", "step": 2, "attempt": 3, "best": True, "score_kind": "predicted",
        "target": "h100", "time": run.now.isoformat(),
    }.items()  # fmt: skip
