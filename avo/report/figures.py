"""The figures of a report, drawn from plain data: the trajectory over attempts, bars by benchmark case and by edit.

Colours are classes of the page's style sheet, so that a figure follows the reader's light or dark setting.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from avo.evaluator.units import figure as digits
from avo.lineage_db.ablated import Ablation
from avo.report.svg import node, picture, shorten, text, text_width
from avo.watch.axes import Box, Scale, apart, base, beside, counts, ticks
from avo.watch.trajectory import Trajectory
from avo.watch.wording import counted, cut, percent

FONT = 12.0
"""Size of all text, in pixels."""
WIDE, NARROW = 760, 340
"""Widths that figures are drawn for, in pixels: a page, and a telephone held upright."""
COLOURS = 8
"""Number of colours for the lines of cases: classes ``c0`` to ``c7``."""
_LINE = FONT + 3.0
"""Height of a line of labels, in pixels."""
_STRIP = 14.0
"""Height of the strip below the plot that has the attempts without a score, in pixels."""
_TITLE = 120
"""Most characters of a change in the title of a mark."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One speed, in the unit of the figure."""

    name: str
    style: str
    """``seed``, ``best``, ``published`` or ``roofline``."""
    value: float
    low: float = 0.0
    """The two ends of the speed's interval; 0 if it has none."""
    high: float = 0.0


@dataclass(frozen=True, slots=True)
class BarGroup:
    """The bars of one benchmark case."""

    name: str
    bars: tuple[Bar, ...]


def draw_trajectory(figure: Trajectory, width: int) -> str:
    """Return the trajectory as an SVG of ``width`` pixels. The x axis counts attempts.

    The running best is a solid line with a marker where a version sets a new best, and what it did next to the largest
    of them. There is a dashed line for each case of the version that holds the best, if there are several cases, and a
    horizontal one for each baseline. Correct attempts that are no versions are dots, those without a score are marks
    below the plot.
    """
    height = 400.0 if width >= WIDE else 320.0
    top, bottom = 14.0, height - 40.0 - (_STRIP if figure.faulty else 0.0)
    labels = [
        (shorten(words, 0.36 * width, FONT), value, style)
        for words, value, style in figure.labels(int((bottom - top) / _LINE))
    ]
    shown = list(figure.shown())
    marks = ticks(base(shown), max(shown), 8)
    left = max(text_width(f"{mark:g}", FONT) for mark in marks) + 14.0
    right = width - 10.0 - max(text_width(words, FONT) for words, _, _ in labels)
    y = Scale(marks[0], marks[-1], bottom, top)
    x = Scale(0, max(figure.attempts, 1), left + 2, right - 2)
    parts = [*vertical_axis(marks, y, left, right), *_attempts_axis(figure, x, height - 40.0)]
    for level in figure.levels:
        parts.append(node("path", d=f"M{left:.1f} {y(level.value):.1f}H{right:.1f}", class_="level"))
    if figure.refused:
        parts.append(_dots([(x(place), y(tflops)) for place, tflops in figure.refused], "refused"))
    if figure.faulty:
        parts.append(_dots([(x(place), bottom + _STRIP - 8) for place in figure.faulty], "faulty", "v6"))
    if len(figure.cases) > 1:
        for number, line in enumerate(figure.cases):
            parts.append(
                node("path", d=steps(figure.steps(line.values), x, y, right), class_=f"case c{number % COLOURS}")
            )
    if figure.bands:
        edges = [figure.steps(edge) for edge in zip(*figure.bands, strict=True)]
        parts.append(node("path", d=band(edges, x, y, right), class_="band"))
    parts.append(node("path", d=steps(figure.steps(figure.scores), x, y, right), class_="running"))
    parts += _markers(figure, x, y)
    parts += _ideas(figure, x, y, Box(left, 0.0, right, bottom), min(180.0, 0.3 * width))
    parts += end_labels([(words, value, _style(style)) for words, value, style in labels], y, right, top, bottom)
    name = f"trajectory-{figure.name}-{width}"
    title = f"Trajectory, {figure.name} cases: {figure.unit}, over attempts"
    return picture(name, width, height, title, _told(figure), parts)


