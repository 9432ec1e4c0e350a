"""Drawing: axes are round and cover their values, labels keep apart, text is text."""

import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avo.report.svg import Scale, apart, node, picture, shorten, text_width, ticks


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


def test_a_scale_may_run_upwards() -> None:
    scale = Scale(100.0, 200.0, 300.0, 0.0)
    assert [scale(100), scale(150), scale(200)] == [300, 150, 0]


@given(st.text(max_size=60), st.floats(10, 400))
def test_shortened_words_fit(words: str, width: float) -> None:
    assert text_width(shorten(words, width, 12), 12) <= max(width, text_width("x", 12))


def test_a_picture_is_well_formed_whatever_its_text_and_says_what_it_shows() -> None:
    hostile = "</text><script>alert(1)</script>\"' &\x00\x1b\ud800"
    drawn = picture("p", 10, 20, hostile, hostile, [node("text", hostile, x=1.25, class_=hostile, data_x=hostile)])
    root = ElementTree.fromstring(drawn)
    assert [child.tag for child in root] == ["title", "desc", "text"]
    assert root.get("aria-labelledby") == "p-title p-desc"
    assert root.get("role") == "img"
    assert root[2].get("x") == "1.2"
    assert (root[2].text or "").startswith("</text><script>")
