"""Progress on a terminal and in a log, of a run that goes on while it is watched."""

import re
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from pathlib import Path
from time import monotonic, sleep

from rich.console import Console

from avo.evaluator.catalogue import get_problem
from avo.evaluator.evaluation import Status
from avo.evaluator.resolution import Difference
from avo.lineage_db.decision import Lead
from avo.lineage_db.records import Doing, PendingReply
from avo.lineage_db.store import Store
from avo.watch.panel import Budget
from avo.watch.progress import LineView, LiveView, RunProgress, read_news
from avo.watch.view import read_view
from tests.avo.recorded import Recorded
from tests.avo.sample_run import START

UNRESOLVED = Lead(1, Difference(0.056, 0.71)).decide(0.01, 0.9)


def terminal() -> Console:
    return Console(file=StringIO(), force_terminal=True, width=80, height=40, color_system=None, legacy_windows=False)


def log() -> Console:
    return Console(file=StringIO(), width=80)


def written(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def watch(path: Path, console: Console) -> RunProgress:
    return RunProgress(store_url=str(path), run_name="live", console=console, clock=lambda: START, interval_s=0.01)


def until(condition: Callable[[], bool]) -> None:
    """Wait for another thread; the limit only ends a broken test."""
    limit = monotonic() + 600
    while not condition():
        assert monotonic() < limit, "nothing happened"
        sleep(0.01)


def test_the_last_state_of_the_run_stays_on_the_terminal(store: Store, tmp_path: Path) -> None:
    console = terminal()
    run = Recorded(store, max_attempts=4)
    with watch(tmp_path / "lineage.db", console):
        run.step(100.0)
        run.step(125.0, (0,), "BLOCK_M 64 -> 128")
        run.finish()
    last = written(console)[written(console).rindex("╭") :]
    assert "live  finished" in last
    assert "2 of 4" in last
    assert "1.25 x seed" in last


def test_what_workers_do_is_shown_on_a_low_terminal_too_before_older_refusals_and_versions(store: Store) -> None:
    run = Recorded(store, max_attempts=9)
    for number in range(5):
        run.step(100.0 + 10 * number, (number - 1,) if number else ())
    for _ in range(3):
        run.step(Status.INCORRECT, (4,))
    run.drive()
    run.claim("worker-0")
    run.claim("worker-1")
    live = LiveView("live", Budget(None, START), get_problem("mha").baselines, lambda: run.now)
    live.receive(read_view(store, "live", run.now))
    for height, shown in ((40, [8, 7, 6]), (24, [8, 7]), (23, [8]), (20, [])):
        console = Console(file=StringIO(), force_terminal=True, width=80, height=height, color_system=None)
        console.print(live)
        lines = written(console).splitlines()
        assert len(lines) <= height
        assert "worker-0" in lines[-3]
        assert "worker-1" in lines[-2]
        assert [number for number in (8, 7, 6) if f"attempt {number} incorrect" in written(console)] == shown


def test_the_panel_leaves_the_terminal_room_to_write_ctrl_c_behind_its_last_line(store: Store, tmp_path: Path) -> None:
    console = terminal()
    run = Recorded(store)
    with watch(tmp_path / "lineage.db", console):
        run.step(100.0)
        run.finish()
    last = written(console)[written(console).rindex("╭") :].partition("╯")[0] + "╯"
    assert {len(line) for line in last.splitlines()} == {console.width - len("^C")}


def test_a_terminal_waits_for_a_database_that_is_not_there_yet(tmp_path: Path) -> None:
    console = terminal()
    with watch(tmp_path / "lineage.db", console):
        until(lambda: "waiting for live" in written(console))
        with Store.open(str(tmp_path / "lineage.db")) as store:
            Recorded(store).step(100.0)
    assert "attempts  1" in written(console)


def test_a_log_has_one_line_for_each_piece_of_news(store: Store, tmp_path: Path) -> None:
    console = log()
    run = Recorded(store)
    run.step(100.0)
    with watch(tmp_path / "lineage.db", console):
        until(lambda: "1 attempt, 1 accepted" in written(console))
        run.step(Status.DOES_NOT_FIT, (0,), "num_stages 1 -> 5")
        run.step(125.0, (0,), "[bold] BLOCK_M 64 -> 128")
        run.step(132.0, (1,), "BLOCK_N 64 -> 32", accept=False, decision=UNRESOLVED)
        run.step(150.0, (1,), "skip: blocks; exp2: in base 2")
        run.finish()
    first, fault, *_rest = lines = written(console).splitlines()
    assert first == "run live: running, 1 attempt, 1 accepted"
    assert re.fullmatch(r"attempt 2 does not fit: needs 262144 bytes .* \[num_stages 1 -> 5\]", fault)
    assert "attempt 3 correct: 125 predicted TFLOPS [[bold] BLOCK_M 64 -> 128]" in lines
    assert "version 1 accepted: 125 predicted TFLOPS, +25% [[bold] BLOCK_M 64 -> 128]" in lines
    assert f"attempt 4 correct: 132 predicted TFLOPS [BLOCK_N 64 -> 32]; {UNRESOLVED.told}" in lines
    assert lines[-1] == "run live: finished"
    assert "version 2 accepted: 150 predicted TFLOPS, +20% [skip + exp2]" in lines
    assert len(lines) == 8


def test_a_log_says_once_what_a_run_begins_with_and_what_is_examined_at_its_place(store: Store) -> None:
    console = log()
    view = LineView(console)
    run = Recorded(store)
    run.drive()
    store.driving.tell(run.run.id, Doing("starting Ray", run.now), now=run.now)
    news = [read_news(store, "live", run.now)]
    step = run.claim()
    for done in (0, 3):
        store.claims.tell(step.id, [Doing("examining seed a", run.now, done, 9, f"round {done}")], now=run.now)
        news.append(read_news(store, "live", run.now, news[-1]))
    run.conclude(step, run.evaluate(step, 100.0, ()), accept=True)
    later = [Doing("judging b", run.now), Doing("examining attempt 2 closely", run.now)]
    store.claims.tell(run.claim("worker-1").id, later, now=run.now)
    news.append(read_news(store, "live", run.now, news[-1]))
    for each in news:
        view.receive(each)
    said = written(console).splitlines()[1:]
    assert said[:2] == ["starting Ray", "examining seed a"]
    assert said[-1] == "examining attempt 2 closely", "after what came of the attempts before it"
    assert len(said) == 5
    assert not any("judging b" in line for line in said)


def test_an_exception_of_the_run_passes_through_and_the_display_ends(tmp_path: Path) -> None:
    console = terminal()
    try:
        with watch(tmp_path / "lineage.db", console):
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert written(console).endswith("\x1b[?25h"), "the cursor is shown again"


def test_a_log_says_once_why_a_model_does_not_answer(store: Store, tmp_path: Path) -> None:
    console = log()
    run = Recorded(store)
    run.step(100.0)
    with watch(tmp_path / "lineage.db", console):
        until(lambda: "1 attempt, 1 accepted" in written(console))
        for _ in range(2):
            store.journal.add_call(
                run.run.id, None, model="m", input_tokens=0, cached_tokens=0, output_tokens=0, usd=None,
                seconds=0.1, error="no connection", now=run.now,
            )  # fmt: skip
        run.finish()
    assert written(console).count("model m: no connection") == 1


def test_a_log_says_once_for_which_endpoint_a_step_waits_long_until_when_and_why(store: Store) -> None:
    run = Recorded(store)
    run.step(100.0)
    step = run.claim()
    store.driving.take(run.run.id, "box:7", now=run.now)
    console = log()
    view = LineView(console)
    for seconds in (2, 50, 50):
        then = run.now + timedelta(seconds=seconds)
        trouble = f"http://here/v1: HTTP 503: down ({seconds} times)"
        store.journal.listen(step.id, PendingReply("m", run.now, None, 0, then, trouble), now=run.now)
        view.receive(read_news(store, "live", run.now))
    (line,) = [line for line in written(console).splitlines() if "asked again" in line]
    assert line.startswith("m is asked again at ")
    assert line.endswith(" UTC, in 50s: http://here/v1: HTTP 503: down (50 times)")


def test_what_is_refused_after_its_evaluation_has_a_line_of_its_own(store: Store) -> None:
    run = Recorded(store)
    run.step(100.0)
    first = read_news(store, "live", run.now)
    step = run.claim()
    attempt = run.evaluate(step, 125.0, (0,), decision=Lead(0, Difference(0.25, 1.0)).decide(0.01, 0.9))
    second = read_news(store, "live", run.now, first)
    assert second.waiting == (attempt.id,)
    run.conclude(step, attempt, accept=False)
    third = read_news(store, "live", run.now, second)
    assert (third.waiting, [each.attempt_id for each in third.refused]) == ((), [attempt.id])
    console = log()
    view = LineView(console)
    for news in (first, second, third):
        view.receive(news)
    assert written(console).splitlines()[-1] == "attempt 2 overtaken: the test does not want it"
