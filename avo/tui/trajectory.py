"""The trajectory of a run, drawn as in figure 5 of the AVO paper (arXiv 2603.24517).

It shows the running best of the geometric mean, with a mark where a version sets a new one, a line for each benchmark
case, and the published baselines as horizontal lines.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from string import ascii_lowercase
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static
from textual_plotext import PlotextPlot

from avo.tui.reader import Picture, Want
from avo.tui.view import View
from avo.watch.scores import BaselineComparison, compare, gain, geomean
from avo.watch.wording import first_line, percent, unit
from evaluator.problem import Baseline
from lineage_db.records import Version

LARGEST_GAINS = 3
"""Number of versions that are named below the plot."""
MOST_TICKS = 8
_GAP = "   "
_COLOURS = ("cyan", "magenta", "yellow", "blue", "red", "white")
_Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class CaseLine:
    """A line of the plot: the speed on one benchmark case."""

    label: str
    points: tuple[_Point, ...]


@dataclass(frozen=True, slots=True)
class Plot:
    """The content of the plot."""

    best: tuple[_Point, ...]
    """The running best, as a step curve."""
    records: tuple[_Point, ...]
    """The versions that set a new best."""
    cases: tuple[CaseLine, ...]
    baselines: tuple[BaselineComparison, ...]


def trajectory(versions: Sequence[Version], places: Sequence[float], baselines: Sequence[Baseline]) -> Plot:
    """Return the plot of the first ``len(places)`` versions; ``places`` are their positions on the x axis."""
    versions, places = versions[: len(places)], list(accumulate(places, max))  # seeds are judged in any order
    best: list[_Point] = []
    records: list[_Point] = []
    for place, version in zip(places, versions, strict=True):
        speed = geomean(version)
        if not best or speed > best[-1][1]:
            if best:
                best.append((place, best[-1][1]))
            best.append((place, speed))
            records.append((place, speed))
        else:
            best.append((place, best[-1][1]))
    score = versions[0].attempt.evaluation.score if versions else None
    names = [case.case for case in score.cases] if score else []
    cases = tuple(
        CaseLine(name, tuple(zip(places, (_tflops(version, name) for version in versions), strict=True)))
        for name in names
    )
    return Plot(tuple(best), tuple(records), cases, tuple(compare(score, baselines)) if score else ())


def _tflops(version: Version, case: str) -> float:
    score = version.attempt.evaluation.score
    return next((found.tflops for found in score.cases if found.case == case), 0.0) if score else 0.0


class TrajectoryView(View, can_focus=True):
    """The plot, and its legend below."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("x", "axis", "Versions/attempts"),
        Binding("c", "cases", "Cases"),
    ]

    def __init__(self) -> None:
        super().__init__(id="trajectory-view")
        self._picture: Picture | None = None
        self._baselines: Sequence[Baseline] = ()
        self._by_attempts = False
        self._with_cases = True
        self._drawn: object = None

    def compose(self) -> ComposeResult:
        """Lay out the plot above the words."""
        yield PlotextPlot()
        yield Static(id="legend", markup=False)
        yield Static(id="gains", markup=False)

    def want(self) -> Want:
        """Return the ordinals of versions, if the x axis counts attempts."""
        return Want(ordinals=self._by_attempts)

    def show(self, picture: Picture, baselines: Sequence[Baseline]) -> None:
        """Draw the plot again if there are new versions."""
        self._picture, self._baselines = picture, baselines
        what = (
            picture.view.run.id,
            len(picture.versions),
            picture.ordinals,
            self._by_attempts,
            self._with_cases,
        )
        if what != self._drawn and picture.want.ordinals == self._by_attempts:
            self._drawn = what
            self._draw(picture)

    def on_resize(self) -> None:
        """Lay out the legend again."""
        if self._picture:
            self._drawn = None
            self.show(self._picture, self._baselines)

    def enter(self) -> None:
        """Focus the plot."""
        self.focus()

    @property
    def axis(self) -> str:
        """The unit of the x axis."""
        return "attempts" if self._by_attempts else "versions"

    def action_axis(self) -> None:
        """Let the x axis count versions or attempts."""
        self._by_attempts = not self._by_attempts
        self.needs()

    def action_cases(self) -> None:
        """Show or hide the lines of the cases."""
        self._with_cases = not self._with_cases
        if self._picture:
            self.show(self._picture, self._baselines)

    def _draw(self, picture: Picture) -> None:
        places: Sequence[float] = picture.ordinals if self._by_attempts else range(len(picture.versions))
        drawn = trajectory(picture.versions, places, self._baselines)
        plot = self.query_one(PlotextPlot)
        plt = plot.plt
        plt.clear_figure()
        for number, baseline in enumerate(drawn.baselines):
            plt.hline(baseline.published, "gray")
            plt.text(f"{number + 1}", x=_right(drawn), y=baseline.published, color="gray", alignment="right")
        if self._with_cases:
            for number, line in enumerate(drawn.cases):
                colour = _COLOURS[number % len(_COLOURS)]
                plt.plot(*zip(*line.points, strict=True), marker="dot", color=colour)
                x, y = line.points[-1]
                plt.text(_letter(number), x=x, y=y, color=colour, alignment="center")
        if drawn.best:
            plt.plot(*zip(*drawn.best, strict=True), marker="braille", color="green")
            plt.scatter(*zip(*drawn.records, strict=True), marker="●", color="green")
        plt.xlabel(self.axis)
        ticks = _ticks(_right(drawn))
        plt.xticks([*map(float, ticks)], [f"{tick:,}" for tick in ticks])
        best = picture.view.best
        score = best.attempt.evaluation.score if best else None
        if score:
            plt.ylabel(unit(score))
        plot.refresh()
        self.query_one("#legend", Static).update(_legend(drawn, self._with_cases, self.size.width - 2))
        self.query_one("#gains", Static).update(_gains(picture))


