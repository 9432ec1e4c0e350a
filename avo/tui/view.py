"""Views: the parts of a run's screen, of which one is shown at a time."""

from collections.abc import Sequence

from textual.containers import Vertical
from textual.message import Message

from avo.tui.reader import Picture, Want
from evaluator.problem import Baseline


class Needs(Message):
    """What a view wants has changed."""


class View(Vertical):
    """A part of a run's screen. It says what it needs of the database, and is shown what was read."""

    def want(self) -> Want:
        """Return what has to be read for it now."""
        return Want()

    def show(self, picture: Picture, baselines: Sequence[Baseline]) -> None:
        """Show what was read, which may still be what another view wanted."""
        raise NotImplementedError

    def enter(self) -> None:
        """Take the focus."""
        raise NotImplementedError

    def enter_part(self) -> None:
        """Focus what stands beside its list, where there is such a thing."""
        self.enter()

    def zoom(self) -> None:
        """Give what stands beside the list the whole width, or the list its place again."""
        self.toggle_class("zoomed")
        self.focus_in()

    def focus_in(self) -> None:
        """Focus the list, or what has its place."""
        if self.has_class("zoomed"):
            self.enter_part()
        else:
            self.enter()

    def needs(self) -> None:
        """Say that ``want`` has changed."""
        self.post_message(Needs())
