"""The list of runs to choose from."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.message import Message
from textual.widgets import DataTable, Footer, Static

from avo.evaluator.target import score_kind
from avo.lineage_db.store import Store
from avo.tui.keys import Table
from avo.tui.prompt import Prompt
from avo.tui.screen import FeedScreen
from avo.watch.listing import ORDERS, Listed, arranged, read_runs
from avo.watch.scores import unit_for
from avo.watch.wording import STATE_STYLE, printable

_COLUMNS = ("run", "state", "tried", "kept", "best TFLOPS", "gain", "kernel")
"""Column titles, short enough for 80 columns. A problem may have a long name: last, it cuts off nothing else."""
_NO_RUNS = "No runs yet. Start one in another terminal with\n\n    avo run\n\nand it will appear here."


def _read(clock: Callable[[], datetime], store: Store, previous: list[Listed] | None) -> list[Listed]:
    runs = read_runs(store, clock())
    return previous if previous is not None and previous == runs else runs


class RunsScreen(FeedScreen[list[Listed]]):
    """The runs of the database: all, or those with some words, in one of ``ORDERS``."""

    class Chosen(Message):
        """A run was chosen."""

        def __init__(self, run_name: str) -> None:
            super().__init__()
            self.run_name = run_name

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "ask", "Find", key_display="/", show=False),
        Binding("f", "ask", "Filter"),
        Binding("o", "order", "Order"),
    ]

    def __init__(self, store_url: str, poll_s: float, clock: Callable[[], datetime]) -> None:
        super().__init__(store_url, partial(_read, clock), poll_s)
        self._runs: list[Listed] = []
        self._order = ORDERS[0]
        self._words = ""

    def compose(self) -> ComposeResult:
        """Lay out the table, and a place for a message while it is empty."""
        yield Static(Text("avo  runs", "bold"), id="header", classes="one-line")
        with VerticalScroll(id="nothing"):
            yield Static("Reading the database ...", id="nothing-text", markup=False)
        table: Table = Table(id="runs", cursor_type="row", zebra_stripes=True)
        table.add_columns(*_COLUMNS)
        table.display = False
        yield table
        yield Prompt()
        yield Footer()

    def on_feed_screen_news(self, message: FeedScreen.News) -> None:
        """Show the runs and keep the cursor on the same one, or show why there are none."""
        if isinstance(message.value, list):
            self._runs = message.value
            self._draw()
        else:
            self._nothing(str(message.value))

    def on_prompt_typed(self, message: Prompt.Typed) -> None:
        """Show only the runs that have the words."""
        self._words = message.text
        self._draw()
        if message.done:
            self.query_one(Table).focus()

    def action_ask(self) -> None:
        """Ask for words."""
        self.query_one(Prompt).ask("filter", "filter:", self._words)

    def action_order(self) -> None:
        """Show the runs in the next order."""
        self._order = ORDERS[(ORDERS.index(self._order) + 1) % len(ORDERS)]
        self._draw()

    def _draw(self) -> None:
        words = self._words.lower().split()
        _fill(self.query_one(Table), arranged(self._runs, words, self._order))
        title = Text("avo  runs", "bold")
        if words or self._order != ORDERS[0]:
            title.append(f"  {self._order} first{f'  filter: {printable(self._words)}' if words else ''}")
        self.query_one("#header", Static).update(title)
        self._nothing(f"No run has all of these words: {printable(self._words)}" if self._runs else _NO_RUNS)

    def _nothing(self, words: str) -> None:
        """Show the table, or words while it is empty."""
        table = self.query_one(Table)
        table.display = table.row_count > 0
        self.query_one("#nothing").display = not table.row_count
        self.query_one("#nothing-text", Static).update(words)
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
        run, best = summary.run, summary.best_geomean
        table.add_row(
            Text(run.name, "bold"),
            Text(listed.state, STATE_STYLE[listed.state]),
            Text(str(summary.attempts), justify="right"),
            Text(str(summary.versions), justify="right"),
            Text("" if best is None else f"{unit_for(run).cell(best)} {score_kind(run.target)}", justify="right"),
            Text("" if listed.gain is None else f"{listed.gain:+.0%}", justify="right"),
            f"{run.problem} {run.target}",
            key=run.name,
        )
    if chosen is not None and any(listed.summary.run.name == chosen for listed in runs):
        table.move_cursor(row=table.get_row_index(chosen), animate=False)
