"""Why an attempt is no version, on every display of a run in the same words."""

from collections.abc import Callable
from io import StringIO

import pytest
from rich.console import Console, RenderableType

from avo.cli import session, status
from avo.evaluator.evaluation import Status
from avo.evaluator.resolution import Difference
from avo.evaluator.units import TFLOPS
from avo.lineage_db.decision import Lead
from avo.lineage_db.store import Store
from avo.report.reading import read_report
from avo.report.render import to_html, to_markdown
from avo.tui.attempts import describe, result
from avo.tui.reader import AttemptDetails
from avo.watch.events import EventReader
from avo.watch.panel import Budget, panel
from avo.watch.view import read_view, to_json
from tests.avo.recorded import Recorded

WHY = Lead(0, Difference(0.056, 0.71)).decide(0.01, 0.9)
COUNTED = "1 attempt is predicted faster than the best and not resolved"


@pytest.fixture
def run(store: Store) -> Recorded:
    made = Recorded(store)
    made.drive()
    made.step(100.0, change="seed")
    made.step(105.6, (0,), "one barrier less", accept=False, decision=WHY)
    made.step(90.0, (0,), "smaller tiles", accept=False, decision=Lead(0, Difference(-0.1, 0.0)).decide(0.01, 0.9))
    return made


def drawn(what: RenderableType, width: int = 200) -> str:
    console = Console(width=width, file=StringIO(), color_system=None)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


def live(run: Recorded, width: int = 200) -> str:
    view = read_view(run.store, "live", run.now)
    return drawn(panel(view, now=run.now, budget=Budget(None, run.now), baselines=()), width)


def status_of(run: Recorded) -> str:
    return drawn(status.in_words(read_view(run.store, "live", run.now), run.now))


def log(run: Recorded) -> str:
    return "\n".join(event.text for event in EventReader("live").read(run.store, run.now))


def details(run: Recorded) -> str:
    attempt, (summary,) = run.store.attempt(run.run.id, 2), run.store.pages.attempts(run.run.id, [2])
    return str(describe(AttemptDetails(attempt, summary, run.store.steps(run.run.id)[1]), TFLOPS))


def summary(run: Recorded) -> str:
    return session.in_words(session.summarise(run.store, "live"))


def html(run: Recorded) -> str:
    return to_html(read_report(run.store, "live", run.now), run.now)


def markdown(run: Recorded) -> str:
    return to_markdown(read_report(run.store, "live", run.now), run.now)


@pytest.mark.parametrize("show", [log, details, html, markdown])
def test_a_display_of_attempts_has_the_sentence_of_each_refusal(run: Recorded, show: Callable[[Recorded], str]) -> None:
    assert WHY.told in show(run)


@pytest.mark.parametrize("show", [live, status_of, summary, html, markdown])
def test_a_display_of_the_run_counts_what_is_unresolved(run: Recorded, show: Callable[[Recorded], str]) -> None:
    assert COUNTED in show(run)
    run.step(107.0, (0,), "two barriers less", accept=False, decision=WHY)
    assert "2 attempts are predicted faster than the best and not resolved" in show(run)


@pytest.mark.parametrize("show", [live, status_of])
def test_the_present_state_has_the_last_refusal(run: Recorded, show: Callable[[Recorded], str]) -> None:
    last = "not accepted: -10% in the mean over version 0, +1% is needed"
    assert f"attempt 3 {last}" in show(run).replace("attempt 3, ", "attempt 3 ")


@pytest.mark.parametrize("show", [live, status_of])
def test_the_present_state_has_the_last_three_attempts_that_are_no_versions(
    run: Recorded, show: Callable[[Recorded], str]
) -> None:
    run.step(Status.DOES_NOT_FIT, (0,), "num_stages 1 -> 5")
    run.step(120.0, (0,), "exp2")
    lines = [
        line for line in show(run).replace(", ", " ").splitlines() if "attempt " in line and "predicted" not in line
    ]
    told = ["attempt 4 does not fit: needs 262144 bytes", "attempt 3 not accepted:", "attempt 2 unresolved:"]
    assert [words in line for words, line in zip(told, lines, strict=True)] == [True] * 3


def test_a_refusal_is_told_to_its_end_in_a_narrow_terminal_too(run: Recorded) -> None:
    words = " ".join(live(run, 80).replace("│", "").split())
    assert f"attempt 3 not accepted: -10% in the mean over version 0, +1% is needed attempt 2 {WHY.told}" in words


def test_a_step_that_was_refused_ends_with_the_sentence(run: Recorded) -> None:
    assert f"step 1 done: {WHY.told}" in log(run)


def test_the_ui_names_the_ruling_next_to_the_score(run: Recorded) -> None:
    _, better, slower = run.store.attempt_summaries(run.run.id)
    assert (result(better, TFLOPS), result(slower, TFLOPS)) == ("106 unresolved", "90.0 no gain")


def test_json_has_the_facts(run: Recorded) -> None:
    data = to_json(read_view(run.store, "live", run.now), run.now)
    assert data["unresolved"] == 1
    assert [(each["attempt"], each["decision"]["ruling"]) for each in data["turned_down"]] == [
        (3, "no_gain"), (2, "unresolved"),
    ]  # fmt: skip
    events = [event.to_json() for event in EventReader("live").read(run.store, run.now)]
    (found,) = (event for event in events if event["event"] == "attempt" and event["attempt"] == 2)
    assert (found["ruling"], found["decision"]) == ("unresolved", WHY.sentence)


def test_what_the_best_has_overtaken_is_counted_no_more(run: Recorded) -> None:
    view = read_view(run.store, "live", run.now)
    run.step(107.0, (0,), "two barriers less", accept=False, decision=WHY)
    run.step(106.0, (0,), "exp2")
    again = read_view(run.store, "live", run.now, view)
    assert (*view.ahead, *again.ahead) == pytest.approx((105.6, 107.0))
    assert again == read_view(run.store, "live", run.now)
    run.step(110.0, (1,), "wider tiles")
    assert read_view(run.store, "live", run.now, again).unresolved == 0


def test_a_view_that_is_read_again_counts_each_attempt_once(run: Recorded) -> None:
    view = read_view(run.store, "live", run.now)
    run.step(107.0, (0,), "two barriers less", accept=False, decision=WHY)
    again = read_view(run.store, "live", run.now, view)
    assert (view.unresolved, again.unresolved) == (1, 2)
    assert [attempt.attempt_id for attempt in again.turned_down] == [4, 3, 2]
