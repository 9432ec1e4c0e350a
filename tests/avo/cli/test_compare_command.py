"""Runs side by side: equal costs, equal meaning."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import Result

from avo.evaluator.target import ScoreKind
from avo.lineage_db.store import Store
from avo.watch.comparison import Advance, Course, Spent, marks
from tests.avo.recorded import Recorded
from tests.avo.sample_run import make_evaluation

Avo = Callable[..., Result]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Two runs: one without a model, slow but free; one with, which is ahead and costs."""
    url = str(tmp_path / "runs.db")
    with Store.open(url) as store:
        plain, paid = Recorded(store, "plain"), Recorded(store, "paid")
        for tflops in (100.0, 110.0, 0.0, 120.0, 130.0):
            plain.step(tflops or 90.0, (0,) if tflops != 100 else (), accept=tflops > 0, seconds=720)
        for number, tflops in enumerate((100.0, 150.0)):
            step = paid.claim()
            paid.wait(1800)
            paid.look(step, f"a{number}", f"b{number}")
            attempt = paid.evaluate(step, tflops, () if number == 0 else (0,), "a")
            if number:
                store.journal.add_call(
                    paid.run.id, step.id, model="m", input_tokens=900, cached_tokens=0, output_tokens=100, usd=0.25,
                    seconds=9.0, error="", now=paid.now - timedelta(seconds=60),
                )  # fmt: skip
            paid.conclude(step, attempt, accept=True)
    return url


def test_runs_are_held_against_the_same_costs(avo: Avo, url: str) -> None:
    result = avo("compare", "plain", "paid", "--db", url)
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines() if line.strip()]
    assert ["plain", "mutate", "130", "100", "5", "1.00"] in rows
    assert ["paid", "mutate", "150", "100", "2", "4", "1.00", "1000", "0.25"] in rows
    assert ["2", "110", "150"] in rows
    assert ["5", "130"] in rows  # attempts, which the other did not make
    assert ["0.5", "110", "100"] in rows
    assert ["1,000", "150"] in rows


def test_json_has_every_advance_with_what_it_had_cost(avo: Avo, url: str) -> None:
    plain, paid = json.loads(avo("compare", "plain", "paid", "--db", url, "--json").stdout)
    assert [advance["tflops"] for advance in plain["advances"]] == pytest.approx([100, 110, 120, 130])
    assert [advance["spent"]["attempts"] for advance in plain["advances"]] == [1, 2, 4, 5]
    assert paid["advances"][1]["spent"] == {"attempts": 2, "looks": 4, "hours": 1.0, "tokens": 1000, "usd": 0.25}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("plain",), "give two different runs or more"),
        (("plain", "plain"), "give two different runs or more"),
        (("plain", "other#2"), "names an attempt, and this command is about a whole run: write other without #ATTEMPT"),
        (("plain", "elsewhere"), "plain and elsewhere differ in target (h100, b200)"),
        (("plain", "empty"), "run 'empty' has no accepted version yet"),
        (("plain", "nothing"), "no run 'nothing'"),
    ],
)
def test_what_cannot_be_compared_is_one_line(avo: Avo, url: str, arguments: tuple[str, ...], complaint: str) -> None:
    with Store.open(url) as store:
        Recorded(store, "empty")
        other = Recorded(store, "elsewhere", target="b200")
        step = other.claim()
        other.conclude(step, other.evaluate(step, make_evaluation(90.0, target="b200"), ()), accept=True)
    result = avo("compare", *arguments, "--db", url)
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


spends = st.floats(min_value=1e-4, max_value=1e7)


@given(st.lists(spends, min_size=1, max_size=5))
def test_marks_are_round_rising_and_within_what_was_spent(hours: list[float]) -> None:
    courses = []
    for most in hours:
        advance = Advance(0, 1.0, None, Spent(1, 0, most / 2, 0, 0.0))
        courses.append(Course("r", "o", ScoreKind.PREDICTED, "h100", (advance,), Spent(1, 0, most, 0, 0.0)))
    found = marks(courses, "hours")
    assert found == sorted(set(found))
    assert all(min(hours) / 2 <= mark <= max(hours) for mark in found)
    assert all(f"{mark:e}"[0] in "125" for mark in found)
    assert marks(courses, "tokens") == []
