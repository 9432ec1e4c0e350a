"""A run's status: what is read, what is not read again, and the rates."""

from datetime import timedelta
from pathlib import Path

import pytest

from avo.watch.view import WINDOW, RunStatus, read_status, to_json
from evaluator.evaluation import Status
from lineage_db.driving import LEASE
from lineage_db.records import Request, RunState
from lineage_db.store import Store
from tests.avo.recorded import Recorded


@pytest.fixture
def run(tmp_path: Path) -> Recorded:
    """A driven run with four attempts, of which the first two are versions."""
    made = Recorded(Store.open(str(tmp_path / "runs.db")))
    made.store.driving.take(made.run.id, "box:7", now=made.now)
    made.step(100.0)
    made.step(150.0, (0,))
    made.step(Status.INCORRECT, (1,))
    made.step(Status.INCORRECT, (1,))
    return made


def read(run: Recorded, previous: RunStatus | None = None) -> RunStatus:
    return read_status(run.store, run.run.name, run.now, previous)


def test_a_status_has_counts_best_and_gain(run: Recorded) -> None:
    data = to_json(read(run), run.now)
    assert data["verdicts"] == {"correct": 2, "incorrect": 2}
    assert (data["attempts"], data["steps"], data["versions"]) == (4, 4, 2)
    assert (data["best"]["version"], data["best"]["kind"], data["best"]["target"]) == (1, "predicted", "h100")
    assert data["gain"] == pytest.approx(0.5)
    assert data["seconds_since_gain"] == 12
    assert (data["state"], data["driver"], data["paused"]) == ("running", "box:7", False)


def test_rates_are_those_of_the_last_minutes(run: Recorded) -> None:
    status = read(run)
    assert status.rates(run.now) == pytest.approx({Status.CORRECT: 5.0, Status.INCORRECT: 5.0})  # 24 s
    assert sum(status.rates(run.now + WINDOW - timedelta(seconds=9)).values()) == pytest.approx(0.2)
    assert status.rates(run.now + 2 * WINDOW) == {}
    assert status.rates(run.run.created) == {}


def test_workers_are_shown_with_their_steps_and_leases(run: Recorded) -> None:
    step = run.claim("worker-3")
    run.wait(5)
    run.evaluate(step, Status.INCORRECT, (1,))
    (work,) = to_json(read(run), run.now)["workers"]
    assert (work["worker"], work["step"], work["seconds"], work["tried"]) == ("worker-3", 4, 5, 1)
    assert work["lease_until"] == (step.started + LEASE).isoformat()
    run.finish()
    assert read(run).working == ()


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


def test_what_is_left_of_limits_is_shown_and_the_trouble_of_the_last_call(tmp_path: Path) -> None:
    run = Recorded(Store.open(str(tmp_path / "runs.db")))
    run.store.set_run_state(run.run.id, RunState.RUNNING, now=run.now, config={"max_attempts": 5, "max_tokens": 150})
    run.store.journal.add_call(
        run.run.id, None, model="m", input_tokens=100, cached_tokens=0, output_tokens=20, usd=None, seconds=1.0,
        error="429: slow down", now=run.now,
    )  # fmt: skip
    data = to_json(read(run), run.now)
    assert data["left"] == {"max_attempts": 5, "max_tokens": 30}
    assert (data["model_trouble"], data["spend"]["tokens"]) == ("429: slow down", 120)
    assert (data["seed"], data["best"], data["gain"], data["attempts_per_minute"]) == (None, None, None, 0)
