"""Workers: what each is doing, and since when."""

from collections.abc import Callable, Sequence
from datetime import datetime

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.widgets import Static

from avo.tui.keys import Scroll
from avo.tui.reader import Overview, Picture
from avo.tui.transcript import spent
from avo.tui.view import View
from avo.wording import duration, first_line
from evaluator.problem import Baseline
from lineage_db.records import RunState

_TICK_S = 1.0


class WorkersView(View):
    """The steps that are running. Times move on without the database."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        super().__init__(id="workers-view")
        self._clock = clock
        self._overview: Overview | None = None

    def compose(self) -> ComposeResult:
        """Lay out a page."""
        with Scroll(id="workers-page"):
            yield Static(id="workers", markup=False)

    def on_mount(self) -> None:
        """Let time pass."""
        self.set_interval(_TICK_S, self._draw)

    def show(self, picture: Picture, baselines: Sequence[Baseline]) -> None:
        """Show who runs."""
        self._overview = picture.overview
        self._draw()

    def enter(self) -> None:
        """Focus the page."""
        self.query_one("#workers-page").focus()

    def _draw(self) -> None:
        if self._overview and self.display:
            self.query_one("#workers", Static).update(workers(self._overview, self._clock()))


def workers(overview: Overview, now: datetime) -> RenderableType:
    """Return a line for each running step."""
    if not overview.running:
        if overview.run.state is RunState.RUNNING:
            return Text("No step is running at this moment.")
        return Text(f"The run is {overview.run.state}: no workers.")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("worker", "step", "operator", "since", "tried", "evaluates", "spent"):
        table.add_column(heading, no_wrap=True, justify="right" if heading in ("step", "since", "tried") else "left")
    for step in sorted(overview.running, key=lambda step: step.worker):
        work = overview.work[step.number]
        table.add_row(
            Text(first_line(step.worker), "bold"),
            str(step.number),
            Text(first_line(step.operator)),
            duration((now - step.started).total_seconds()),
            str(work.tried),
            Text(f"candidate {step.digest[:12]}" if step.digest else "nothing yet"),
            Text(spent(work.spend) if work.spend.calls else ""),
        )
    return table
