"""How predictions are held against timings: on timings made up here, and on those in the repository."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.model import timings
from bench.timings import FOLDER, Timing, TimingSession, compare, load, predicted_us, spearman

FAR_OFF = 1.2


def timing(plan: str, case: str, *times_us: float, problem: str = "mha") -> Timing:
    return Timing(problem, "quick", case, f"# {plan}", plan, times_us)


def session(*made: Timing) -> TimingSession:
    return TimingSession("a card that is none", "h100", "1", "3.9.0", "2.13", made)


def by_plan(**predicted: float) -> Any:
    return lambda _, timing: predicted[timing.plan] * (10 if timing.case == "long" else 1)


def test_predictions_that_are_all_off_by_one_factor_rank_well_and_are_right_once_it_is_fitted() -> None:
    made = [timing(plan, case, time * (10 if case == "long" else 1)) for case in ("short", "long")
            for plan, time in (("a", 10), ("b", 20), ("c", 30), ("d", 40))]  # fmt: skip
    (found,) = compare(session(*made), by_plan(a=15, b=30, c=45, d=60))
    assert (found.problem, found.kernels, found.spearman) == ("mha", 4, pytest.approx(1))
    assert (found.error, found.fitted_error) == (pytest.approx(0.5), pytest.approx(0))


def test_a_wrong_order_and_errors_that_no_factor_mends_are_seen() -> None:
    made = [timing(plan, "short", time) for plan, time in (("a", 10), ("b", 20), ("c", 30), ("d", 40))]
    (found,) = compare(session(*made), by_plan(a=40, b=30, c=20, d=10))
    assert found.spearman == pytest.approx(-1)
    assert found.fitted_error > 0.5


def test_kernels_are_ranked_within_a_case_and_problems_apart() -> None:
    # within each case the order is wrong, though long cases are predicted to take longer
    times = (("a", "short", 10), ("b", "short", 11), ("a", "long", 100), ("b", "long", 110))
    made = [timing(*each, problem=problem) for problem in ("gqa", "mha") for each in times]
    assert [(found.problem, found.spearman) for found in compare(session(*made), by_plan(a=11, b=10))] == [
        ("gqa", pytest.approx(-1)),
        ("mha", pytest.approx(-1)),
    ]


def test_the_median_of_the_runs_is_what_counts() -> None:
    (found,) = compare(session(timing("a", "short", 9, 10, 90)), by_plan(a=10))
    assert found.error == 0


def test_ranks_of_equals_are_shared() -> None:
    values = [np.array(numbers, dtype=np.float64) for numbers in ([1, 2, 2, 3], [10, 20, 30, 40], [7, 7, 7, 7])]
    assert spearman(values[0], values[1]) == pytest.approx(4.5 / np.sqrt(4.5 * 5))
    assert np.isnan(spearman(values[0], values[2]))


def write(folder: Path, **changed: object) -> Path:
    source = b"def attention(): ..."
    name = f"{hashlib.sha256(source).hexdigest()}.py"
    (folder / name).write_bytes(source)
    item = {"problem": "mha", "suite": "quick", "case": "8k-full", "source": name, "plan": "p", "times_us": [1, 2, 3]}
    head = {"card": "none", "target": "h100", "driver": "1", "triton": "3.9.0", "torch": "2.13"}
    data = head | {"timings": [item | changed]}
    path = folder / "made-up.json"
    path.write_text(json.dumps(data))
    return path


def test_a_session_is_read_with_its_sources(tmp_path: Path) -> None:
    (found,) = load(write(tmp_path)).timings
    assert (found.source, found.median_us) == ("def attention(): ...", 2)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"source": "other.py"}, "other.py"),
        ({"times_us": []}, "there must be some"),
        ({"times_us": [0]}, "must be positive"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_file_that_is_no_session_is_refused_by_name(tmp_path: Path, changed: dict[str, object], reason: str) -> None:
    path = write(tmp_path, **changed)
    if "source" in changed:
        (tmp_path / "other.py").write_text("another")
    with pytest.raises(ValueError, match=rf"made-up\.json: .*{reason}"):
        load(path)


def test_the_table_says_where_there_are_no_timings(tmp_path: Path) -> None:
    assert "no timings" in "\n".join(timings(tmp_path)).lower()


def test_the_table_has_a_row_for_each_card_and_problem(tmp_path: Path) -> None:
    write(tmp_path)
    row = list(timings(tmp_path, lambda _, timing: 2.2))[-1]
    assert row.startswith("| none | mha | 1 |")
    assert "10%" in row


@pytest.mark.corpus
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_predictions_rank_what_was_timed(path: Path) -> None:
    for found in compare(load(path), predicted_us):
        assert found.spearman > 0.8
        assert found.fitted_error < FAR_OFF - 1
