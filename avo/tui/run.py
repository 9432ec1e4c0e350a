"""One run: the lineage on the left, the selected version on the right, live."""

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.message import Message
from textual.widgets import Footer, OptionList, Static

from avo.snapshot import Snapshot, geomean, published, read_snapshot
from avo.tui.detail import TABS, Attempts, VersionDetail
from avo.tui.feed import FeedScreen
from avo.tui.lineage import LineageList
from avo.wording import printable, unit, verdict
from evaluator.problem import Baseline
from lineage_db.records import RunState


class RunScreen(FeedScreen[Snapshot]):
    """The first place to look at a run."""

    class Left(Message):
        """The user wants the list of runs."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("b", "best", "Best"),
        Binding("r", "runs", "Runs"),
        Binding("escape", "lineage", "Lineage", show=False),
        *(
            Binding(str(number), f"tab('{name}')", "Tabs", show=number == 1, key_display="1-4")
            for number, name in enumerate(TABS, 1)
        ),
    ]

    def __init__(self, store_url: str, run_name: str, poll_s: float) -> None:
        super().__init__(store_url, lambda store, previous: read_snapshot(store, run_name, previous), poll_s)
        self._run_name = run_name
        self._snapshot: Snapshot | None = None
        self._baselines: tuple[Baseline, ...] = ()

    def compose(self) -> ComposeResult:
        """Lay out header, lineage, detail and footer."""
        yield Static(Text(self._run_name, "bold"), id="header", markup=False)
        with VerticalScroll(id="nothing"):
            yield Static("Reading the database ...", id="nothing-text", markup=False)
        with Horizontal(id="body"):
            yield LineageList(id="lineage")
            yield VersionDetail()
        yield Footer()

    def on_mount(self) -> None:
        """Start with words alone."""
        self.query_one("#body").display = False

    def on_feed_screen_news(self, message: FeedScreen.News) -> None:
        """Show a new snapshot, or say why there is none."""
        if not isinstance(message.value, Snapshot):
            self._say(f"{message.value}\n\nPress r for the list of runs.")
            return
        snapshot = message.value
        if self._snapshot is None:
            self._baselines = published(snapshot.run.problem)
        self._snapshot = snapshot
        self.query_one("#header", Static).update(header(snapshot))
        self.query_one(Attempts).show(snapshot)
        if not snapshot.versions:
            self._say(_before_the_seed(snapshot))
            return
        lineage, body = self.query_one(LineageList), self.query_one("#body")
        lineage.show(snapshot, self._baselines)
        if not body.display:
            self.query_one("#nothing").display = False
            body.display = True
            lineage.focus()

    def on_option_list_option_highlighted(self, message: OptionList.OptionHighlighted) -> None:
        """Show the version under the cursor."""
        number = self.query_one(LineageList).selected
        if self._snapshot and number is not None:
            version = self._snapshot.by_number[number]
            self.query_one(VersionDetail).show(version, self._snapshot, self._baselines)

    def on_option_list_option_selected(self, message: OptionList.OptionSelected) -> None:
        """Go to the detail."""
        self.query_one(VersionDetail).focus_page()

    def action_best(self) -> None:
        """Select the best version."""
        if self._snapshot and self._snapshot.best:
            self.query_one(LineageList).select(self._snapshot.best.number)

    def action_runs(self) -> None:
        """Ask for the list of runs."""
        self.post_message(self.Left())

    def action_lineage(self) -> None:
        """Go back to the lineage."""
        self.query_one(LineageList).focus()

    def action_tab(self, name: str) -> None:
        """Show a tab of the detail."""
        detail = self.query_one(VersionDetail)
        inside = self.focused is not None and detail in self.focused.ancestors
        detail.switch(name)
        if inside:
            detail.focus_page()

    def _say(self, words: str) -> None:
        if self.query_one("#body").display:
            self.query_one("#header", Static).update(Text(words, "bold"))
        else:
            self.query_one("#nothing-text", Static).update(words)


def header(snapshot: Snapshot) -> Text:
    """Return two lines: which run and how it stands; its best score and what was tried."""
    run, best, seed = snapshot.run, snapshot.best, snapshot.seed
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(run.name, "bold")
    text.append(f"  {run.state}", "bold green" if run.state is RunState.RUNNING else "bold")
    text.append(f"  {run.problem}, suite {run.suite}, operator {run.operator}\n")
    if best and seed and best.attempt.evaluation.score:
        text.append(f"{geomean(best):.1f} {unit(best.attempt.evaluation.score)}", "bold")
        text.append(f"  best v{best.number}, {geomean(best) / geomean(seed):.2f} x seed")
    text.append(f"  {len(snapshot.trials)} attempts, {len(snapshot.versions)} accepted", "dim")
    return text


def _before_the_seed(snapshot: Snapshot) -> str:
    if snapshot.trials:
        last = snapshot.trials[-1]
        return f"The seed was not accepted: {verdict(last.status)}.\n\n{printable(last.message)}"
    if snapshot.run.state is RunState.RUNNING:
        return "The seed is being evaluated. Its score appears here in a moment."
    return f"This run has no versions. Continue it with\n\n    avo resume {snapshot.run.name}"
