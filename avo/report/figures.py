"""The figures of a report, drawn from plain data: the trajectory over versions, and bars by benchmark case.

Colours are classes of the page's style sheet, so that a figure follows the reader's light or dark setting.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.etree.ElementTree import Element

from avo.report.svg import Scale, apart, node, picture, shorten, text, text_width, ticks

FONT = 12.0
"""Size of all text, in pixels."""
WIDE, NARROW = 760, 340
"""Widths that figures are drawn for, in pixels: a page, and a telephone held upright."""
COLOURS = 8
"""Number of colours for the lines of cases: classes ``c0`` to ``c7``."""
_LINE = FONT + 3.0
"""Height of a line of labels, in pixels."""


@dataclass(frozen=True, slots=True)
class CaseSpeeds:
    """The speed on one benchmark case, version by version."""

    name: str
    values: tuple[float, ...]
    """TFLOPS of each version."""


@dataclass(frozen=True, slots=True)
class BaselineLevel:
    """A baseline, drawn as a horizontal line."""

    name: str
    value: float
    """Its speed in TFLOPS."""


@dataclass(frozen=True, slots=True)
class Figure:
    """How a run got faster on some benchmark cases, as figures 5 and 6 of the AVO paper (arXiv 2603.24517) draw it."""

    name: str
    """Name of the group of cases: ``full``, ``causal`` or ``all``."""
    unit: str
    """The unit of the numbers, e.g. ``predicted TFLOPS, h100``."""
    versions: tuple[int, ...]
    """Numbers of the versions; never empty."""
    scores: tuple[float, ...]
    """Geometric mean over the cases, in TFLOPS, one for each version."""
    changes: tuple[str, ...]
    """What each version changed."""
    cases: tuple[CaseSpeeds, ...]
    levels: tuple[BaselineLevel, ...]
    """The baselines, as geometric means over the same cases."""

    @property
    def best(self) -> tuple[float, ...]:
        """The best score up to each version, in TFLOPS."""
        return tuple(self.scores[holder] for holder in self.holders)

    @property
    def holders(self) -> tuple[int, ...]:
        """For each version, the index of the one that has the best score up to it."""
        found: list[int] = []
        for place, score in enumerate(self.scores):
            found.append(place if not found or score > self.scores[found[-1]] else found[-1])
        return tuple(found)

    @property
    def records(self) -> tuple[int, ...]:
        """Indices of the versions that set a new best."""
        return tuple(place for place, holder in enumerate(self.holders) if place == holder)


@dataclass(frozen=True, slots=True)
class Bar:
    """One speed in TFLOPS."""

    name: str
    style: str
    """``seed``, ``best`` or ``published``."""
    value: float
    low: float = 0.0
    """The two ends of the speed's interval; 0 if it has none."""
    high: float = 0.0


@dataclass(frozen=True, slots=True)
class BarGroup:
    """The bars of one benchmark case."""

    name: str
    bars: tuple[Bar, ...]


def draw_trajectory(figure: Figure, width: int) -> str:
    """Return the trajectory as an SVG of ``width`` pixels.

    The running best is a solid line with a marker where a version sets a new best. There is a dashed line for each case
    of the version that holds the best, if there are several cases, and a horizontal one for each baseline.
    """
    height = 360.0 if width >= WIDE else 300.0
    top, bottom = 14.0, height - 40.0
    labels = _labels(figure, 0.36 * width, int((bottom - top) / _LINE))
    shown = [*figure.scores, *(v for line in figure.cases for v in line.values), *(x.value for x in figure.levels)]
    marks = ticks(min(shown), max(shown), 6)
    left = max(text_width(f"{mark:g}", FONT) for mark in marks) + 14.0
    right = width - 10.0 - max(text_width(words, FONT) for words, _, _ in labels)
    y = Scale(marks[0], marks[-1], bottom, top)
    last = len(figure.versions) - 1
    margin = max(0.3, 0.02 * last)
    x = Scale(-margin, last + margin, left, right)
    parts = [*_vertical_axis(marks, y, left, right), *_version_axis(figure, x, bottom)]
    for level in figure.levels:
        parts.append(node("path", d=f"M{left:.1f} {y(level.value):.1f}H{right:.1f}", class_="level"))
    if len(figure.cases) > 1:
        for number, line in enumerate(figure.cases):
            values = [line.values[holder] for holder in figure.holders]
            parts.append(node("path", d=_steps(values, x, y, right), class_=f"case c{number % COLOURS}"))
    parts.append(node("path", d=_steps(figure.best, x, y, right), class_="running"))
    parts += _markers(figure, x, y)
    places = apart([y(value) + FONT / 3 for _, value, _ in labels], _LINE, top + FONT / 2, bottom)
    parts += [
        text(words, right + 6, place, class_=style) for (words, _, style), place in zip(labels, places, strict=True)
    ]
    name = f"trajectory-{figure.name}-{width}"
    title = f"Trajectory, {figure.name} cases: {figure.unit}, over versions"
    return picture(name, width, height, title, _told(figure), parts)


