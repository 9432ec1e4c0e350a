"""Lists of any length, of which only the visible rows are drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import chop_cells
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from avo.tui.keys import CURSOR
from avo.watch.wording import printable

GUTTER = 2
"""Width in columns of the mark that shows the cursor, which must also be seen without colour."""
INDENT = 4
"""Indentation of unfolded text, in columns."""
MOST_CHARACTERS = 200_000
"""Most characters of one entry that are shown."""


class Lines(ScrollView, can_focus=True):
    """A list of ``count`` rows with a cursor. Subclasses say what a row holds."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"lines--cursor"}
    BINDINGS: ClassVar[list[BindingType]] = [
        *CURSOR,
        Binding("up", "cursor_up", "Up", show=False),
        Binding("down", "cursor_down", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "first", "First", show=False),
        Binding("end", "last", "Last", show=False),
        Binding("enter", "choose", "Open"),
    ]

    cursor = reactive(0, init=False)

    class Moved(Message):
        """The cursor is on another row, or the rows under it have changed."""

        def __init__(self, lines: "Lines") -> None:
            super().__init__()
            self.lines = lines

        @property
        def control(self) -> "Lines":
            """The list."""
            return self.lines

    class Chosen(Moved):
        """The row under the cursor was chosen."""

    class Looked(Moved):
        """Other rows have become visible."""

    def __init__(self, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self.count = 0

    def row(self, index: int) -> Text:
        """Return row ``index``, from 0, as one printable line."""
        raise NotImplementedError

    @property
    def sight(self) -> range:
        """The visible rows."""
        top = self.scroll_offset.y
        return range(min(top, self.count), min(top + max(self.size.height, 1), self.count))

    def set_count(self, count: int, *, above: int = 0) -> None:
        """Set the number of rows; ``above`` of them are new and stand above the old ones.

        The cursor stays on its row, at the same place of the screen. If it was on the first row, it stays on the first.
        """
        self.count = count
        self.virtual_size = Size(0, count)
        if above and self.cursor:
            self.scroll_to(y=self.scroll_offset.y + above, animate=False, force=True)
            self.cursor += above
        self.cursor = max(0, min(self.cursor, count - 1))
        self.refresh()
        self.post_message(self.Looked(self))

    def render_line(self, y: int) -> Strip:
        """Draw one line."""
        width, index = self.scrollable_content_region.width, y + self.scroll_offset.y
        if index >= self.count:
            return Strip.blank(width, self.rich_style)
        under = index == self.cursor
        text = Text("▸ " if under else "  ", end="", no_wrap=True)
        row = self.row(index)
        text.append_text(Text(row.plain) if under else row)  # a row's own colours may be invisible on the cursor's
        text.truncate(width, overflow="ellipsis", pad=True)
        style = self.get_component_rich_style("lines--cursor") if under else self.rich_style
        return Strip(text.render(self.app.console), width).apply_style(style)

    def validate_cursor(self, cursor: int) -> int:
        """Keep the cursor within the rows."""
        return max(0, min(cursor, self.count - 1))

    def watch_cursor(self) -> None:
        """Scroll to the cursor."""
        self.scroll_to_region(Region(0, self.cursor, 1, 1), animate=False, force=True)
        self.refresh()
        self.post_message(self.Moved(self))

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Report which rows are visible now."""
        super().watch_scroll_y(old_value, new_value)
        self.post_message(self.Looked(self))

    def on_resize(self) -> None:
        """Report which rows are visible now."""
        self.virtual_size = Size(0, self.count)
        self.post_message(self.Looked(self))

    def action_cursor_up(self) -> None:
        """Go up."""
        self.cursor -= 1

    def action_cursor_down(self) -> None:
        """Go down."""
        self.cursor += 1

    def action_page(self, pages: int) -> None:
        """Go up or down by the height of the list."""
        self.cursor += pages * max(1, self.size.height - 1)

    def action_first(self) -> None:
        """Go to the first row."""
        self.cursor = 0

    def action_last(self) -> None:
        """Go to the last row."""
        self.cursor = self.count - 1

    def action_choose(self) -> None:
        """Choose the row under the cursor."""
        if self.count:
            self.post_message(self.Chosen(self))


@dataclass(frozen=True, slots=True)
class Entry:
    """A title, and the text that unfolds below it."""

    key: str
    title: Text
    body: str


class Folds(Lines):
    """Entries that fold: ``enter`` shows or hides the text below one title, ``e`` below all."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "Fold"),
        Binding("e", "everything", "Fold all"),
    ]

    def __init__(self, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._entries: Sequence[Entry] = ()
        self._open: set[str] = set()
        self._rows: list[tuple[int, str | None]] = []
        """The entry of each row, and its line of the body; None for the title."""
        self._width = 0

    def show(self, entries: Sequence[Entry]) -> None:
        """Show ``entries``; those whose keys are known stay open."""
        if entries != self._entries:
            self._entries = entries
            self._lay_out()

    def row(self, index: int) -> Text:
        """Return a title or a line of a body."""
        place, line = self._rows[index]
        entry = self._entries[place]
        if line is not None:
            return Text(" " * INDENT + line)
        mark = " " if not entry.body else "-" if entry.key in self._open else "+"
        return Text(f"{mark} ").append_text(entry.title)

    def on_resize(self) -> None:
        """Wrap the lines again."""
        super().on_resize()
        if self.scrollable_content_region.width != self._width:
            self._lay_out()

    def action_choose(self) -> None:
        """Fold or unfold the entry that the cursor is in."""
        if self._rows:
            place = self._rows[self.cursor][0]
            self._open ^= {self._entries[place].key}
            self._lay_out()
            self.cursor = self._rows.index((place, None))

    def action_everything(self) -> None:
        """Unfold all entries; if all are unfolded, fold them."""
        keys = {entry.key for entry in self._entries if entry.body}
        place = self._rows[self.cursor][0] if self._rows else 0
        self._open = set() if keys <= self._open else keys
        self._lay_out()
        if self._rows:
            self.cursor = self._rows.index((place, None))

    def _lay_out(self) -> None:
        self._width = self.scrollable_content_region.width
        width = max(10, self._width - GUTTER - INDENT)
        self._rows = []
        for place, entry in enumerate(self._entries):
            self._rows.append((place, None))
            if entry.key in self._open:
                self._rows += [(place, line) for line in wrapped(entry.body, width)]
        self.set_count(len(self._rows))


def wrapped(text: str, width: int) -> list[str]:
    """Return ``text``, printable, in lines of at most ``width`` columns."""
    shown = printable(text[:MOST_CHARACTERS])
    lines: list[str] = []
    for line in shown.rstrip("\n").split("\n"):
        if line.isascii():
            lines += [line[start : start + width] for start in range(0, len(line), width)] or [""]
        else:
            lines += chop_cells(line, width) or [""]
    if len(text) > MOST_CHARACTERS:
        lines.append(f"... and {len(text) - MOST_CHARACTERS} characters more")
    return lines
