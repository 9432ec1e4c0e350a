"""The lineage as a tree: the list that shows it."""

from collections.abc import Mapping, Sequence

from rich.text import Text
from textual.widgets.option_list import Option

from avo.snapshot import Comparison, Snapshot, gain, geomean, lines
from avo.tree import Row, layout
from avo.tui.keys import Options
from avo.wording import first_line, percent
from evaluator.problem import Baseline
from lineage_db.records import Version


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