def draw_bars(groups: Sequence[BarGroup], unit: str, width: int) -> str:
    """Return horizontal bars of speeds as an SVG of ``width`` pixels, one group below the other.

    A bar with an interval has a whisker from its low to its high end. There must be at least one bar.
    """
    row, head = 19.0, 26.0
    left = min(0.4 * width, max(text_width(bar.name, FONT) for group in groups for bar in group.bars) + 16)
    top = max(max(bar.value, bar.high) for group in groups for bar in group.bars)
    numbers = text_width(digits(top), FONT) + 8
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
            parts += _bar(bar, x, at, left, digits(bar.value))
            at += row
    words = shorten(unit, width, FONT)
    parts.append(text(words, min(left, width - text_width(words, FONT)), below + 34, class_="quiet"))
    told = "; ".join(f"{group.name}: " + ", ".join(_said(bar) for bar in group.bars) for group in groups)
    return picture(f"bars-{width}", width, below + 42, f"Speed by benchmark case: {unit}", told, parts)


def draw_edits(found: Ablation, width: int) -> str:
    """Return what each edit of a version is worth as an SVG of ``width`` pixels: bars from zero to either side.

    A whisker goes as far as the worth is not told apart; an edit that cannot be taken away alone has words in the place
    of a bar. There must be at least one edit.
    """
    row, head = 19.0, 8.0
    left = min(0.45 * width, max(text_width(each.name, FONT) for each in found.edits) + 16)
    words = [percent(each.worth, each.width) for each in found.edits]
    bars = {
        place: Bar(each.name, "seed" if each.useless else "best", worth, worth - each.spread, worth + each.spread)
        for place, each in enumerate(found.edits)
        if (worth := each.worth) is not None
    }
    ends = [0.0, *(end for bar in bars.values() for end in (bar.low, bar.high))]
    marks = ticks(min(ends), max(ends), 6 if width >= WIDE else 3)
    numbers = [f"{100 * mark:+g}%" if mark else "0" for mark in marks]
    right = max(*(text_width(each, FONT) + 8 for each in words), text_width(numbers[-1], FONT) / 2)
    x = Scale(marks[0], marks[-1], left, width - right)
    below = head + row * len(found.edits)
    parts = []
    for mark, number in zip(marks, numbers, strict=True):
        parts.append(node("path", d=f"M{x(mark):.1f} 0V{below:.1f}", class_="grid" if mark else "zero"))
        parts.append(text(number, x(mark), below + 16, class_="quiet", text_anchor="middle"))
    for place, each in enumerate(found.edits):
        at = head + row * place
        if place in bars:
            parts += _bar(bars[place], x, at, left, words[place])
        else:
            parts.append(text(shorten(each.name, left - 8, FONT), left - 8, at + 10.5, text_anchor="end"))
            parts.append(text(shorten(each.words, width - x(0) - 6, FONT), x(0) + 6, at + 10.5, class_="quiet"))
    told = "; ".join(f"{each.name}: {said or each.words}" for each, said in zip(found.edits, words, strict=True))
    return picture(f"edits-{width}", width, below + 24, found.title, told, parts)


def _style(name: str) -> str:
    """Return the class of a label of ``Trajectory.labels``."""
    return {"best": "strong", "level": "level"}.get(name) or f"c{int(name) % COLOURS}"


def vertical_axis(marks: Sequence[float], y: Scale, left: float, right: float) -> Iterator[Element]:
    """Yield a line and a number for each mark of the y axis."""
    for mark in marks:
        yield node("path", d=f"M{left:.1f} {y(mark):.1f}H{right:.1f}", class_="grid")
        yield text(f"{mark:g}", left - 8, y(mark) + FONT / 3, class_="quiet", text_anchor="end")


def _attempts_axis(figure: Trajectory, x: Scale, bottom: float) -> Iterator[Element]:
    for mark in counts(figure.attempts, int((x.stop - x.start) / 80)):
        yield text(f"{mark:,}", x(mark), bottom + 17, class_="quiet", text_anchor="middle")
    yield text("attempts", (x.start + x.stop) / 2, bottom + 34, class_="quiet", text_anchor="middle")


def end_labels(
    labels: Sequence[tuple[str, float, str]], y: Scale, right: float, top: float, bottom: float
) -> Iterator[Element]:
    """Yield the labels at the ends of lines, apart from each other: words, value and class, the highest first."""
    places = apart([y(value) + FONT / 3 for _, value, _ in labels], _LINE, top + FONT / 2, bottom)
    for (words, _, style), place in zip(labels, places, strict=True):
        yield text(words, right + 6, place, class_=style)