def _ticks(right: float) -> list[int]:
    """Return at most ``MOST_TICKS`` round numbers from 0 to ``right``."""
    steps = (factor * 10**power for power in range(10) for factor in (1, 2, 5))
    step = next(step for step in steps if right / step < MOST_TICKS)
    return list(range(0, int(right) + 1, step))


def _right(drawn: Plot) -> float:
    return drawn.best[-1][0] if drawn.best else 0.0


def _letter(number: int) -> str:
    return ascii_lowercase[number % len(ascii_lowercase)]


def _legend(drawn: Plot, with_cases: bool, width: int) -> Text:
    """Return the legend, with as many items on a line as fit ``width``."""
    if not drawn.best:
        return Text("No version yet.")
    items: list[tuple[str, str]] = [(f"● new best, {drawn.best[-1][1]:.1f} now", "green bold")]
    for number, line in enumerate(drawn.cases if with_cases else ()):
        items.append((f"{_letter(number)} {line.label} {line.points[-1][1]:.1f}", _COLOURS[number % len(_COLOURS)]))
    for number, found in enumerate(drawn.baselines, 1):
        part = "" if found.shared == found.total else f", {found.shared} of {found.total} cases"
        items.append((f"{number} {found.name}, published {found.published:.1f}{part}", "dim"))
    text, used = Text(), 0
    for words, style in items:
        if used:
            wraps = used + len(_GAP) + len(words) > width
            text.append("\n" if wraps else _GAP)
            used = 0 if wraps else used + len(_GAP)
        text.append(words, style)
        used += len(words)
    return text


def _gains(picture: Picture) -> Text:
    """Return the versions with the largest gains, one on each line."""
    by_number = picture.by_number
    gained = [(grown, version) for version in picture.versions if (grown := gain(version, by_number)) is not None]
    lines = [
        Text.assemble((f"{percent(grown):>7} v{version.number}  ", "bold"), first_line(version.change))
        for grown, version in sorted(gained, key=lambda each: -each[0])[:LARGEST_GAINS]
    ]
    return Text("\n", no_wrap=True, overflow="ellipsis").join(lines)
