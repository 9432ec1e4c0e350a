"""What the records of runs come to: the table of docs/search.md, and the picture of their curves."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from statistics import median_high
from xml.etree.ElementTree import Element

from avo.report.svg import node, picture, text
from avo.watch.axes import Scale
from bench.search.runs import LEVELS, OPERATORS, PROBLEMS, SEEDS, TARGETS, Place, Point, Record
from bench.tables import Table, row

COLOURS = {"mutate": "#0072b2", "tpe": "#d55e00", "random": "#7f7f7f"}
_WIDTH, _HEIGHT, _COLUMNS = 250.0, 170.0, 3
_STYLE = "text{font:11px sans-serif;fill:#555}.head{font-weight:bold}path{fill:none}"


def table(records: Sequence[Record], gluon: bool = False) -> Table:
    """A row for each problem, target and operator: what the median of its seeds took to each level.

    With ``gluon`` it has the runs that start from seeds in Gluon too, else the others; tuners' runs with Gluon are not
    asked for, and have a row where there are some.
    """
    yield row("problem", "target", "operator", "runs", *(f"to {level:.0%}" for level in LEVELS))
    yield row(*["---"] * (4 + len(LEVELS)))
    for problem, target, operator, found in _cells(records, gluon):
        if found:
            spent = [_median(found, level) for level in LEVELS]
            yield row(problem, target, f"`{operator}`", f"{len(found)} of {len(SEEDS)}", *spent)
        elif operator == "mutate" or not gluon:
            yield row(problem, target, f"`{operator}`", "not run yet", *[""] * len(LEVELS))


def draw(records: Sequence[Record]) -> str:
    """Return the curves as an SVG: a panel for each problem and target, the best attempt's share over looks."""
    width, height = _COLUMNS * _WIDTH, len(TARGETS) * _HEIGHT + 30
    parts: list[Element] = [node("style", _STYLE), node("rect", width=width, height=height, fill="white")]
    most = max((point.looks for record in records for point in record.points), default=1)
    for down, target in enumerate(TARGETS):
        for across, problem in enumerate(PROBLEMS[False]):
            place = across * _WIDTH, down * _HEIGHT
            here = [each for each in records if each.place.cell == (problem, target, False)]
            parts += _panel(f"{problem}, {target}", here, most, *place)
    for number, operator in enumerate(OPERATORS):
        left = 40 + 110.0 * number
        parts.append(node("path", d=f"M{left:.1f} {height - 12:.1f}h20", stroke=COLOURS[operator], stroke_width=2))
        parts.append(text(operator, left + 26, height - 8))
    parts.append(text("looks, on a scale of square roots", width - 12, height - 8, text_anchor="end"))
    told = "A line for each run: the share of the best score known that its best attempt has, over looks."
    made = picture("search", width, height, "Searches, predicted", told, parts)
    return made.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"


def _panel(title: str, records: Sequence[Record], most: int, left: float, top: float) -> Iterator[Element]:
    x = Scale(0, math.sqrt(most), left + 40, left + _WIDTH - 12)
    y = Scale(0, 1, top + _HEIGHT - 26, top + 26)
    yield text(title, left + 40, top + 16, class_="head")
    for share in (0, 0.5, 0.9, 1):
        yield node("path", d=f"M{x.start:.1f} {y(share):.1f}H{x.stop:.1f}", stroke="#ddd")
        yield text(f"{share:.0%}", left + 34, y(share) + 4, text_anchor="end")
    for mark in (mark for mark in (24, 120, 480, 1440) if mark <= most):
        yield text(f"{mark}", x(math.sqrt(mark)), top + _HEIGHT - 10, text_anchor="middle")
    if not records:
        yield text("not run yet", left + 90, top + _HEIGHT / 2)
    for record in records:
        steps = [(x(math.sqrt(point.looks)), y(point.tflops / record.known)) for point in record.points]
        start = f"M{steps[0][0]:.1f} {steps[0][1]:.1f}"
        line = start + "".join(f"H{across:.1f}V{up:.1f}" for across, up in steps[1:])
        yield node("path", d=line, stroke=COLOURS[record.place.operator], stroke_width=1.5, stroke_opacity=0.7)


def _cells(records: Sequence[Record], gluon: bool) -> Iterator[tuple[str, str, str, list[Record]]]:
    made = {record.place: record for record in records}
    for problem, target, operator in product(PROBLEMS[gluon], TARGETS, OPERATORS):
        here = (Place(problem, target, operator, seed, gluon) for seed in SEEDS)
        yield problem, target, operator, [made[place] for place in here if place in made]


def _median(records: Sequence[Record], level: float) -> str:
    """Return the median of attempts, of looks and of minutes; runs that did not get there count as the longest."""
    points = [record.reached(level) for record in records]

    def of(value: Callable[[Point], float]) -> float:
        return median_high([math.inf if point is None else value(point) for point in points])

    attempts, looks, seconds = of(lambda p: p.attempts), of(lambda p: p.looks), of(lambda p: p.seconds)
    if not attempts:
        return "a seed has it"
    if math.isinf(attempts):
        ends = [record.points[-1].attempts for record, point in zip(records, points, strict=True) if point is None]
        return f"not in {min(ends)}"
    return f"{attempts:.0f} attempt{'s' * (attempts != 1)}, {looks:.0f} looks, {seconds / 60:.1f} min"
