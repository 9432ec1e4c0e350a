"""The view of a run: what is read, what is not read again, and the rates."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from avo.evaluator.evaluation import Status
from avo.lineage_db.driving import LEASE
from avo.lineage_db.errors import UnknownRun
from avo.lineage_db.records import PendingReply, Request, RunState
from avo.lineage_db.store import Store
from avo.watch.view import WINDOW, RunView, read_view, to_json
from avo.watch.wording import awaited
from tests.avo.recorded import HOUR, Recorded
from tests.avo.sample_run import START, make_sample_run


@pytest.fixture
def run(store: Store) -> Recorded:
    """A driven run with four attempts, of which the first two are versions."""
    made = Recorded(store)
    made.store.driving.take(made.run.id, "box:7", now=made.now)
    made.step(100.0)
    made.step(150.0, (0,))
    made.step(Status.INCORRECT, (1,))
    made.step(Status.INCORRECT, (1,))
    return made


def read(run: Recorded, previous: RunView | None = None) -> RunView:
    return read_view(run.store, run.run.name, run.now, previous)


def test_a_view_has_counts_best_and_gain(run: Recorded) -> None:
    data = to_json(read(run), run.now)
    assert data["verdicts"] == {"correct": 2, "incorrect": 2}
    assert (data["attempts"], data["steps"], data["versions"]) == (4, 4, 2)
    assert (data["best"]["version"], data["best"]["kind"], data["best"]["target"]) == (1, "predicted", "h100")
    assert data["gain"] == pytest.approx(0.5)
    assert data["seconds_since_gain"] == 12
    assert (data["state"], data["driver"], data["paused"]) == ("running", "box:7", False)


def test_rates_are_those_of_the_last_minutes(run: Recorded) -> None:
    view = read(run)
    assert view.rates(run.now) == pytest.approx({Status.CORRECT: 5.0, Status.INCORRECT: 5.0})  # 24 s
    assert sum(view.rates(run.now + WINDOW - timedelta(seconds=9)).values()) == pytest.approx(0.2)
    assert view.rates(run.now + 2 * WINDOW) == {}
    assert view.rates(run.run.created) == {}


def test_a_run_that_is_over_has_no_rate(run: Recorded) -> None:
    assert read(run).rates(run.now)
    run.store.set_run_state(run.run.id, RunState.FINISHED, now=run.now)
    assert read(run).rates(run.now) == {}


def test_workers_are_shown_with_their_steps_and_leases(run: Recorded) -> None:
    step = run.claim("worker-3")
    run.wait(5)
    run.evaluate(step, Status.INCORRECT, (1,))
    (work,) = to_json(read(run), run.now)["workers"]
    assert (work["worker"], work["step"], work["seconds"], work["tried"]) == ("worker-3", 4, 5, 1)
    assert work["lease_until"] == (step.started + LEASE).isoformat()
    run.finish()
    assert read(run).working == ()


def test_a_worker_is_shown_with_the_reply_that_it_waits_for(run: Recorded) -> None:
    step = run.claim("worker-3")
    first = read(run)
    run.store.journal.listen(step.id, PendingReply("gpt", run.now, None, 0), now=run.now)
    run.wait(40)
    run.store.driving.keep(run.run.id, "box:7", now=run.now)
    (work,) = read(run, first).working
    assert work.step.reply is not None
    assert awaited(work.step.reply, run.now) == "gpt was asked 40s ago"
    assert to_json(read(run), run.now)["workers"][0]["reply"]["characters"] == 0
    some = PendingReply("gpt", run.now, run.now, 12_345)
    assert awaited(some, run.now + timedelta(seconds=3)) == "gpt writes: 12.3k characters, the last 3s ago"
    until, trouble = run.now.replace(hour=3, minute=5, second=7), "http://here/v1: HTTP 503: down (4 times)"
    later = awaited(PendingReply("gpt", run.now, None, 0, until, trouble), until - timedelta(seconds=42))
    assert later == f"gpt is asked again at 03:05:07 UTC, in 42s: {trouble}"


def test_nothing_is_read_again_until_something_changes(run: Recorded) -> None:
    first = read(run)
    assert read(run, first) is first
    run.store.driving.ask(run.run.id, Request.PAUSE, now=run.now)
    paused = read(run, first)
    assert (paused.state, to_json(paused, run.now)["paused"]) == (RunState.PAUSED, True)
    run.wait(2 * LEASE.total_seconds())
    assert read(run, paused).state is RunState.INTERRUPTED, "time alone shows that the driver is gone"


def test_the_supervisor_is_silent_once_a_version_was_accepted(run: Recorded) -> None:
    run.store.journal.intervene(
        run.run.id, after_step=3, level="redirect", reason="stuck", directions=["a: b"], source="", restart_from=None,
        now=run.now, seen=0,
    )  # fmt: skip
    assert to_json(read(run), run.now)["supervisor"]["level"] == "redirect"
    run.step(200.0, (1,))
    assert to_json(read(run), run.now)["supervisor"] is None


def test_what_is_left_of_limits_is_shown_and_the_trouble_of_the_last_call(store: Store) -> None:
    run = Recorded(store, max_attempts=5, max_tokens=150)
    run.store.journal.add_call(
        run.run.id, None, model="m", input_tokens=100, cached_tokens=0, output_tokens=20, usd=None, seconds=1.0,
        error="429: slow down", now=run.now,
    )  # fmt: skip
    data = to_json(read(run), run.now)
    assert data["left"] == {"max_attempts": 5, "max_tokens": 30}
    assert (data["model_trouble"], data["spend"]["tokens"]) == ("m: 429: slow down", 120)
    assert (data["seed"], data["best"], data["gain"], data["attempts_per_minute"]) == (None, None, None, 0)


def test_a_view_counts_verdicts_and_finds_seed_and_best(store: Store) -> None:
    view = read_view(store, make_sample_run(store.url), START)
    assert view.counts == {Status.CORRECT: 5, Status.INCORRECT: 2, Status.DOES_NOT_FIT: 1}
    assert view.seed is not None
    assert view.best is not None
    assert (view.seed.number, view.best.number, view.versions) == (0, 3, 4)
    assert view.last_gain == store.version(view.run.id, 3).accepted
    assert [version.number for version in view.recent] == [0, 1, 2, 3]


def test_an_unchanged_run_gives_the_same_view(store: Store) -> None:
    name = make_sample_run(store.url)
    first = read_view(store, name, START)
    assert read_view(store, name, START, first) is first


def test_a_view_built_on_another_equals_one_built_from_nothing(store: Store) -> None:
    run = Recorded(store)
    view = read(run)
    for verdict in (100.0, Status.INCORRECT, 120.0, 130.0):
        step = run.claim()
        view = read(run, view)
        attempt = run.evaluate(step, verdict, (0,) if view.versions else ())
        view = read(run, view)
        run.conclude(step, attempt, attempt.evaluation.correct)
    run.finish()
    assert read(run, view) == read(run)


def test_a_database_that_was_replaced_is_read_from_the_start(store: Store, tmp_path: Path) -> None:
    run = Recorded(store)
    run.step(100.0)
    view = read(run)
    with Store.open(str(tmp_path / "new.db")) as new:
        again = Recorded(new, now=START + timedelta(days=1))
        assert read(again, view) == read(again)


def test_workers_are_busy_only_while_the_run_is_driven(store: Store) -> None:
    run = Recorded(store)
    run.drive()
    run.claim("worker-1")
    assert [work.step.worker for work in read(run).working] == ["worker-1"]
    run.wait(2 * HOUR.total_seconds())
    interrupted = read(run)
    assert (interrupted.state, interrupted.working) == (RunState.INTERRUPTED, ())
    run.drive()
    assert read(run).working
    run.finish()
    assert read(run).working == ()


def test_pauses_and_abandoned_steps_do_not_lower_the_rate(store: Store) -> None:
    run = Recorded(store)
    run.step(100.0, seconds=30)
    lost = run.claim()
    run.wait(36000)
    run.abandon(lost)
    run.step(110.0, (0,), seconds=30)
    assert read(run).attempts_per_minute == pytest.approx(2.0)


def test_the_time_of_steps_side_by_side_counts_once(store: Store) -> None:
    run = Recorded(store)
    first = run.claim("worker-0")
    run.wait(20)
    second = run.claim("worker-1")
    run.wait(20)
    run.conclude(first, run.evaluate(first, 100.0, ()), True)
    run.wait(20)
    run.conclude(second, run.evaluate(second, Status.INCORRECT, ()), False)
    assert read(run).attempts_per_minute == pytest.approx(2.0)


def test_no_rate_is_claimed_before_a_step_has_ended(store: Store) -> None:
    run = Recorded(store)
    run.evaluate(run.claim(), 100.0, ())
    assert read(run).attempts_per_minute is None


def test_the_best_is_the_last_version_whatever_a_lucky_sample_says_of_an_earlier_one(store: Store) -> None:
    run = Recorded(store)
    run.step(600.0)
    run.step(590.0, (0,))
    best = read(run).best
    assert best is not None
    assert best.number == 1


def test_a_first_version_that_appears_while_the_view_is_read_is_seed_and_best_or_neither(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Recorded(store)
    accepted = type(run.store.pages).accepted

    def just_before(*args: Any, **kwargs: Any) -> Any:
        found = accepted(*args, **kwargs)
        monkeypatch.undo()
        run.step(100.0)
        return found

    monkeypatch.setattr(type(run.store.pages), "accepted", just_before)
    early = read(run)
    assert (early.seed, early.best) == (None, None)
    late = read(run, early)
    assert late.seed is not None
    assert late.best == late.seed


def test_an_unknown_run_is_the_stores_error(store: Store) -> None:
    with pytest.raises(UnknownRun):
        read_view(store, "nothing", START)


def test_steps_count_against_their_limit_once_they_have_ended_in_whatever_order(store: Store) -> None:
    run = Recorded(store, max_steps=9)
    slow = run.claim("worker-1")
    view, ended = read(run), []
    for _ in range(2):
        run.step(100.0)
        view = read(run, view)
        ended.append(view.ended)
    run.conclude(slow, run.evaluate(slow, 90.0, ()), accept=False)
    run.step(100.0)
    view = read(run, view)
    assert [*ended, view.ended, read(run).ended, read(run, view).ended] == [1, 2, 4, 4, 4]
