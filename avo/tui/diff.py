"""Two sources compared, as a unified diff or side by side."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher, unified_diff
from itertools import zip_longest

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from avo.tui.tables import Drawn
from avo.watch.wording import printable

CONTEXT = 3
"""Number of equal lines around each change."""
SIDES_FROM = 100
"""Width in columns from which there is room for two sources side by side."""


def code(text: str, language: str, *, line_numbers: bool) -> RenderableType:
    """Return a source, highlighted and printable."""
    return Drawn(_syntax(printable(text), language, line_numbers=line_numbers))


def _syntax(text: str, language: str, *, line_numbers: bool) -> Syntax:
    return Syntax(text, language, theme="ansi_dark", line_numbers=line_numbers, background_color="default")


@dataclass(frozen=True)
class Diff:
    """The differences between two sources."""

    old: str
    new: str
    old_name: str
    new_name: str

    @property
    def unified(self) -> RenderableType:
        """Removed and added lines, below each other."""
        lines = unified_diff(
            self.old.splitlines(), self.new.splitlines(), self.old_name, self.new_name, n=CONTEXT, lineterm=""
        )
        return code("\n".join(lines), "diff", line_numbers=False) if self.old != self.new else _same()

    @property
    def sides(self) -> RenderableType:
        """The old source on the left, the new one on the right."""
        return Drawn(_Sides(self)) if self.old != self.new else _same()


def _same() -> Text:
    return Text("The sources are equal.")


@dataclass(frozen=True)
class _Sides:
    diff: Diff

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        old, new = (_highlighted(source) for source in (self.diff.old, self.diff.new))
        matcher = SequenceMatcher(None, self.diff.old.splitlines(), self.diff.new.splitlines(), autojunk=False)
        table = Table.grid(padding=(0, 1, 0, 0), expand=True)
        for _ in range(2):
            table.add_column(justify="right", style="dim", no_wrap=True)
            table.add_column(ratio=1, overflow="fold")
        table.add_row("", Text(self.diff.old_name, "bold"), "", Text(self.diff.new_name, "bold"))
        for number, group in enumerate(matcher.get_grouped_opcodes(CONTEXT)):
            if number:
                table.add_row("", Text("⋯", "dim"), "", Text("⋯", "dim"))
            for change, old_from, old_to, new_from, new_to in group:
                left = _side(old, range(old_from, old_to), "-", change != "equal")
                right = _side(new, range(new_from, new_to), "+", change != "equal")
                for one, other in zip_longest(left, right, fillvalue=("", Text())):
                    table.add_row(*one, *other)
        yield Group(table)


def _highlighted(source: str) -> list[Text]:
    return list(_syntax("", "python", line_numbers=False).highlight(printable(source)).split("\n", allow_blank=True))


def _side(lines: Sequence[Text], places: range, mark: str, changed: bool) -> Iterator[tuple[str, Text]]:
    for place in places:
        style = ("red" if mark == "-" else "green") if changed else ""
        text = Text(f"{mark if changed else ' '} ", f"bold {style}" if changed else "")
        yield str(place + 1), text.append_text(lines[place] if place < len(lines) else Text())
