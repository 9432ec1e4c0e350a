"""The screen of one run: what all views share, and which view is shown."""

from collections.abc import Callable
from datetime import datetime
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.message import Message
from textual.widgets import ContentSwitcher, Footer, Static

from avo.evaluator.problem import Baseline
from avo.subject import subject
from avo.tui.attempts import AttemptsView
from avo.tui.bar import ViewBar
from avo.tui.copying import Copy, CopyScreen
from avo.tui.detail import TABS
from avo.tui.hot_loop import HotLoop, MakeProfiler
from avo.tui.lineage_view import LineageView
from avo.tui.notes import NotesView
from avo.tui.prompt import Prompt
from avo.tui.reader import Picture, RunReader
from avo.tui.screen import FeedScreen
from avo.tui.steps import StepsView
from avo.tui.trajectory import TrajectoryView
from avo.tui.transcript import spent
from avo.tui.view import Needs, View
from avo.tui.workers import WorkersView
from avo.watch.scores import published
from avo.watch.wording import (
    STATE_STYLE,
    counted,
    duration,
    ending,
    first_line,
    goes_on,
    looked,
    percent,
    printable,
    standing,
    under_way,
)

_TICK_S = 1.0
VIEWS = ("lineage", "trajectory", "attempts", "steps", "memory", "workers")
"""Names of the views; the first letter of each is its key."""
_PLACES = {
    **dict.fromkeys(("tab", "profile", "find_next", "best", "part", "case"), ("lineage",)),
    **dict.fromkeys(("sides", "ask"), ("lineage", "attempts")),
    "zoom": ("lineage", "attempts", "steps"),
}
"""The views in which an action is available, for actions that are not available in all."""
_COMPARED = {"lineage": "version, e.g. v4", "attempts": "attempt 38 or version v4"}
"""What can be compared in a view, as the input line says it."""


