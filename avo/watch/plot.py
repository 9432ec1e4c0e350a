"""A trajectory drawn with characters, for the terminal UI and for Markdown."""

from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise
from operator import itemgetter

from rich.text import Text

from avo.watch.axes import Box, Scale, apart, base, beside, counts, ticks
from avo.watch.trajectory import Trajectory

LEAST = (40, 10)
"""Fewest columns and rows in which a trajectory can be drawn."""
_CASES = ("cyan", "magenta", "yellow", "blue", "red", "white")
_BEST, _QUIET, _FAULT = "bold green", "dim", "red"
_HEAVY, _LIGHT = tuple("━┃┛┏┓┗"), tuple("─│╯╭╮╰")
"""The parts of a line: across, up and down, from the left up, from below to the right, from the left down, from above
to the right.
"""
_NEW, _OTHER, _REFUSED, _FAULTY, _LEVEL = "●", "○", "·", "x", "┄"
_ON_BEST = "•"
"""A refused attempt on the line of the best, which a thin dot would interrupt."""
_ACROSS = "attempts"
"""What the x axis counts."""
_WORDS = 26
"""Most characters of a label."""


class _Canvas:
    """Characters in rows and columns, each with a style."""

    def __init__(self, width: int, height: int) -> None:
        self._cells = [[(" ", "")] * width for _ in range(height)]

    def put(self, column: int, row: int, text: str, style: str) -> None:
        """Write ``text`` from a place on; what is outside is left out."""
        if not 0 <= row < len(self._cells):
            return
        cells = self._cells[row]
        for place, character in enumerate(text, column):
            if 0 <= place < len(cells):
                cells[place] = (character, style)

    def style(self, column: int, row: int) -> str:
        """Return the style of what is at a place."""
        return self._cells[row][column][1]

    def text(self) -> Text:
        """Return the rows as lines, without blanks at their ends."""
        lines = []
        for cells in self._cells:
            line = Text()
            for style, run in groupby(cells, key=itemgetter(1)):
                line.append("".join(character for character, _ in run), style)
            line.rstrip()
            lines.append(line)
        return Text("\n", no_wrap=True).join(lines)


