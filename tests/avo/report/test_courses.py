"""The figure of a comparison."""

import re

from avo.evaluator.target import ScoreKind
from avo.evaluator.units import TFLOPS
from avo.report.courses import draw_courses
from avo.watch.comparison import Advance, Course, Spent


def course(run: str, last: float, resolution: float | None) -> Course:
    spent = [Spent(made, 0, made / 4, 0, 0.0) for made in (1, 5, 9)]
    advances = tuple(
        Advance(version, tflops, resolution, spent[version]) for version, tflops in enumerate((100.0, last))
    )
    return Course(run, "mutate", ScoreKind.PREDICTED, "h100", advances, spent[2])


def test_each_run_has_a_line_to_where_it_ended_and_a_band_where_its_resolution_is_known() -> None:
    drawn = draw_courses([course("one", 200.0, 0.02), course("<two>", 150.0, None)], "attempts", TFLOPS, 760)
    lines = dict(re.findall(r'd="(M[^"]*)" class="course (c\d)"', drawn))
    assert sorted(lines.values()) == ["c0", "c1"]
    assert re.findall(r'class="band (c\d)"', drawn) == ["c0"]
    first, second = lines
    assert first.rpartition("H")[2] == second.rpartition("H")[2]  # they spent the same
    assert "200 one" in drawn
    assert "150 &lt;two&gt;" in drawn
    assert drawn.index("200 one") < drawn.index("150 &lt;two&gt;")
