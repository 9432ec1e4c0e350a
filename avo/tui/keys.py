"""Widgets whose cursor also moves with j and k."""

from collections.abc import Iterable
from typing import Any, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import ScrollableContainer
from textual.widgets import DataTable, OptionList
from textual.widgets.data_table import RowKey

CURSOR: list[BindingType] = [
    Binding("j", "cursor_down", "Down", show=False),
    Binding("k", "cursor_up", "Up", show=False),
]


class Options(OptionList):
    """A list of options."""

    BINDINGS: ClassVar[list[BindingType]] = [*CURSOR, Binding("enter", "select", "Open")]


class Table(DataTable[Any]):
    """A table whose rows have keys."""

    BINDINGS: ClassVar[list[BindingType]] = [*CURSOR, Binding("enter", "select_cursor", "Open")]

    @property
    def chosen(self) -> str | None:
        """Key of the row under the cursor; None in an empty table."""
        return self.coordinate_to_cell_key(self.cursor_coordinate).row_key.value if self.row_count else None

    def _update_dimensions(self, new_rows: Iterable[RowKey]) -> None:
        super()._update_dimensions(new_rows)
        self._clear_caches()  # rows that were drawn before the columns had their new widths, and cut


class Scroll(ScrollableContainer):
    """A page that scrolls in both directions."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", "Down", show=False),
        Binding("k", "scroll_up", "Up", show=False),
    ]