def draw(shown: Trajectory, width: int, height: int, *, with_cases: bool = True) -> Text:
    """Return the trajectory in ``width`` columns and ``height`` rows; at least ``LEAST`` are taken.

    The x axis counts attempts. The running best is a heavy step line, cases are light ones, baselines are named at
    theirs. Attempts without a score are marked in the row above the x axis.
    """
    width, height = max(width, LEAST[0]), max(height, LEAST[1])
    rows = height - 3
    several = with_cases and len(shown.cases) > 1
    values = list(shown.shown())
    marks = ticks(base(values), max(values), min(10, rows // 2))
    labels = shown.labels(rows, with_cases=with_cases)
    most = min(_WORDS, width // 3)
    labels = [(_cut(words, most), value, style) for words, value, style in labels]
    left = max(len(f"{mark:g}") for mark in marks) + 1
    right = width - 2 - max(len(_ACROSS), *(len(words) for words, _, _ in labels))
    y = Scale(marks[0], marks[-1], rows - 1, 0)
    x = Scale(0, max(shown.attempts, 1), left, right)
    canvas = _Canvas(width, height)
    _axes(canvas, shown, marks, x, y, rows)
    for level in shown.levels:
        canvas.put(left, round(y(level.value)), _LEVEL * (right - left + 1), _QUIET)
    for number, line in enumerate(shown.cases if several else ()):
        _line(canvas, _path(shown.steps(line.values), x, y), right, _LIGHT, _case_style(number))
    _line(canvas, _path(shown.steps(shown.scores), x, y), right, _HEAVY, _BEST)
    for place, tflops in shown.refused:
        column, row = round(x(place)), round(y(tflops))
        mark, style = (_ON_BEST, _BEST) if canvas.style(column, row) == _BEST else (_REFUSED, "")
        canvas.put(column, row, mark, style)
    records = set(shown.records)
    for index in sorted(range(len(shown.versions)), key=lambda index: index in records):
        mark, style = (_NEW, _BEST) if index in records else (_OTHER, _QUIET)
        canvas.put(round(x(shown.places[index])), round(y(shown.scores[index])), mark, style)
    _ideas(canvas, shown, x, y, rows, most)
    for place in shown.faulty:
        canvas.put(round(x(place)), rows, _FAULTY, _FAULT)
    for (words, _, style), row in zip(labels, _rows(labels, y, rows), strict=True):
        canvas.put(right + 2, row, words, {"best": _BEST, "level": _QUIET}.get(style) or _case_style(int(style)))
    return canvas.text()


def legend(shown: Trajectory) -> Text:
    """Return in one line what the signs of a drawing mean, with their numbers."""
    others = len(shown.versions) - len(shown.records)
    parts = [(f"{_NEW} new best {len(shown.records)}", _BEST)]
    parts += [(f"{_OTHER} other version {others}", _QUIET)] * bool(others)
    parts += [(f"{_REFUSED} correct, no version {len(shown.refused)}", "")]
    parts += [(f"{_FAULTY} faulty or unverified {len(shown.faulty)}", _FAULT)]
    parts += [(f"{_LEVEL} published", _QUIET)] * bool(shown.levels)
    return Text("   ").join(Text(words, style) for words, style in parts)


def _axes(canvas: _Canvas, shown: Trajectory, marks: Sequence[float], x: Scale, y: Scale, rows: int) -> None:
    left, right = int(x.start), int(x.stop)
    for row in range(rows + 1):
        canvas.put(left - 1, row, "│", _QUIET)
    for mark in marks:
        words = f"{mark:g}"
        canvas.put(left - 1 - len(words), round(y(mark)), f"{words}┤", _QUIET)
    canvas.put(left - 1, rows + 1, "└" + "─" * (right - left + 1), _QUIET)
    free = 0
    for count in counts(shown.attempts, (right - left) // 10):
        words, place = f"{count:,}", round(x(count))
        start = max(0, min(place - len(words) // 2, right + 1 - len(words)))
        if start >= free:
            canvas.put(place, rows + 1, "┬", _QUIET)
            canvas.put(start, rows + 2, words, _QUIET)
            free = start + len(words) + 1
    canvas.put(right + 2, rows + 2, _ACROSS, _QUIET)


def _path(steps: Iterable[tuple[int, float]], x: Scale, y: Scale) -> list[tuple[int, int]]:
    """Return column and row of each step; if several are in one column, only the last counts."""
    return list({round(x(place)): round(y(value)) for place, value in steps}.items())


def _line(canvas: _Canvas, path: Sequence[tuple[int, int]], right: int, parts: Sequence[str], style: str) -> None:
    across, along, left_up, up_right, left_down, down_right = parts
    for (column, row), (until, after) in pairwise([*path, (right + 1, path[-1][1])]):
        canvas.put(column, row, across * (until - column), style)
        if until > right:
            break
        canvas.put(until, row, across if after == row else left_up if after < row else left_down, style)
        for between in range(min(row, after) + 1, max(row, after)):
            canvas.put(until, between, along, style)
    # The corner at the end of each rise was written over by the stretch that begins there.
    for (_, row), (column, after) in pairwise(path):
        if after != row:
            canvas.put(column, after, up_right if after < row else down_right, style)


def _ideas(canvas: _Canvas, shown: Trajectory, x: Scale, y: Scale, rows: int, most: int) -> None:
    """Write what new bests did next to their marks, where there is room."""
    ideas = [(index, _cut(f"v{shown.versions[index]} {words}", most)) for index, words in shown.ideas]
    at = [(round(x(shown.places[index])) + 0.5, round(y(shown.scores[index])) + 0.5) for index, _ in ideas]
    marks = [(*place, float(len(words))) for place, (_, words) in zip(at, ideas, strict=True)]
    boxes = beside(marks, 1.0, (0.5, 0.5), Box(x.start, 0, x.stop, rows))
    for box, (_, words) in zip(boxes, ideas, strict=True):
        if box:
            canvas.put(round(box.left), round(box.top), words, "")


def _rows(labels: Sequence[tuple[str, float, str]], y: Scale, rows: int) -> list[int]:
    """Return a row for each label, as near to its line as the others allow."""
    return [int(row + 0.5) for row in apart([round(y(value)) for _, value, _ in labels], 1, 0, rows - 1)]


def _case_style(number: int) -> str:
    return _CASES[number % len(_CASES)]


def _cut(words: str, most: int) -> str:
    return words if len(words) <= most else words[: most - 1].rstrip() + "…"
