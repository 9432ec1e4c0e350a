"""Workers: what each one is doing, and since when."""

from collections.abc import Callable, Sequence
from datetime import datetime

from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.widgets import Static

from avo.evaluator.problem import Baseline
from avo.lineage_db.records import Run, RunState, Step
from avo.tui.keys import Scroll
from avo.tui.reader import Picture
from avo.tui.transcript import spent
from avo.tui.view import View
from avo.watch.view import RunView
from avo.watch.wording import awaited, duration, ending, first_line, under_way

_TICK_S = 1.0


class WorkersView(View):
    """The running steps. Times move on even if the database does not change."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        super().__init__(id="workers-view")
        self._clock = clock
        self._view: RunView | None = None

    def compose(self) -> ComposeResult:
        """Lay out a page."""
        with Scroll(id="workers-page"):
            yield Static(id="workers", markup=False)

    def on_mount(self) -> None:
        """Draw the times again every second."""
        self.set_interval(_TICK_S, self._draw)

    def show(self, picture: Picture, baselines: Sequence[Baseline]) -> None:
        """Show the running steps."""
        self._view = picture.view
        self._draw()

    def enter(self) -> None:
        """Focus the page."""
        self.query_one("#workers-page").focus()

    def _draw(self) -> None:
        if self._view and self.display:
            self.query_one("#workers", Static).update(workers(self._view, self._clock()))


def workers(view: RunView, now: datetime) -> RenderableType:
    """Return a row for each running step, and why there are none, or why there will be no more."""
    if view.state is RunState.RUNNING:
        idle = under_way(view.doing, now) if view.doing else "No step is running at this moment."
        words = "" if view.working else idle
    elif view.state is RunState.PAUSED:
        words = f"The run is paused: no new steps until avo resume {view.run.name}."
    elif view.state is RunState.INTERRUPTED:
        last = _last_sign(view.run, now)
        words = f"The run is interrupted: {last}. It goes on with avo resume {view.run.name}."
    else:
        words = f"The run is {view.state}{ending(view.run, view.state)}"
    if not view.working:
        return Text(words)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("worker", "step", "operator", "since", "tried", "works on", "spent"):
        justify: JustifyMethod = "right" if heading in ("step", "since", "tried") else "left"
        table.add_column(heading, no_wrap=heading != "works on", justify=justify)
    for work in view.working:
        step = work.step
        table.add_row(
            Text(first_line(step.worker), "bold"),
            str(step.number),
            Text(first_line(step.operator)),
            duration((now - step.started).total_seconds()),
            str(work.tried),
            Text(awaited(step.reply, now) if step.reply else _doing(step, now)),
            Text(spent(work.spend) if work.spend.calls else ""),
        )
    return Group(Text(words), table) if words else table


def _doing(step: Step, now: datetime) -> str:
    if step.doing:
        return "\n".join(under_way(each, now) for each in step.doing)
    return f"candidate {step.digest[:12]}" if step.digest else "nothing yet"


def _last_sign(run: Run, now: datetime) -> str:
    if run.driver is None or run.driver_until is None:
        return "no process drives it"
    silent = duration((now - run.driver_until).total_seconds())
    return f"{first_line(run.driver)}, which drove it, is overdue by {silent}"
