"""Copying: what can be copied of what is selected, and the list to choose it from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.screen import ModalScreen
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from avo.tui.keys import Options
from avo.watch.wording import count


@dataclass(frozen=True, slots=True)
class Copy:
    """A text for the clipboard."""

    label: str
    text: str


def copies_of(run: str, name: str, digest: str, source: str, options: str) -> tuple[Copy, ...]:
    """Return what can be copied of an attempt.

    ``name`` is what follows the name of the run, ``@4`` for a version and ``#38`` for an attempt; ``options`` end each
    command.
    """
    return (
        Copy("source", source),
        Copy("digest", digest),
        Copy("command to show it", f"avo show {run}{name}{options}"),
        Copy("command to start a run from it", f"avo run --from {run}{name}{options}"),
    )


class CopyScreen(ModalScreen[Copy | None]):
    """Offers texts to copy until one is chosen."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,y", "dismiss(None)", "Close"), ("q", "app.quit", "Quit")]

    def __init__(self, copies: Sequence[Copy]) -> None:
        super().__init__()
        self._copies = copies

    def compose(self) -> ComposeResult:
        """Lay out the list."""
        box = Options(*(_option(copy) for copy in self._copies), id="copies")
        box.border_title = "Copy"
        box.border_subtitle = "enter: copy, escape: close"
        yield box

    def on_option_list_option_selected(self, message: OptionList.OptionSelected) -> None:
        """Report what was chosen."""
        self.dismiss(self._copies[message.option_index])


def _option(copy: Copy) -> Option:
    lines = copy.text.count("\n")
    shown = f"{lines} lines" if lines else copy.text if len(copy.text) < 60 else f"{count(len(copy.text))} characters"
    return Option(Text.assemble((f"{copy.label}  ", "bold"), (shown, "dim"), no_wrap=True, overflow="ellipsis"))
