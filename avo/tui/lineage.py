"""The lineage as a tree: how its rows are laid out, and the list that shows them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.text import Text
from textual.widgets.option_list import Option

from avo.snapshot import Comparison, Snapshot, gain, geomean, lines
from avo.tui.keys import Options
from avo.wording import first_line, percent
from evaluator.problem import Baseline
from lineage_db.records import Version


@dataclass(frozen=True, slots=True)
class Row:
    """A version and the lines drawn before it."""

    version: Version
    lines: str


def layout(versions: Sequence[Version]) -> list[Row]:
    """Return the rows of the tree, parents before children.

    A version stands below its first parent. The line that leads to the last version, the best, stays flush with its
    parent and comes last; other lines branch off before it and are indented by two columns, so that a long chain needs
    no width.
    """
    numbers = {version.number for version in versions}
    children: dict[int | None, list[Version]] = defaultdict(list)
    for version in versions:
        parent = version.parents[0] if version.parents and version.parents[0] in numbers else None
        children[parent].append(version)
    reach = _reach(versions, children)
    rows = []
    pending = [(root, 0, "") for root in reversed(children[None])]
    while pending:
        version, depth, first = pending.pop()
        rows.append(Row(version, first or "│ " * depth))
        line = sorted(children[version.number], key=lambda child: reach[child.number])
        if line:
            pending.append((line[-1], depth, ""))
        pending.extend((side, depth + 1, "│ " * depth + "├─") for side in reversed(line[:-1]))
    return rows


def _reach(versions: Sequence[Version], children: Mapping[int | None, Sequence[Version]]) -> dict[int, int]:
    """The last version that each one leads to; children have higher numbers than their parents."""
    reach: dict[int, int] = {}
    for version in sorted(versions, key=lambda version: version.number, reverse=True):
        below = (reach[child.number] for child in children.get(version.number, ()))
        reach[version.number] = max(below, default=version.number)
    return reach


class LineageList(Options):
    """The tree; the highlighted row is the version whose detail is shown. Published figures are lines across it."""

    def show(self, snapshot: Snapshot, baselines: Sequence[Baseline]) -> None:
        """Show the snapshot's lineage. The highlighted version stays highlighted and where it is."""
        rows = layout(snapshot.versions)
        best = snapshot.best.number if snapshot.best else None
        by_number = snapshot.by_number
        options = [Option(_prompt(row, by_number, best), id=str(row.version.number)) for row in rows]
        score = snapshot.seed.attempt.evaluation.score if snapshot.seed else None
        published = lines(score, baselines, (row.version for row in rows)) if score else []
        for number, (place, found) in reversed(list(enumerate(published))):
            options.insert(place, Option(_line(found), id=f"published {number}", disabled=True))
        known = [option.id for option in self.options]
        if known == [option.id for option in options[: len(known)]]:
            for index, option in enumerate(options[: len(known)]):
                self.replace_option_prompt_at_index(index, option.prompt)
            self.add_options(options[len(known) :])
        else:
            selected, row, top = self.selected, self.highlighted or 0, self.scroll_offset.y
            self.set_options(options)
            if selected is not None:
                self.select(selected)
            self.scroll_to(y=top + (self.highlighted or 0) - row, animate=False)
        if self.highlighted is None and best is not None:
            self.select(best)

    @property
    def selected(self) -> int | None:
        """Number of the highlighted version."""
        option = self.highlighted_option
        return int(option.id) if option and option.id else None

    def select(self, number: int) -> None:
        """Highlight a version."""
        self.highlighted = self.get_option_index(str(number))


def _line(published: Comparison) -> Text:
    line = f"{published.published:6.1f} ┄┄┄┄┄┄ {published.name}, published"
    return Text(line, "dim", no_wrap=True, overflow="ellipsis")


def _prompt(row: Row, versions: Mapping[int, Version], best: int | None) -> Text:
    version = row.version
    is_best = version.number == best
    return Text.assemble(
        (f"{geomean(version):6.1f} ", "bold" if is_best else ""),
        (f"{percent(gain(version, versions)):>6} ", "green"),
        (row.lines, "dim"),
        ("★ " if is_best else "● ", "bold yellow" if is_best else "dim"),
        (f"v{version.number} ", "bold"),
        first_line(version.attempt.change) or "seed",
        no_wrap=True,
        overflow="ellipsis",
    )
