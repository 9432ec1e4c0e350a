"""Tables and text for a terminal. Control characters of candidates and operators are removed."""

from collections.abc import Iterable
from dataclasses import replace

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from avo.evaluator.evaluation import CaseResult
from avo.evaluator.units import Unit
from avo.lineage_db.ablated import Ablation
from avo.watch.wording import cut, minimal_kernel, percent, printable

_EDIT = 160
"""Characters of an edit in a table."""


def one_line(text: str) -> str:
    """Return ``text`` on one line, without control characters."""
    return " ".join(printable(text).split())


class _Headed(Table):
    """A table below a line that is as long as it likes: a title would be wrapped to the width of the columns."""

    heading = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.heading:
            yield Text(self.heading)
        yield from super().__rich_console__(console, options)


def table(*columns: str, title: str = "", gap: int = 2) -> Table:
    """Return an empty table without rules. A column whose name starts with ``>`` is aligned to the right.

    ``gap``: number of blanks between columns.
    """
    made = _Headed(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="bold")
    made.heading = title
    for column in columns:
        right = column.startswith(">")
        made.add_column(column.lstrip(">"), justify="right" if right else "left", overflow="fold", no_wrap=right)
    return made


def row(target: Table, *cells: object, style: str = "") -> None:
    """Add a row to ``target``; None makes an empty cell."""
    target.add_row(*(Text("" if cell is None else one_line(str(cell))) for cell in cells), style=style or None)


def edits(found: Ablation, unit: Unit) -> RenderableType:
    """Return what each edit of a version is worth as a table, and what the version is without the useless ones."""
    made = table("EDIT", ">WORTH", "", title=f"{found.title}: how much slower it is predicted without")
    for each in found.edits:
        row(made, cut(one_line(each.name), _EDIT), percent(each.worth, each.width), cut(one_line(each.words), _EDIT))
    more = [Text(f"{found.left_out} more edits were kept")] if found.left_out else []
    how = f": avo show {found.run}@{found.version} --ablate --source" if found.dropped else ""
    return Group(made, *more, Text(f"{minimal_kernel(found, unit)}{how}"))


def gain(new: float, old: float | None) -> float | None:
    """Return ``new / old - 1``; None if ``old`` is None or 0."""
    return new / old - 1 if old else None


def by_case(results: Iterable[CaseResult]) -> list[CaseResult]:
    """Return one result for each case, of an autotuned kernel's many: the one that failed, or the largest errors."""
    found: dict[str, list[CaseResult]] = {}
    for result in results:
        found.setdefault(result.case, []).append(result)
    return [_worst(of_one) for of_one in found.values()]


def _worst(results: list[CaseResult]) -> CaseResult:
    first = min(results, key=lambda result: result.passed)
    if len(results) == 1 or not first.passed:
        return first
    relative = max((r.relative_error for r in results if r.relative_error is not None), default=None)
    absolute = max((r.absolute_error for r in results if r.absolute_error is not None), default=None)
    largest = f"the largest of {len(results)} configurations"
    return replace(first, relative_error=relative, absolute_error=absolute, message=largest)
