"""The detail of one version, in tabs: scores, source, diff to parent; and the run's attempts."""

from collections.abc import Sequence
from difflib import unified_diff

from rich.console import RenderableType
from rich.syntax import Syntax
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import DataTable, Static, TabbedContent, TabPane

from avo.snapshot import Snapshot
from avo.tui.keys import Scroll, Table
from avo.tui.tables import scores
from avo.wording import first_line, printable, verdict
from evaluator.problem import Baseline
from lineage_db.records import Trial, Version

TABS = ("scores", "source", "diff", "attempts")


class VersionDetail(Vertical):
    """Tabs about the version that is selected."""

    def __init__(self) -> None:
        super().__init__(id="detail")
        self._shown: int | None = None

    def compose(self) -> ComposeResult:
        """Lay out the tabs."""
        with TabbedContent(initial=TABS[0]):
            with TabPane("Scores", id="scores"), Scroll(id="scores-page"):
                yield Static(id="scores-text", markup=False)
            with TabPane("Source", id="source"), Scroll(id="source-page"):
                yield Static(id="source-text", markup=False)
            with TabPane("Diff to parent", id="diff"), Scroll(id="diff-page"):
                yield Static(id="diff-text", markup=False)
            with TabPane("Attempts", id="attempts"):
                yield Attempts()

    def show(self, version: Version, snapshot: Snapshot, baselines: Sequence[Baseline]) -> None:
        """Show a version. One that is shown already is left alone: it does not change."""
        if version.number == self._shown:
            return
        self._shown = version.number
        contents = {
            "scores": scores(version, snapshot, baselines),
            "source": _code(version.attempt.source, "python", line_numbers=True),
            "diff": _diff(version, snapshot),
        }
        for name, content in contents.items():
            self.query_one(f"#{name}-text", Static).update(content)
            self.query_one(f"#{name}-page", Scroll).scroll_home(animate=False)

    def switch(self, tab: str) -> None:
        """Show one of ``TABS``."""
        self.query_one(TabbedContent).active = tab

    def focus_page(self) -> None:
        """Focus what the active tab shows."""
        active = self.query_one(TabbedContent).active
        self.query_one(f"#{active} Scroll, #{active} Table").focus()


class Attempts(Vertical):
    """Every attempt of the run, and the verdict's message on the one under the cursor."""

    def __init__(self) -> None:
        super().__init__()
        self._trials: dict[str, Trial] = {}

    def compose(self) -> ComposeResult:
        """Lay out the table above the message."""
        table = Table(id="attempts-table", cursor_type="row", zebra_stripes=True)
        table.add_column("id", width=4)
        table.add_column("TFLOPS", width=14, key="result")
        table.add_column("change")
        yield table
        yield Static(id="attempt-message", markup=False)

    def show(self, snapshot: Snapshot) -> None:
        """Add new attempts, and the number of those that have become versions since."""
        table = self.query_one(Table)
        for trial in snapshot.trials:
            key = str(trial.attempt_id)
            known = self._trials.get(key)
            if known is None:
                table.add_row(*_cells(trial), key=key)
            elif known != trial:
                table.update_cell(key, "result", _result(trial))
            self._trials[key] = trial

    def on_data_table_row_highlighted(self, message: DataTable.RowHighlighted) -> None:
        """Show the message below."""
        trial = self._trials.get(message.row_key.value or "")
        if trial:
            made_of = f"from {', '.join(f'v{number}' for number in trial.parents)}: " if trial.parents else ""
            change = f"{made_of}{trial.change or 'seed'}"
            words = (change, f"{verdict(trial.status)}: {trial.message}" if trial.message else "")
            self.query_one("#attempt-message", Static).update(printable("\n".join(filter(None, words))))


def _cells(trial: Trial) -> list[str | Text]:
    return [
        Text(str(trial.attempt_id), justify="right"),
        _result(trial),
        Text(first_line(trial.change) or "seed"),
    ]


def _result(trial: Trial) -> str:
    """The score and the version it became, or the fault: short, so that the change is readable beside it."""
    if not trial.geomean_tflops:
        return verdict(trial.status)
    return f"{trial.geomean_tflops:.1f}" + (f" -> v{trial.version}" if trial.version is not None else "")


def _diff(version: Version, snapshot: Snapshot) -> RenderableType:
    parent = snapshot.by_number.get(version.parents[0]) if version.parents else None
    if parent is None:
        return Text("The seed has no parent.")
    lines = unified_diff(
        parent.attempt.source.splitlines(),
        version.attempt.source.splitlines(),
        f"version {parent.number}",
        f"version {version.number}",
        lineterm="",
    )
    return _code("\n".join(lines), "diff", line_numbers=False)


def _code(text: str, language: str, *, line_numbers: bool) -> Syntax:
    return Syntax(printable(text), language, theme="ansi_dark", line_numbers=line_numbers, background_color="default")
