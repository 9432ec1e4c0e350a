"""The line that names the views and leads to them."""

from collections.abc import Sequence

from rich.text import Text
from textual.events import Click
from textual.message import Message
from textual.widgets import Static


class ViewBar(Static):
    """The names of the views with their keys, the first letters. A click on a name chooses the view."""

    class Chosen(Message):
        """A view was chosen."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.view = name

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(id="views", markup=False)
        self._names = names

    def mark(self, shown: str) -> None:
        """Mark the view that is shown."""
        text = Text()
        for name in self._names:
            mark = name == shown
            text.append(f"[{name[0]}]" if mark else f" {name[0]} ", "bold reverse" if mark else "bold")
            text.append(f" {name.capitalize()}  ", "bold" if mark else "dim")
        self.update(text)

    def on_click(self, event: Click) -> None:
        """Choose the view whose name was clicked."""
        end = 0
        for name in self._names:
            end += len(f"[l] {name}  ")
            if event.x < end:
                self.post_message(self.Chosen(name))
                return
