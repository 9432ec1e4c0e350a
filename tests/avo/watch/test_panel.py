"""The panel of a run: what it says, and that it fits."""

from dataclasses import replace
from datetime import timedelta
from io import StringIO

import pytest
from rich.console import Console

from avo.cli.session import in_words as summary_in_words
from avo.cli.session import summarise
from avo.cli.status import in_words
from avo.evaluator.catalogue import get_problem
from avo.evaluator.evaluation import Status
from avo.evaluator.problem import Baseline
from avo.lineage_db.records import Doing, PendingReply, RunState
from avo.lineage_db.store import Store
from avo.watch.panel import Budget, panel
from avo.watch.scores import scored
from avo.watch.view import RunView, read_view
from tests.avo.recorded import Recorded
from tests.avo.sample_run import START, make_evaluation, make_measured


@pytest.fixture
def run(store: Store) -> Recorded:
    made = Recorded(store)
    made.drive()
    return made


def draw(
    run: Recorded,
    *,
    width: int = 80,
    max_attempts: int | None = None,
    minutes: float | None = None,
    baselines: tuple[Baseline, ...] = (),
) -> str:
    """Return the panel as text without colour, drawn at the run's clock."""
    shown = view(run)
    if max_attempts is not None:
        shown = replace(shown, run=replace(shown.run, config={"max_attempts": max_attempts}))
    deadline = None if minutes is None else START + timedelta(minutes=minutes)
    console = Console(width=width, file=StringIO(), force_terminal=True, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(panel(shown, now=run.now, budget=Budget(deadline, START), baselines=baselines))
    return capture.get()


def test_looks_stand_behind_the_attempts_of_the_run_and_of_each_worker(run: Recorded) -> None:
    run.step(100.0)
    step = run.claim()
    run.look(step, "a", "b", "c")
    said = draw(run)
    assert "1, 10.0 a minute, 3 looks" in said
    assert "3 looks" in said.partition("worker-0")[2]


def view(run: Recorded) -> RunView:
    return read_view(run.store, run.run.name, run.now)


def climbed(run: Recorded) -> Recorded:
    run.step(100.0)
    run.step(Status.DOES_NOT_FIT, (0,), "num_stages 1 -> 5")
    run.step(150.0, (0,), "BLOCK_M 64 -> 128")
    run.step(165.0, (1,), "exp -> exp2")
    return run


def test_the_best_is_shown_against_the_seed_as_a_prediction(run: Recorded) -> None:
    (line,) = (line for line in draw(climbed(run)).splitlines() if "best, v2" in line)
    assert "165" in line
    assert "predicted, 1.65 x seed" in line


def test_a_best_for_a_card_without_measurements_is_shown_with_that(run: Recorded) -> None:
    other = Recorded(run.store, "other", target="rtx4090")
    other.step(make_evaluation(60.0, target="rtx4090"))
    said = "Predictions for rtx4090 were not held against anything."
    assert said in draw(other)
    assert "held against" not in draw(climbed(run))
    console = Console(width=200, record=True, file=StringIO())
    console.print(in_words(read_view(run.store, "other", run.now), run.now))
    assert said in console.export_text()
    assert said in summary_in_words(summarise(run.store, "other"))


def test_a_measured_best_is_called_so_with_its_card(run: Recorded) -> None:
    measured = Recorded(run.store, "measured", target="cuda")
    measured.step(make_measured(600.0))
    measured.step(make_measured(660.0), (0,), "exp -> exp2")
    text = draw(measured)
    assert "mha for NVIDIA H100 80GB HBM3" in text
    assert "measured, 1.10 x seed" in text
    assert "predicted" not in text


def test_published_figures_are_called_published_and_cover_shared_cases(run: Recorded) -> None:
    best = view(climbed(run)).best
    assert best is not None
    cases = scored(best).cases
    one = Baseline("one case", "h100", {cases[0].case: 2 * cases[0].tflops}, "")
    both = Baseline("both cases", "h100", {case.case: case.tflops for case in cases}, "")
    lines = draw(run, width=100, baselines=(one, both)).splitlines()
    assert any("one case" in line and "published, best is 0.50 x on 1 of 2" in line for line in lines)
    assert any("both cases" in line and "published, best is 1.00 x " in line for line in lines)


def test_verdicts_versions_rate_and_recent_changes_are_named(run: Recorded) -> None:
    text = draw(climbed(run), max_attempts=10)
    assert "4 of 10, 10.0 a minute" in text
    assert "3 correct, 1 does not fit" in text
    assert "3 accepted, the last 0s ago" in text
    run.step(200.0, (2,), f"skip: {'masked blocks, ' * 9}; exp2: fold")
    assert "+21%  skip + exp2" in draw(run)
    assert text.index("exp -> exp2") < text.index("BLOCK_M 64 -> 128"), "the latest first"
    assert "+10%" in text


def test_time_left_follows_from_the_rate_or_the_deadline_whichever_is_nearer(run: Recorded) -> None:
    climbed(run)
    assert "36s left" in draw(run, max_attempts=10)
    assert "36s left" in draw(run, max_attempts=10, minutes=5)
    assert "10s left" in draw(run, max_attempts=10, minutes=34 / 60)
    assert "left" not in draw(run)


def test_time_left_goes_down_while_no_attempt_ends_but_by_no_more_than_one_takes(run: Recorded) -> None:
    climbed(run).wait(4)
    assert "32s left" in draw(run, max_attempts=10)
    run.wait(3600)
    assert "30s left" in draw(run, max_attempts=10)
    assert "left" not in draw(run, max_attempts=5)


def test_time_left_never_runs_below_zero(run: Recorded) -> None:
    climbed(run)
    assert "0s left" in draw(run, minutes=0.1)


@pytest.mark.long
def test_a_reply_that_comes_is_shown_below_the_worker_that_waits_for_it(run: Recorded) -> None:
    climbed(run)
    run.store.journal.listen(run.claim("worker-1").id, PendingReply("gpt", run.now, run.now, 500), now=run.now)
    run.wait(7)
    lines = draw(run).splitlines()
    (place,) = (number for number, line in enumerate(lines) if "worker-1" in line)
    assert "gpt writes: 500 characters, the last 7s ago" in lines[place + 1]


def test_before_a_worker_works_the_panel_says_what_is_being_started(run: Recorded) -> None:
    run.store.driving.tell(run.run.id, Doing("starting Ray", run.now), now=run.now)
    run.wait(3)
    assert "now       starting Ray, 3s" in draw(run)
    run.store.set_run_state(run.run.id, RunState.STOPPED, now=run.now)
    assert "starting Ray" not in draw(run)


def test_below_a_worker_stands_what_it_does_with_a_bar_where_its_checks_are_counted(run: Recorded) -> None:
    step = run.claim()
    doing = [
        Doing("judging seed a", run.now),
        Doing("examining seed b", run.now, 6, 24),
        Doing("judging c", run.now, 128, 256, "round 129 of at most 256, 8k-full, 9 s left"),
    ]
    run.store.claims.tell(step.id, doing, now=run.now)
    run.wait(12)
    lines = draw(run).splitlines()
    (place,) = (number for number, line in enumerate(lines) if "worker-0" in line)
    assert "judging seed a, 12s" in lines[place + 1]
    assert "━━━           examining seed b, 12s: 6 of 24 checks" in lines[place + 2]
    measuring = " ".join(" ".join(lines[place + 3 : place + 5]).replace("│", "").split())
    assert measuring.startswith("━━━━━━ judging c, 12s: round 129 of at most 256, 8k-full, 9 s left")


def test_each_worker_is_shown_with_its_step_and_what_it_tried(run: Recorded) -> None:
    climbed(run)
    step = run.claim("worker-1")
    run.evaluate(step, Status.INCORRECT, (2,))
    run.wait(4)
    (line,) = (line for line in draw(run).splitlines() if "worker-1" in line)
    assert "step 4, mutate, 4s, 1 tried" in line


def test_workers_beyond_eight_are_counted(run: Recorded) -> None:
    for number in range(11):
        run.claim(f"worker-{number}")
    assert "and 3 more" in draw(run)


def test_a_finished_run_says_so_and_has_no_time_left(run: Recorded) -> None:
    climbed(run).finish()
    text = draw(run, max_attempts=10, minutes=5)
    assert "live  finished" in text
    assert "left" not in text


def test_a_run_without_attempts_can_be_drawn(run: Recorded) -> None:
    assert "0 accepted" in draw(run, max_attempts=10, minutes=1)


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal_or_100_columns(run: Recorded, width: int) -> None:
    climbed(run).step(170.0, (2,), "a change that is told at length " * 5)
    run.claim("worker-0")
    lines = draw(run, width=width, max_attempts=9, minutes=9, baselines=get_problem("mha").baselines).splitlines()
    assert {len(line) for line in lines} == {min(width, 100)}


def test_a_change_cannot_command_the_terminal(run: Recorded) -> None:
    run.step(100.0)
    run.step(120.0, (0,), "[bold]\x1b[2J gone")
    text = draw(run)
    assert "\x1b" not in text
    assert "[bold]" in text


def called(run: Recorded, error: str = "", usd: float | None = 0.25) -> None:
    run.store.journal.add_call(
        run.run.id, None, model="m", input_tokens=400_000, cached_tokens=0, output_tokens=100_000, usd=usd,
        seconds=2.0, error=error, now=run.now,
    )  # fmt: skip


def test_what_models_have_used_is_shown_and_so_is_the_last_trouble(run: Recorded) -> None:
    assert "tokens" not in draw(climbed(run))
    called(run)
    called(run)
    text = draw(run)
    assert "1.0M tokens, 0.50 USD, 2 calls" in text
    assert "last call" not in text
    called(run, "HTTP 503: overloaded")
    assert "last call: m: HTTP 503: overloaded" in draw(run)


def test_no_price_is_shown_where_none_is_known(run: Recorded) -> None:
    called(run, usd=None)
    assert "500.0k tokens, 1 call " in draw(run)
