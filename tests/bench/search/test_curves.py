"""The table and the picture of searches: medians of the runs that there are, and which there are not."""

import math
from dataclasses import replace
from xml.etree import ElementTree

from bench.search.curves import draw, table
from bench.search.runs import Place, Point, Record


def record(operator: str, seed: int, *points: tuple[int, int, float, float], allowed: int = 60) -> Record:
    return Record(Place("mha", "h100", operator, seed), 200.0, "abc", allowed, tuple(Point(*point) for point in points))


RECORDS = [
    record("mutate", 0, (0, 0, 0.0, 100.0), (1, 24, 60.0, 182.0), (2, 48, 120.0, 199.0)),
    record("mutate", 1, (0, 0, 0.0, 100.0), (1, 24, 90.0, 196.0)),
    record("mutate", 2, (0, 0, 0.0, 100.0), (3, 72, 600.0, 195.0)),
    record("tpe", 0, (0, 0, 0.0, 100.0), (60, 1440, 6000.0, 182.0)),
]


def test_the_table_has_the_median_of_what_each_level_took_and_says_what_was_not_run() -> None:
    lines = list(table(RECORDS))
    assert lines[2] == (
        "| mha | h100 | `mutate` | 3 of 5 | 1 attempt, 24 looks, 1.5 min | 2 attempts, 48 looks, 2.0 min "
        "| 2 attempts, 48 looks, 2.0 min |"
    )
    assert lines[3] == ("| mha | h100 | `tpe` | 1 of 5 | 60 attempts, 1440 looks, 100.0 min | not in 60 | not in 60 |")
    assert lines[4] == "| mha | h100 | `random` | not run yet |  |  |  |"
    assert sum("not run yet" in line for line in lines) == 16


def test_runs_that_start_from_seeds_in_gluon_have_a_table_of_their_own() -> None:
    first = RECORDS[0]
    near = replace(first.points[0], tflops=185.0)
    made = [*RECORDS, replace(first, place=replace(first.place, gluon=True), points=(near, *first.points[1:]))]
    assert list(table(made)) == list(table(RECORDS))
    assert list(table(made, gluon=True))[2:] == [
        "| mha | h100 | `mutate` | 1 of 5 | a seed has it | 2 attempts, 48 looks, 2.0 min "
        "| 2 attempts, 48 looks, 2.0 min |",
        "| mha | b200 | `mutate` | not run yet |  |  |  |",
        "| gqa | h100 | `mutate` | not run yet |  |  |  |",
        "| gqa | b200 | `mutate` | not run yet |  |  |  |",
    ]
    assert draw(made) == draw(RECORDS)


def test_the_table_says_in_how_many_attempts_a_run_did_not_arrive_that_ended_earlier() -> None:
    short = record("tpe", 1, (0, 0, 0.0, 100.0), (6, 144, 400.0, 120.0), allowed=6)
    assert list(table([*RECORDS, short]))[3].endswith("| 2 of 5 | not in 6 | not in 6 | not in 6 |")
    third = record("tpe", 2, (0, 0, 0.0, 100.0), (3, 72, 300.0, 182.0))
    assert list(table([*RECORDS, short, third]))[3].endswith(
        "| 3 of 5 | 60 attempts, 1440 looks, 100.0 min | not in 3 | not in 3 |"
    )


def test_the_picture_has_a_line_for_each_run_and_says_what_was_not_run() -> None:
    root = ElementTree.fromstring(draw(RECORDS))
    lines = [each for each in root.iter("{http://www.w3.org/2000/svg}path") if each.get("stroke-opacity")]
    assert [line.get("stroke") for line in lines] == ["#0072b2"] * 3 + ["#d55e00"]
    words = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert words.count("not run yet") == 5


def test_a_level_is_reached_where_a_version_first_has_it() -> None:
    reached = RECORDS[0].reached(0.95)
    assert reached is not None
    assert math.isclose(reached.tflops, 199.0)
    assert RECORDS[3].reached(0.98) is None
