"""What is said about agreement with measurements follows from the predictions and nothing else."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from avo.evaluator.offline import OfflineError
from bench import model
from bench.measured import statistics
from bench.measured.points import Row, Source
from bench.measured.searches import Search
from bench.measured.statistics import Judged, agreement, spearman


def judged(measured: float, us: float, problem: str = "p", width: float = 1.2) -> Judged:
    low, high = us / width**0.5, us * width**0.5
    return Judged("mm", "h100", ("source", problem), f"{measured}", measured, us, low, high, "hbm")


def test_a_perfect_prediction_has_no_error() -> None:
    found = agreement([judged(us, us) for us in (1.0, 2.0, 3.0, 4.0)])
    assert (found.count, found.spearman, found.within, found.error, found.inside) == (4, 1.0, 1.0, 0.0, 1.0)
    assert found.bias == pytest.approx(1.0)
    assert found.width == pytest.approx(1.2)
    assert found.regrets == (1.0,)


def test_error_bias_and_range_are_of_the_ratio() -> None:
    found = agreement([judged(10, 20), judged(10, 5), judged(10, 10.5), judged(10, 40)])
    assert found.error == pytest.approx((1 + 0.5 + 0.05 + 3) / 4)
    assert found.bias == pytest.approx((2 * 0.5 * 1.05 * 4) ** 0.25)
    assert found.inside == 0.25


def test_order_within_a_problem_is_a_mean_by_rows_over_problems_of_four() -> None:
    right = [judged(us, us, "right") for us in (1.0, 2.0, 3.0, 4.0)]
    wrong = [judged(us, 100 - us, "wrong") for us in range(10, 16)]
    few = [judged(us, 50 - us, "few") for us in (20.0, 21.0, 22.0)]
    assert agreement(right + wrong + few).within == pytest.approx((4 * 1.0 + 6 * -1.0) / 10)
    assert math.isnan(agreement(few).within)


def test_regret_is_what_the_choice_costs() -> None:
    rows = [judged(10, 30), judged(12, 20), judged(20, 25), judged(30, 40)]
    assert agreement(rows).regrets == (1.2,)
    assert agreement(rows[:3]).regrets == ()


def test_the_table_shows_both_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tuple(judged(us, us * 1.1, f"problem {us}") for us in range(1, 40))
    monkeypatch.setattr(model, "judged", lambda names, processes: rows)
    table = list(model.measured())
    cells = [cell.strip() for cell in table[2].split("|")]
    assert cells[1:4] == ["mm", "h100", "39"]
    assert cells[6:9] == ["10.0%"] * 3
    assert any(each.held_out for each in rows)
    assert not all(each.held_out for each in rows)
    assert table[-1].startswith("| all |")


def test_a_search_is_judged_by_the_published_winner_and_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "_CACHE", tmp_path)
    times = {"a": 3.0, "b": 2.0, "c": None}

    class Launch:
        def __init__(self, name: str) -> None:
            self.name = name

        @property
        def work(self) -> str:
            if times[self.name] is None:
                raise OfflineError("does not compile")
            return self.name

    monkeypatch.setattr(statistics, "predicted", lambda works, *rest, **ways: Judgement(times[works[0]] or 0.0))
    source = Source("h100", "H100", "events", "somewhere")
    asked = Search(source, ("source", 1, 2, 3), "a", {name: Launch(name) for name in times}, 0)  # type: ignore
    found = statistics.search(asked)
    assert (found.candidates, found.regret) == (2, 1.5)
    times["a"] = 9.0
    assert statistics.search(asked) == found


class Judgement:
    def __init__(self, us: float) -> None:
        self.us = us


def test_rows_are_lowered_anew_when_kernels_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def make() -> Iterator[str]:
        made.append("again")
        yield "row"

    monkeypatch.setattr(statistics, "_CACHE", tmp_path)
    monkeypatch.setattr(statistics, "_digest", lambda: "one")
    assert statistics._kept("mm", make) == statistics._kept("mm", make) == ["row"]
    assert len(made) == 1
    monkeypatch.setattr(statistics, "_digest", lambda: "two")
    statistics._kept("mm", make)
    assert len(made) == 2


def test_a_row_is_predicted_in_the_way_that_it_was_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[bool, bool]] = []

    def predicted(launches: object, card: str, least_bytes: int, *, cold: bool, graph: bool) -> object:
        asked.append((cold, graph))
        raise ValueError("enough")

    monkeypatch.setattr(statistics, "predicted", predicted)
    for timing in ("do_bench", "graph", "proton", "events"):
        row = Row("mm", Source("h100", "H100", timing, "there"), ("s",), "label", 1.0, (), 1)
        with pytest.raises(ValueError, match="enough"):
            statistics.judge(row)
    assert asked == [(True, False), (False, True), (True, True), (False, False)]


def test_ranks_of_equals_are_shared() -> None:
    values = [np.array(numbers, dtype=np.float64) for numbers in ([1, 2, 2, 3], [10, 20, 30, 40], [7, 7, 7, 7])]
    assert spearman(values[0], values[1]) == pytest.approx(4.5 / np.sqrt(4.5 * 5))
    assert np.isnan(spearman(values[0], values[2]))
