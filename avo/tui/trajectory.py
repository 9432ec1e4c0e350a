"""The trajectory of a run: every attempt, the running best, the cases and the published baselines."""

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Static

from avo.evaluator.problem import Baseline
from avo.tui.reader import Picture, Want
from avo.tui.view import View
from avo.watch.plot import draw, legend
from avo.watch.scores import gain, over_parent
from avo.watch.trajectory import Trajectory, overall
from avo.watch.wording import first_line

LARGEST_GAINS = 3
"""Number of versions that are named below the plot."""


class Plot(Widget):
    """The drawing, in the size that it is given."""

    shown: Trajectory | None = None
    with_cases = True

    def render(self) -> Text:
        """Draw."""
        if self.shown is None:
            return Text("Reading the attempts ...")
        return draw(self.shown, self.size.width, self.size.height, with_cases=self.with_cases)


class TrajectoryView(View, can_focus=True):
    """The plot, and what its signs mean and which versions gained most below it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("c", "cases", "Cases")]

    def __init__(self) -> None:
        super().__init__(id="trajectory-view")
        self._drawn: object = None

    def compose(self) -> ComposeResult:
        """Lay out the plot above the words."""
        yield Plot(id="plot")
        yield Static(id="legend", markup=False)
        yield Static(id="gains", markup=False)

    def want(self) -> Want:
        """Return all attempts."""
        return Want(groups=True)

    def show(self, picture: Picture, baselines: Sequence[Baseline]) -> None:
        """Draw the plot again if there are new attempts."""
        what = picture.view.run.id, len(picture.tried.ids), len(picture.versions)
        if what == self._drawn or not picture.want.groups:
            return
        self._drawn = what
        plot = self.query_one(Plot)
        plot.shown = shown = overall(picture.view.run, picture.versions, picture.tried, baselines)
        plot.refresh()
        if shown:
            self.query_one("#legend", Static).update(Text(f"{shown.unit}   ").append_text(legend(shown)))
            self.query_one("#gains", Static).update(_gains(picture))

    def enter(self) -> None:
        """Focus the plot."""
        self.focus()

    def action_cases(self) -> None:
        """Show or hide the lines of the cases."""
        plot = self.query_one(Plot)
        plot.with_cases = not plot.with_cases
        plot.refresh()


def _gains(picture: Picture) -> Text:
    """Return the versions with the largest gains, one on each line."""
    by_number = picture.by_number
    gained = [(grown, version) for version in picture.versions if (grown := gain(version, by_number)) is not None]
    lines = [
        Text.assemble((f"{over_parent(each, by_number):>12} v{each.number}  ", "bold"), first_line(each.change))
        for _, each in sorted(gained, key=lambda found: -found[0])[:LARGEST_GAINS]
    ]
    return Text("\n", no_wrap=True, overflow="ellipsis").join(lines)
