"""The picture of a profile is well-formed, says that it is predicted, and holds no markup of a candidate's."""

from dataclasses import replace
from xml.etree import ElementTree

from avo.evaluator.evaluation import CaseScore
from avo.evaluator.performance.stalls import Reason
from avo.evaluator.profile import RUNNING, PipeLane, Profile, Timeline, WarpLane
from avo.evaluator.target import ScoreKind
from avo.evaluator.units import Unit
from avo.report.timeline import COLOURS, draw_timelines

LANES = Timeline(
    "loop at line 7",
    200.0,
    (0.0, 100.0),
    (PipeLane("tensor", (0.0, 1.0, 0.5, 0.5)),),
    (WarpLane("CTA 0 warps 0-3", (RUNNING, RUNNING, Reason.SCOREBOARD.value, Reason.PRODUCT.value)),),
)


def made(timeline: Timeline | None) -> Profile:
    return Profile(ScoreKind.PREDICTED, "h100", CaseScore("8k", 100.0, 50.0, "exp"), (), (), (), timeline)


def texts(picture: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(picture).iter() if element.tag.endswith("text")]


def test_a_picture_shows_each_lane_and_says_predicted() -> None:
    found = texts(draw_timelines([made(LANES)], "kernel.py", {}))
    assert "kernel.py, 8k on h100: 100 predicted TFLOPS; loop at line 7, one SM as played" in found
    assert {"tensor busy", "50%", "CTA 0 warps 0-3", "running", "scoreboard", "matrix product"} <= set(found)
    assert "CTA barrier" not in found


def test_a_picture_of_a_case_that_memory_bounds_has_its_speed_in_its_unit() -> None:
    decode = replace(made(LANES), score=CaseScore("llama-128k", 0.5, 50.0, "hbm"))
    (title, *_) = texts(draw_timelines([decode], "kernel.py", {"llama-128k": Unit(1e8, 1e8, 3.35e12)}))
    assert title.startswith(
        "kernel.py, llama-128k on h100: 200 us, 500 predicted GB/s, 15% of the peak; loop at line 7"
    )


def test_equal_states_are_one_box() -> None:
    picture = ElementTree.fromstring(draw_timelines([made(LANES)], "kernel.py", {}))
    titles = [element.text for element in picture.iter() if element.tag.endswith("title")]
    assert titles == ["running", "scoreboard", "matrix product"]


def test_every_reason_to_wait_has_a_colour() -> None:
    assert set(COLOURS) == {RUNNING, *(reason.value for reason in Reason if reason is not Reason.FIXED)}


def test_names_are_escaped() -> None:
    assert any("<b>&" in text for text in texts(draw_timelines([made(LANES)], "<b>&\x1b.py", {})))


def test_cases_stand_below_each_other_and_one_without_a_timeline_is_left_out() -> None:
    both = draw_timelines([made(LANES), made(None), made(LANES)], "kernel.py", {})
    assert both.count("one SM as played") == 2
