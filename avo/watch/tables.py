"""Tables and texts for a terminal: what candidates and operators wrote cannot command it."""

from rich.table import Table
from rich.text import Text

from avo.watch.wording import printable


def one_line(text: str) -> str:
    """Return ``text`` on one line, without control characters."""
    return " ".join(printable(text).split())


def table(*columns: str, title: str = "", gap: int = 2) -> Table:
    """Return an empty table without rules; a column whose name starts with ``>`` is aligned to the right.

    ``gap``: blanks between columns.
    """
    made = Table(
        box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="bold", title=title or None,
        title_justify="left", title_style="",
    )  # fmt: skip
    for column in columns:
        right = column.startswith(">")
        made.add_column(column.lstrip(">"), justify="right" if right else "left", overflow="fold", no_wrap=right)
    return made


def row(target: Table, *cells: object, style: str = "") -> None:
    """Add a line to ``target``; None is an empty cell."""
    target.add_row(*(Text("" if cell is None else one_line(str(cell))) for cell in cells), style=style or None)


def gain(new: float, old: float | None) -> float | None:
    """Return ``new / old - 1``, None where there is nothing to compare with."""
    return new / old - 1 if old else None
