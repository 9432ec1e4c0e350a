"""Views: the parts of a run's screen, one of which is shown at a time."""

from collections.abc import Sequence

from textual.containers import Vertical
from textual.message import Message

from avo.evaluator.problem import Baseline
from avo.tui.copying import Copy
from avo.tui.reader import Picture, Want


class Needs(Message):
    """A view needs something else from the database."""


class View(Vertical):
    """A part of a run's screen. It says what it needs from the database, and is shown what was read."""

    def want(self) -> Want:
        """Return what has to be read for the view now."""
        return Want()

    def show(self, picture: Picture, baselines: Sequence[Baseline]) -> None:
        """Show what was read, which may still be what another view needed."""
        raise NotImplementedError

    def enter(self) -> None:
        """Take the focus."""
        raise NotImplementedError

    def enter_part(self) -> None:
        """Focus the part to the right of the list, if there is one."""
        self.enter()

    def zoom(self) -> None:
        """Give the part to the right of the list the whole width, or undo that."""
        self.toggle_class("zoomed")
        self.focus_in()

    def focus_in(self) -> None:
        """Focus the list, or the part that has taken its place."""
        if self.has_class("zoomed"):
            self.enter_part()
        else:
            self.enter()

    def typed(self, purpose: str, text: str, *, done: bool) -> bool:
        """Take what was typed into the input line for ``purpose``; return whether it leads anywhere."""
        return True

    def turn(self) -> None:
        """Show two sources in another way."""

    def copies(self) -> Sequence[Copy]:
        """Return what can be copied of what is selected."""
        return ()

    def needs(self) -> None:
        """Report that ``want`` returns something else now."""
        self.post_message(Needs())