class RunScreen(FeedScreen[Picture]):
    """The views of a run, one at a time, below the header that they share."""

    class Left(Message):
        """The user asked for the list of runs."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(name[0], f"view('{name}')", name.capitalize(), show=False) for name in VIEWS),
        Binding("b", "best", "Best"),
        Binding("slash", "ask('find', 'find:')", "Find", key_display="/"),
        Binding("f", "ask('filter', 'filter:')", "Filter"),
        Binding("greater_than_sign", "find_next(True)", "Next found", show=False),
        Binding("less_than_sign", "find_next(False)", "Previous found", show=False),
        *(
            Binding(str(number), f"tab('{name}')", "Tabs", show=number == 1, key_display="1-4")
            for number, name in enumerate(TABS, 1)
        ),
        Binding("z", "zoom", "Zoom"),
        Binding("d", "sides", "Side by side", show=False),
        Binding("v", "ask('compare', 'diff with:')", "Diff with", show=False),
        Binding("y", "copy", "Copy", show=False),
        Binding("p", "profile", "Profile", show=False),
        Binding("o", "part", "Next part of the hot loop", show=False),
        Binding("n", "case", "Next case", show=False),
        Binding("r", "runs", "Runs"),
        Binding("escape", "back", "Back", show=False),
    ]

    def __init__(
        self,
        store_url: str,
        run_name: str,
        poll_s: float,
        profiler: MakeProfiler,
        clock: Callable[[], datetime],
        options: str,
    ) -> None:
        """``options`` end each command that is copied, so that it finds the database."""
        self._reader = RunReader(run_name, clock)
        super().__init__(store_url, self._reader.read, poll_s, wake=self._reader.wake)
        self.VERTICAL_BREAKPOINTS = [(0, "-short"), (30, "-tall")]
        self._run_name = run_name
        self._profiler = profiler
        self._options = options
        self._clock = clock
        self._picture: Picture | None = None
        self._baselines: tuple[Baseline, ...] = ()
        self._shown = "lineage"
        """The view that is shown, one of ``VIEWS``."""
        self._texts: dict[tuple[str, str], str] = {}
        """The text that was typed last, by view and purpose."""

    def compose(self) -> ComposeResult:
        """Lay out header, views, prompt and footer."""
        yield Static(Text(self._run_name, "bold"), id="header", markup=False)
        yield ViewBar(VIEWS)
        with VerticalScroll(id="nothing"):
            yield Static("Reading the database ...", id="nothing-text", markup=False)
        with ContentSwitcher(initial="lineage-view", id="pages"):
            yield LineageView(self._profiler, self._options)
            yield TrajectoryView()
            yield AttemptsView(self._options)
            yield StepsView()
            yield NotesView()
            yield WorkersView(self._clock)
        yield Prompt()
        yield Footer(compact=True)

    def on_mount(self) -> None:
        """Show only a message until the run is read."""
        self.query_one("#pages").display = False
        self.query_one(ViewBar).mark(self._shown)
        self.set_interval(_TICK_S, self._tick)

    @property
    def view(self) -> View:
        """The view that is shown."""
        return self.query_one(f"#{self._shown}-view", View)

    def on_feed_screen_news(self, message: FeedScreen.News) -> None:
        """Show a new picture, or why there is none."""
        if not isinstance(message.value, Picture):
            self._say(f"{message.value}", "Press r for the list of runs.")
            return
        picture = message.value
        if self._picture is None or self._picture.view.run.problem != picture.view.run.problem:
            self._baselines = published(picture.view.run.problem)
        self._picture = picture
        self._draw_header()
        self._show(picture)

    @on(Needs)
    def _read_on(self) -> None:
        self._reader.ask(self.view.want())

    @on(Prompt.Typed)
    def _typed(self, message: Prompt.Typed) -> None:
        self._texts[self._shown, message.purpose] = message.text
        found = self.view.typed(message.purpose, message.text, done=message.done)
        if message.done:
            self.view.focus_in()
            if not found:
                self.notify(f"there is no {message.text!r}", severity="warning", markup=False)
        self._draw_header()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer only what is available in the view that is shown."""
        return self._shown in _PLACES.get(action, VIEWS)

    def action_view(self, name: str) -> None:
        """Show another view."""
        self._shown = name
        self.query_one(ContentSwitcher).current = f"{name}-view"
        self.query_one(ViewBar).mark(name)
        self.refresh_bindings()
        if self._picture:
            self._draw_header()
            self._show(self._picture)
            self.view.focus_in()

    @on(ViewBar.Chosen)
    def _change_view(self, message: ViewBar.Chosen) -> None:
        self.action_view(message.view)

    def action_best(self) -> None:
        """Select the best version."""
        self.query_one(LineageView).select_best()

    def action_ask(self, purpose: str, label: str) -> None:
        """Show the input line."""
        if purpose == "compare":
            label = f"{label} {_COMPARED[self._shown]} (enter: show, escape: leave, d: side by side)"
        self.query_one(Prompt).ask(
            purpose, label, self._texts.get((self._shown, purpose), "") if purpose == "filter" else ""
        )

    def action_find_next(self, forward: bool) -> None:
        """Select the next version that matches the last search."""
        if not self.query_one(LineageView).find(forward=forward):
            self.notify("no other version is found", severity="warning")

    def action_runs(self) -> None:
        """Ask for the list of runs."""
        self.post_message(self.Left())

    def action_back(self) -> None:
        """Go back from a part of a view to its list, or from a list to the lineage."""
        if self.view.has_class("zoomed"):
            self.view.zoom()
            return
        before = self.focused
        self.view.enter()
        if self.focused is before and self._shown != "lineage":
            self.action_view("lineage")

    def action_tab(self, name: str) -> None:
        """Show a tab of the version's detail."""
        self.query_one(LineageView).switch(name)

    def action_zoom(self) -> None:
        """Give the part to the right of the list the whole width, or undo that."""
        self.view.zoom()

    def action_sides(self) -> None:
        """Switch between a side-by-side and a unified diff."""
        self.view.turn()

    def action_copy(self) -> None:
        """Offer texts of what is selected, and the command that continues the run, to be copied."""
        view = self._picture.view if self._picture else None
        command = goes_on(view.run, view.state) if view else ""
        resume = [Copy("command to continue the run", f"{command}{self._options}")] if command else []
        self.app.push_screen(CopyScreen([*self.view.copies(), *resume]), self._copy)

    def _copy(self, chosen: Copy | None) -> None:
        if chosen:
            self.app.copy_to_clipboard(chosen.text)
            self.notify(f"copied: {chosen.label}", markup=False)

    def action_profile(self) -> None:
        """Have the judge explain the selected version."""
        self.query_one(LineageView).switch("hot-loop")
        self.query_one(HotLoop).ask()

    def action_part(self) -> None:
        """Show the next part of the hot loop: machine code, PTX, what the time is made of."""
        self.query_one(HotLoop).next_part()

    def action_case(self) -> None:
        """Show the hot loop of the next case."""
        self.query_one(HotLoop).next_case()

    def _show(self, picture: Picture) -> None:
        """Show the view, or why there is nothing in it yet."""
        words = nothing(picture, self._shown, self._clock())
        pages = self.query_one("#pages")
        appears = not words and not pages.display
        self.query_one("#nothing").display, pages.display = bool(words), not words
        if words:
            self.query_one("#nothing-text", Static).update(printable(words))
        else:
            self.view.show(picture, self._baselines)
        if appears:
            self.view.focus_in()
        self._reader.ask(self.view.want())

    def _tick(self) -> None:
        """Let the times in the message move on."""
        if self._picture and self.query_one("#nothing").display:
            self._show(self._picture)

    def _say(self, words: str, advice: str = "") -> None:
        if self.query_one("#pages").display:
            self.query_one("#header", Static).update(Text(printable(words), "bold"))
        else:
            self.query_one("#nothing-text", Static).update(printable(f"{words}\n\n{advice}"))

    def _draw_header(self) -> None:
        if self._picture:
            words = self._texts.get((self._shown, "filter"), "").strip()
            self.query_one("#header", Static).update(header(self._picture, words))


