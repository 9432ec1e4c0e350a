"""The figures: what they mark, and that nothing is drawn outside the picture."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avo.lineage_db.ablated import Edit
from avo.report.figures import FONT, NARROW, WIDE, Bar, BarGroup, draw_bars, draw_edits, draw_trajectory
from avo.report.svg import text_width
from avo.watch.trajectory import BaselineLevel, CaseSpeeds, Trajectory
from tests.avo.sample_run import ABLATION

SCORES = (100.0, 150.0, 140.0, 150.0, 210.0)
FIGURE = Trajectory(
    "full",
    "predicted TFLOPS, h100",
    (0, 1, 2, 3, 4),
    (1, 4, 5, 9, 12),
    SCORES,
    ("seed", "a", "b", "c", "d"),
    (
        CaseSpeeds("4k-full", tuple(score - 5 for score in SCORES)),
        CaseSpeeds("8k-full", tuple(score + 5 for score in SCORES)),
    ),
    (BaselineLevel("cuDNN", 600.0), BaselineLevel("Triton", 180.0)),
    20,
    ((2, 90.0), (3, 95.0), (6, 140.0)),
    (7, 8, 10),
)
NUMBER = r"-?\d+(?:\.\d+)?"


def elements(drawn: str, tag: str, style: str = "") -> list[ElementTree.Element]:
    root = ElementTree.fromstring(drawn)
    return [element for element in root.iter(tag) if style in (element.get("class") or "").split() or not style]


def texts(drawn: str) -> list[str]:
    return [element.text or "" for element in elements(drawn, "text")]


def test_only_what_beats_all_before_it_is_a_record() -> None:
    assert FIGURE.best == (100.0, 150.0, 150.0, 150.0, 210.0)
    assert FIGURE.records == (0, 1, 4)
    assert FIGURE.holders == (0, 1, 1, 1, 4)


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_a_trajectory_has_its_lines_and_marks(width: int) -> None:
    drawn = draw_trajectory(FIGURE, width)
    counts = {style: len(elements(drawn, tag, style)) for tag, style in (
        ("path", "running"), ("path", "case"), ("path", "level"), ("circle", "record"), ("circle", "other"),
    )}  # fmt: skip
    assert counts == {"running": 1, "case": 2, "level": 2, "record": 3, "other": 2}
    assert {"600 cuDNN", "210 best", "215 8k-full", "0", "20", "v4 d"} <= set(texts(drawn))


def test_the_running_best_goes_up_in_steps_and_never_down() -> None:
    (path,) = elements(draw_trajectory(FIGURE, WIDE), "path", "running")
    heights = [float(y) for y in re.findall(rf"V({NUMBER})", path.get("d") or "")]
    assert len(heights) == len(FIGURE.records) - 1
    assert heights == sorted(heights, reverse=True)


def test_the_running_best_has_a_band_of_what_cannot_be_told_apart_from_it_where_that_is_known() -> None:
    assert elements(draw_trajectory(FIGURE, WIDE), "path", "band") == []
    known = replace(FIGURE, bands=tuple((score * 0.98, score * 1.02) for score in SCORES))
    drawn = draw_trajectory(known, WIDE)
    (band,), (line,) = (elements(drawn, "path", style) for style in ("band", "running"))
    corners = [tuple(map(float, place.split())) for place in (band.get("d") or "")[1:-1].split("L")]
    start = float(re.findall(rf"M{NUMBER} ({NUMBER})", line.get("d") or "")[0])
    assert corners[-1][1] < start < corners[0][1]
    assert corners[0][0] == corners[-1][0]
    assert max(x for x, _ in corners) == corners[len(corners) // 2][0]


def test_refused_and_faulty_attempts_are_marks_of_their_own() -> None:
    drawn = draw_trajectory(FIGURE, WIDE)
    refused, faulty = (elements(drawn, "path", style)[0].get("d") or "" for style in ("refused", "faulty"))
    heights = [[float(y) for y in re.findall(rf"M{NUMBER} ({NUMBER})", path)] for path in (refused, faulty)]
    assert [len(each) for each in heights] == [3, 3]
    assert min(heights[1]) > max(heights[0])


def test_the_size_of_a_picture_does_not_grow_with_the_attempts() -> None:
    many = replace(FIGURE, attempts=100_000, refused=tuple((place, 50.0 + place % 100) for place in range(13, 100_000)))
    assert len(draw_trajectory(many, NARROW)) < 300_000


def test_the_lines_end_where_the_run_ends() -> None:
    drawn = draw_trajectory(FIGURE, WIDE)
    running, level = (elements(drawn, "path", style)[0].get("d") or "" for style in ("running", "level"))
    assert running.rpartition("H")[2] == level.rpartition("H")[2]


def test_a_single_case_is_the_running_best_and_has_no_line_of_its_own() -> None:
    single = replace(FIGURE, cases=FIGURE.cases[:1])
    assert elements(draw_trajectory(single, WIDE), "path", "case") == []


def test_a_mark_tells_version_speed_and_change() -> None:
    titles = [circle[0].text for circle in elements(draw_trajectory(FIGURE, WIDE), "circle")]
    assert titles[1] == "v1: 150 predicted TFLOPS, h100: a"


def test_a_bar_has_a_whisker_only_where_there_is_an_interval() -> None:
    group = BarGroup("8k", (Bar("seed", "seed", 100.0, 80.0, 130.0), Bar("cuDNN", "published", 600.0)))
    drawn = draw_bars([group, group], "predicted TFLOPS, h100", WIDE)
    assert len(elements(drawn, "rect", "bar")) == 4
    assert len(elements(drawn, "path", "whisker")) == 2
    long, short = (float(elements(drawn, "rect", style)[0].get("width") or 0) for style in ("published", "seed"))
    assert long / short == pytest.approx(6, rel=0.01)
    desc = elements(drawn, "desc")[0].text or ""
    assert "8k: seed 100 (80.0 to 130), cuDNN 600" in desc


speeds = st.floats(0.001, 50000)
names = st.text(min_size=1, max_size=40)


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    count = draw(st.integers(1, 40))
    column = st.lists(speeds, min_size=count, max_size=count).map(tuple)
    cases = draw(st.lists(st.builds(CaseSpeeds, names, column), min_size=1, max_size=10))
    levels = draw(st.lists(st.builds(BaselineLevel, names, speeds), max_size=20))
    last = draw(st.integers(count, 3 * count))
    places = draw(st.permutations(range(1, last + 1)))
    others = places[count:]
    refused = tuple((place, draw(speeds)) for place in others[::2])
    return Trajectory(
        "full", draw(names), tuple(range(count)), tuple(sorted(places[:count])), draw(column), (draw(names),) * count,
        tuple(cases), tuple(levels), last, refused, tuple(others[1::2]),
    )  # fmt: skip


def assert_inside(drawn: str) -> None:
    root = ElementTree.fromstring(drawn)
    _, _, width, height = map(float, (root.get("viewBox") or "").split())
    for element in root.iter("text"):
        x, y = float(element.get("x") or 0), float(element.get("y") or 0)
        wide = text_width(element.text or "", FONT)
        start = x - {"end": wide, "middle": wide / 2}.get(element.get("text-anchor") or "", 0.0)
        assert start >= -0.1
        assert start + wide <= width + 0.1
        assert FONT / 2 <= y <= height
    for element in root.iter("circle"):
        assert 0 <= float(element.get("cx") or 0) <= width
        assert 0 <= float(element.get("cy") or 0) <= height
    for element in root.iter("rect"):
        assert float(element.get("width") or 0) >= 0
        assert float(element.get("x") or 0) + float(element.get("width") or 0) <= width
    for path in root.iter("path"):
        for letter, first, second in re.findall(rf"([MHV])({NUMBER})(?: ({NUMBER}))?", path.get("d") or ""):
            assert 0 <= float(first) <= (height if letter == "V" else width)
            assert not second or 0 <= float(second) <= height


@pytest.mark.long
@given(trajectories(), st.sampled_from([WIDE, NARROW]))
def test_no_part_of_a_trajectory_leaves_the_picture(figure: Trajectory, width: int) -> None:
    assert_inside(draw_trajectory(figure, width))


@st.composite
def bars(draw: st.DrawFn) -> Bar:
    value = draw(speeds)
    spread = draw(st.floats(0, 0.9))
    low = value * (1 - spread) if spread else 0.0
    return Bar(draw(names), "best", value, low, value * (1 + spread) if low else 0.0)


@given(
    st.lists(st.builds(BarGroup, names, st.lists(bars(), min_size=1, max_size=6).map(tuple)), min_size=1, max_size=5),
    names,
    st.sampled_from([WIDE, NARROW]),
)
def test_no_bar_leaves_the_picture(groups: list[BarGroup], unit: str, width: int) -> None:
    assert_inside(draw_bars(groups, unit, width))


def test_edits_are_bars_to_either_side_of_zero_and_useless_ones_look_otherwise() -> None:
    drawn = draw_edits(ABLATION, WIDE)
    zero = float(re.findall(rf"M({NUMBER}) ", elements(drawn, "path", "zero")[0].get("d") or "")[0])
    found = [
        (each.get("class"), float(each.get("x") or 0), float(each.get("width") or 0))
        for each in elements(drawn, "rect")
    ]
    assert [style for style, _, _ in found] == ["bar best", "bar seed", "bar seed"]
    assert [x == zero for _, x, _ in found] == [True, True, False]
    carries, _, slows = found
    assert slows[1] + slows[2] == pytest.approx(zero, abs=0.1), "to the left of zero"
    assert carries[2] / slows[2] == pytest.approx(0.3 / 0.05, rel=0.01)
    assert len(elements(drawn, "path", "whisker")) == 3
    assert {"+30% ±2%", "+0.4% ±1.0%", "-5.0% ±1.1%", "later moves find nothing to do without it"} <= set(texts(drawn))


edits = st.one_of(
    st.builds(Edit, names, st.floats(-0.9, 50.0), st.floats(0.001, 1.0), st.booleans()),
    st.builds(Edit, names, st.none(), why=names),
)


@given(st.lists(edits, min_size=1, max_size=24).map(tuple), st.sampled_from([WIDE, NARROW]))
def test_no_edit_leaves_the_picture(found: tuple[Edit, ...], width: int) -> None:
    assert_inside(draw_edits(replace(ABLATION, edits=found), width))