def steps(values: Iterable[tuple[float, float]], x: Scale, y: Scale, right: float) -> str:
    """Return the path of a value that stays the same until the next one, and to the right end after the last."""
    first, *later = [f"{x(place):.1f} {y(value):.1f}".split() for place, value in values]
    return "".join((f"M{first[0]} {first[1]}", *(f"H{place}V{value}" for place, value in later), f"H{right:.1f}"))


def band(edges: Iterable[Iterable[tuple[float, float]]], x: Scale, y: Scale, right: float) -> str:
    """Return the outline between two lines of ``steps``: what cannot be told apart from the running best."""
    corners: list[list[str]] = []
    for edge in edges:
        steps = list(edge)
        ends = [*(x(place) for place, _ in steps[1:]), right]
        along = [(at, value) for (place, value), end in zip(steps, ends, strict=True) for at in (x(place), end)]
        corners.append([f"{at:.1f} {y(value):.1f}" for at, value in along])
    return f"M{'L'.join([*corners[0], *reversed(corners[1])])}Z"


def _dots(points: Iterable[tuple[float, float]], style: str, mark: str = "h0") -> Element:
    """Return points as one path of equal marks. By default they are lines without length, which round ends make dots.

    Points that fall into one pixel are one dot, so that the size of a picture does not grow with the run.
    """
    pixels = sorted({(round(x), round(y)) for x, y in points})
    return node("path", d="".join(f"M{x} {y}{mark}" for x, y in pixels), class_=style)


def _ideas(figure: Trajectory, x: Scale, y: Scale, frame: Box, most: float) -> Iterator[Element]:
    """Yield what new bests did, next to their marks, where there is room."""
    ideas = [(index, shorten(f"v{figure.versions[index]} {words}", most, FONT)) for index, words in figure.ideas]
    marks = [(x(figure.places[index]), y(figure.scores[index]), text_width(words, FONT)) for index, words in ideas]
    for box, (_, words) in zip(beside(marks, FONT, (6.0, 2.0), frame), ideas, strict=True):
        if box:
            yield text(words, box.left, box.bottom - 2, class_="idea")


def _markers(figure: Trajectory, x: Scale, y: Scale) -> Iterator[Element]:
    records = set(figure.records)
    size = min(4.5, max(2.0, 0.3 * (x.stop - x.start) / len(figure.versions)))
    for place, (number, score) in enumerate(zip(figure.versions, figure.scores, strict=True)):
        change = cut(figure.changes[place], _TITLE)
        yield node(
            "circle",
            node("title", f"v{number}: {digits(score)} {figure.unit}{f': {change}' if change else ''}"),
            cx=x(figure.places[place]),
            cy=y(score),
            r=size if place in records else 0.7 * size,
            class_="record" if place in records else "other",
            data_version=number,
        )


def _bar(bar: Bar, x: Scale, at: float, left: float, words: str) -> Iterator[Element]:
    thick = 13.0
    start, end = sorted((x(0), x(bar.value)))
    yield text(shorten(bar.name, left - 8, FONT), left - 8, at + 10.5, text_anchor="end")
    yield node("rect", x=start, y=at, width=end - start, height=thick, class_=f"bar {bar.style}")
    if bar.low or bar.high:
        middle = at + thick / 2
        path = f"M{x(bar.low):.1f} {middle:.1f}H{x(bar.high):.1f}"
        path += "".join(f"M{x(ended):.1f} {at + 3:.1f}v{thick - 6:.1f}" for ended in (bar.low, bar.high))
        yield node("path", d=path, class_="whisker")
    yield text(words, max(end, x(bar.high)) + 6, at + 10.5)


def _said(bar: Bar) -> str:
    between = f" ({digits(bar.low)} to {digits(bar.high)})" if bar.low else ""
    return f"{bar.name} {digits(bar.value)}{between}"


def _told(figure: Trajectory) -> str:
    first, last = figure.versions[0], figure.versions[figure.holders[-1]]
    words = f"From {digits(figure.scores[0])} at version {first} to {digits(figure.best[-1])} at version {last}, with "
    records, versions = counted(len(figure.records), "new best"), counted(len(figure.versions), "version")
    words += f"{records} among {versions} and {counted(figure.attempts, 'attempt')}."
    return " ".join([words, *(f"{level.name}: {digits(level.value)}." for level in figure.levels)])