def header(picture: Picture, words: str) -> Text:
    """Return three lines: the run, its state and the filter; how fast its best version is; the number of attempts.

    The second says why the run ended, if it did. What is too long for a narrow terminal is wrapped.
    """
    view = picture.view
    run, best, seed = view.run, view.best, view.seed
    text = Text()
    text.append(run.name, "bold")
    text.append(f"  {standing(run, view.state)}", f"bold {STATE_STYLE[view.state]}")
    text.append(f"  {subject(run)}, suite {run.suite}, operator {run.operator}")
    text.append(f"  filter: {printable(words)}" if words else "", "bold")
    if why := ending(run, view.state):
        text.append(f"\n{view.state}{printable(why)}", "dim")
    text.append("\n")
    if best and seed and best.attempt.evaluation.score:
        text.append(view.headline, "bold")
        grown = f"{percent(view.gain, view.width)} over the seed" if best.number != seed.number else "the seed"
        text.append(f"\nbest v{best.number}, {grown}")
    made = counted(view.attempts, "attempt")
    text.append(f"{'  ' if best else ''}{made}{looked(run.looks)}, {len(picture.versions)} accepted", "dim")
    if view.unresolved:
        text.append(f", {view.unresolved:,} unresolved", "yellow")
    if view.spend.calls:
        text.append(f", {spent(view.spend)}", "dim")
    return text


def nothing(picture: Picture, view: str, now: datetime) -> str:
    """Return why a view has nothing to show yet, and what is happening; nothing if it has something."""
    run, working = picture.view, picture.view.working
    missing = {
        "lineage": not picture.versions,
        "trajectory": not picture.versions,
        "attempts": not run.attempts,
        "steps": not run.steps,
    }
    if not missing.get(view):
        return ""
    if picture.newest and not working:
        return f"No seed was accepted: {picture.newest.status.words}.\n\n{printable(picture.newest.message)}"
    if run.over:
        return f"This run is {run.state} and has no versions{printable(ending(run.run, run.state))}"
    if not working:
        since = duration((now - run.run.created).total_seconds())
        doing = f"Now: {under_way(run.doing, now)}. " if run.doing else ""
        return f"The run was started {since} ago. {doing}Its workers evaluate the seeds first."
    since = duration((now - min(work.step.started for work in working)).total_seconds())
    names = ", ".join(first_line(work.step.worker) for work in working)
    doing = "\n".join(f"    {under_way(each, now)}" for work in working for each in work.step.doing or ())
    return (
        f"The seeds are being evaluated, for {since} now, by {names}.\n\n{doing}\n\n"
        "Their kernels are captured, executed on the CPU against the reference, compiled for "
        f"{run.run.target} and timed or predicted. Their scores appear here then."
    )
