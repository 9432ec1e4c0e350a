"""The list of runs to choose from."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.message import Message
from textual.widgets import DataTable, Footer, Static

from avo.evaluator.target import score_kind
from avo.lineage_db.records import RunState, RunSummary
from avo.lineage_db.store import Store
from avo.tui.keys import Table
from avo.tui.screen import FeedScreen
from avo.watch.wording import STATE_STYLE

_COLUMNS = ("run", "state", "tried", "kept", "best TFLOPS", "gain", "kernel")
"""Column titles, short enough for 80 columns. A problem may have a long name: last, it cuts off nothing else."""
_NO_RUNS = "No runs yet. Start one in another terminal with\n\n    avo run\n\nand it will appear here."


@dataclass(frozen=True, slots=True)
class Listed:
    """A run and its state at the time of reading: only time tells whether its driver is gone."""

    summary: RunSummary
    state: RunState


def _read(clock: Callable[[], datetime], store: Store, previous: list[Listed] | None) -> list[Listed]:
    now = clock()
    runs = [Listed(summary, summary.run.state_at(now)) for summary in store.runs()]
    return previous if previous is not None and previous == runs else runs


class RunsScreen(FeedScreen[list[Listed]]):
    """All runs of the database, newest first."""

    class Chosen(Message):
        """A run was chosen."""

        def __init__(self, run_name: str) -> None:
            super().__init__()
            self.run_name = run_name

    BINDINGS: ClassVar[list[BindingType]] = []

    def __init__(self, store_url: str, poll_s: float, clock: Callable[[], datetime]) -> None:
        super().__init__(store_url, partial(_read, clock), poll_s)

    def compose(self) -> ComposeResult:
        """Lay out the table, and a place for a message while it is empty."""
        yield Static(Text("avo  runs", "bold"), id="header", classes="one-line")
        with VerticalScroll(id="nothing"):
            yield Static("Reading the database ...", id="nothing-text", markup=False)
        table: Table = Table(id="runs", cursor_type="row", zebra_stripes=True)
        table.add_columns(*_COLUMNS)
        table.display = False
        yield table
        yield Footer()

    def on_feed_screen_news(self, message: FeedScreen.News) -> None:
        """Show the runs and keep the cursor on the same one, or show why there are none."""
        table = self.query_one(Table)
        runs = message.value if isinstance(message.value, list) else []
        if isinstance(message.value, list):
            _fill(table, runs)
        table.display = table.row_count > 0
        self.query_one("#nothing").display = not table.row_count
        self.query_one("#nothing-text", Static).update(
            _NO_RUNS if isinstance(message.value, list) else str(message.value)
        )
        if table.display and self.focused is None:
            table.focus()

    def on_data_table_row_selected(self, message: DataTable.RowSelected) -> None:
        """Report the chosen run."""
        if message.row_key.value is not None:
            self.post_message(self.Chosen(message.row_key.value))


def _fill(table: Table, runs: list[Listed]) -> None:
    chosen = table.chosen
    table.clear()
    for listed in runs:
        summary = listed.summary
        run, best, seed = summary.run, summary.best_geomean, summary.seed_geomean
        table.add_row(
            Text(run.name, "bold"),
            Text(listed.state, STATE_STYLE[listed.state]),
            Text(str(summary.attempts), justify="right"),
            Text(str(summary.versions), justify="right"),
            Text("" if best is None else f"{best:.1f} {score_kind(run.target)}", justify="right"),
            Text("" if best is None or not seed else f"{best / seed - 1:+.0%}", justify="right"),
            f"{run.problem} {run.target}",
            key=run.name,
        )
    if chosen is not None and any(listed.summary.run.name == chosen for listed in runs):
        table.move_cursor(row=table.get_row_index(chosen), animate=False)
