"""The help screen: the keys."""

from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.screen import ModalScreen
from textual.widgets import Static

_KEYS = (
    ("up down, j k", "move, or scroll"),
    ("enter", "choose a run; go to a version's detail"),
    ("escape", "back to the lineage"),
    ("b", "jump to the best version"),
    ("1 2 3 4", "scores, source, diff to parent, attempts"),
    ("left right", "scroll long lines"),
    ("tab", "next part of the screen"),
    ("r", "list of runs"),
    ("q", "quit"),
)


class HelpScreen(ModalScreen[None]):
    """The keys, until one is pressed."""

    # The keys of the application do not reach through a modal screen.
    BINDINGS: ClassVar[list[BindingType]] = [
        ("escape,question_mark,enter", "dismiss", "Close"),
        ("q", "app.quit", "Quit"),
    ]

    def compose(self) -> ComposeResult:
        """Lay out the table."""
        table = Table.grid(padding=(0, 3, 0, 0))
        for key, meaning in _KEYS:
            table.add_row(Text(key, "bold"), meaning)
        box = Static(table, id="help")
        box.border_title = "Keys"
        box.border_subtitle = "escape to close"
        yield box
