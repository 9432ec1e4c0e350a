"""Axes: round, covering their values, beginning where they should; labels keep apart."""

import math
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avo.watch.axes import Box, Scale, apart, base, beside, counts, ticks


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (223.3, 646.0, 6, [200, 300, 400, 500, 600, 700]),
        (0.0, 602.0, 6, [0, 200, 400, 600, 800]),
        (0.0, 39.0, 8, [0, 5, 10, 15, 20, 25, 30, 35, 40]),
        (0.02, 0.05, 5, [0.02, 0.03, 0.04, 0.05]),
        (100.0, 100.0, 6, [100, 102]),
    ],
)
def test_ticks_are_round(low: float, high: float, most: int, expected: list[float]) -> None:
    assert ticks(low, high, most) == expected


@given(st.floats(1e-3, 1e5), st.floats(0, 1e5), st.integers(1, 12))
def test_ticks_cover_their_values_at_equal_distances(low: float, span: float, most: int) -> None:
    marks = ticks(low, low + span, most)
    assert 2 <= len(marks) <= most + 2
    assert marks[0] <= low * (1 + 1e-9)
    assert marks[-1] >= (low + span) * (1 - 1e-9)
    step = marks[1] - marks[0]
    assert all(math.isclose(after - before, step, rel_tol=1e-6) for before, after in pairwise(marks))
    assert float(f"{step:.0e}"[0]) in (1, 2, 5)


@given(st.lists(st.floats(-50, 250), max_size=14), st.floats(1, 15))
def test_labels_keep_apart_and_inside(wanted: list[float], gap: float) -> None:
    places = apart(sorted(wanted), gap, 0.0, 200.0)
    assert len(places) == len(wanted)
    assert all(-1e-9 <= place <= 200 + 1e-9 for place in places)
    assert all(after - before >= gap - 1e-9 for before, after in pairwise(places))


def test_labels_that_are_apart_stay_where_they_are() -> None:
    assert apart([10.0, 40.0, 90.0], 15.0, 0.0, 100.0) == [10.0, 40.0, 90.0]


def test_labels_that_would_touch_give_way_to_both_sides() -> None:
    assert apart([50.0, 50.0, 53.0, 90.0], 10.0, 0.0, 100.0) == [41.0, 51.0, 61.0, 90.0]
    assert apart([1.0, 1.0], 10.0, 0.0, 100.0) == [0.0, 10.0]


def test_a_scale_may_run_upwards() -> None:
    scale = Scale(100.0, 200.0, 300.0, 0.0)
    assert [scale(100), scale(150), scale(200)] == [300, 150, 0]


@pytest.mark.parametrize(("values", "begin"), [([90, 100], 90), ([51, 100], 51), ([50, 100], 0), ([3, 100], 0)])
def test_an_axis_begins_at_zero_unless_half_of_it_would_be_empty(values: list[float], begin: float) -> None:
    assert base(values) == begin


@pytest.mark.parametrize(
    ("last", "most", "expected"), [(40, 4, [0, 10, 20, 30, 40]), (37, 4, [0, 10, 20, 30]), (1, 5, [0, 1]), (0, 5, [0])]
)
def test_counts_are_whole_and_do_not_pass_the_last(last: int, most: int, expected: list[int]) -> None:
    assert counts(last, most) == expected


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 50), st.floats(1, 40)), max_size=12))
def test_labels_beside_marks_stay_inside_and_cover_neither_marks_nor_each_other(
    marks: list[tuple[float, float, float]],
) -> None:
    frame = Box(0, 0, 100, 50)
    placed = [box for box in beside(marks, 4, (1, 1), frame) if box]
    assert all(box.inside(frame) for box in placed)
    assert not any(one.meets(other) for one, other in combinations(placed, 2))
    assert not any(box.left < x < box.right and box.top < y < box.bottom for box in placed for x, y, _ in marks)


def test_a_label_takes_the_first_free_side_of_its_mark() -> None:
    wide = Box(0, 0, 100, 50)
    assert beside([(50, 25, 20)], 4, (1, 1), wide) == [Box(29, 20, 49, 24)]
    assert beside([(5, 25, 20)], 4, (1, 1), wide) == [Box(6, 26, 26, 30)]
    assert beside([(5, 48, 20)], 4, (1, 1), wide) == [Box(6, 43, 26, 47)]
    assert beside([(5, 48, 200)], 4, (1, 1), wide) == [None]