def draw_bars(groups: Sequence[BarGroup], unit: str, width: int) -> str:
    """Return horizontal bars of speeds as an SVG of ``width`` pixels, one group below the other.

    A bar with an interval has a whisker from its low to its high end. There must be at least one bar.
    """
    row, head = 19.0, 26.0
    left = min(0.4 * width, max(text_width(bar.name, FONT) for group in groups for bar in group.bars) + 16)
    top = max(max(bar.value, bar.high) for group in groups for bar in group.bars)
    numbers = text_width(f"{top:.1f}", FONT) + 8
    marks = ticks(0.0, top, 6 if width >= WIDE else 3)
    x = Scale(0.0, marks[-1], left, width - numbers)
    below = sum(head + row * len(group.bars) for group in groups)
    parts = []
    for mark in marks:
        parts.append(node("path", d=f"M{x(mark):.1f} 8V{below:.1f}", class_="grid"))
        parts.append(text(f"{mark:g}", x(mark), below + 16, class_="quiet", text_anchor="middle"))
    at = 0.0
    for group in groups:
        parts.append(text(shorten(group.name, width - 8, FONT), 0, at + head - 9, class_="head"))
        at += head
        for bar in group.bars:
            parts += _bar(bar, x, at, left)
            at += row
    words = shorten(unit, width, FONT)
    parts.append(text(words, min(left, width - text_width(words, FONT)), below + 34, class_="quiet"))
    told = "; ".join(f"{group.name}: " + ", ".join(_said(bar) for bar in group.bars) for group in groups)
    return picture(f"bars-{width}", width, below + 42, f"Speed by benchmark case: {unit}", told, parts)


def _labels(figure: Figure, width: float, most: int) -> list[tuple[str, float, str]]:
    """Return text, value and class of the labels at the right end of the lines, the highest value first.

    If there is not room for all, cases are left out first: the table below the figure has them.
    """
    last = figure.holders[-1]
    labels = [("best", figure.best[-1], "strong")]
    labels += [(level.name, level.value, "level") for level in figure.levels]
    if len(figure.cases) > 1:
        cases = enumerate(figure.cases)
        labels += [(line.name, line.values[last], f"c{number % COLOURS}") for number, line in cases]
    return sorted(
        ((shorten(f"{value:.0f} {words}", width, FONT), value, style) for words, value, style in labels[:most]),
        key=lambda label: -label[1],
    )


def _vertical_axis(marks: Sequence[float], y: Scale, left: float, right: float) -> Iterator[Element]:
    for mark in marks:
        yield node("path", d=f"M{left:.1f} {y(mark):.1f}H{right:.1f}", class_="grid")
        yield text(f"{mark:g}", left - 8, y(mark) + FONT / 3, class_="quiet", text_anchor="end")


def _version_axis(figure: Figure, x: Scale, bottom: float) -> Iterator[Element]:
    last = len(figure.versions) - 1
    most = max(1, min(last, int((x.stop - x.start) / 50)))
    for mark in ticks(0, last, most):
        if mark == int(mark) and mark <= last:
            place = x(mark)
            yield text(f"v{figure.versions[int(mark)]}", place, bottom + 17, class_="quiet", text_anchor="middle")
    yield text("version", (x.start + x.stop) / 2, bottom + 34, class_="quiet", text_anchor="middle")


def _steps(values: Sequence[float], x: Scale, y: Scale, right: float) -> str:
    """Return the path of a value that stays the same until the next one."""
    path = [f"M{x(0):.1f} {y(values[0]):.1f}"]
    for place, (before, value) in enumerate(pairwise(values), start=1):
        if value != before:
            path.append(f"H{x(place):.1f}V{y(value):.1f}")
    return "".join((*path, f"H{right:.1f}"))


def _markers(figure: Figure, x: Scale, y: Scale) -> Iterator[Element]:
    records = set(figure.records)
    size = min(4.5, max(2.0, 0.3 * (x(1) - x(0))))
    for place, (number, score, change) in enumerate(zip(figure.versions, figure.scores, figure.changes, strict=True)):
        yield node(
            "circle",
            node("title", f"v{number}: {score:.1f} {figure.unit}{f': {change}' if change else ''}"),
            cx=x(place),
            cy=y(score),
            r=size if place in records else 0.7 * size,
            class_="record" if place in records else "other",
            data_version=number,
        )


def _bar(bar: Bar, x: Scale, at: float, left: float) -> Iterator[Element]:
    thick = 13.0
    end = max(bar.value, bar.high)
    yield text(shorten(bar.name, left - 8, FONT), left - 8, at + 10.5, text_anchor="end")
    yield node("rect", x=x(0), y=at, width=x(bar.value) - x(0), height=thick, class_=f"bar {bar.style}")
    if bar.low:
        middle = at + thick / 2
        path = f"M{x(bar.low):.1f} {middle:.1f}H{x(bar.high):.1f}"
        path += "".join(f"M{x(ended):.1f} {at + 3:.1f}v{thick - 6:.1f}" for ended in (bar.low, bar.high))
        yield node("path", d=path, class_="whisker")
    yield text(f"{bar.value:.1f}", x(end) + 6, at + 10.5)


def _said(bar: Bar) -> str:
    between = f" ({bar.low:.1f} to {bar.high:.1f})" if bar.low else ""
    return f"{bar.name} {bar.value:.1f}{between}"


def _told(figure: Figure) -> str:
    first, last = figure.versions[0], figure.versions[figure.holders[-1]]
    words = f"From {figure.scores[0]:.1f} at version {first} to {figure.best[-1]:.1f} at version {last}, in "
    words += f"{len(figure.records)} steps up over {len(figure.versions)} versions."
    return " ".join([words, *(f"{level.name}: {level.value:.1f}." for level in figure.levels)])
