"""The detail of one version, in tabs: scores, source, diff to another version, and its hot loop."""

from collections.abc import Sequence

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static, TabbedContent, TabPane

from avo.snapshot import Lineage
from avo.tui.diff import SIDES_FROM, Diff, code
from avo.tui.hot_loop import HotLoop, MakeProfiler
from avo.tui.keys import Scroll
from avo.tui.tables import scores
from evaluator.problem import Baseline
from lineage_db.records import Submission, Version

TABS = ("scores", "source", "diff", "hot-loop")


class VersionDetail(Vertical):
    """Tabs about the version that is selected."""

    def __init__(self, profiler: MakeProfiler) -> None:
        super().__init__(id="detail")
        self._profiler = profiler
        self._shown: tuple[int, Submission | None] | None = None
        self._version: Version | None = None
        self._other: Version | None = None
        self._diff: Diff | None = None
        self._sides: bool | None = None
        """Whether a diff is side by side; None: if there is room."""

    def compose(self) -> ComposeResult:
        """Lay out the tabs."""
        with TabbedContent(initial=TABS[0]):
            with TabPane("Scores", id="scores"), Scroll(id="scores-page"):
                yield Static(id="scores-text", markup=False)
            with TabPane("Source", id="source"), Scroll(id="source-page"):
                yield Static(id="source-text", markup=False)
            with TabPane("Diff to parent", id="diff"), Scroll(id="diff-page"):
                yield Static(id="diff-text", markup=False)
            with TabPane("Hot loop", id="hot-loop"):
                yield HotLoop(self._profiler)

    def show(
        self,
        version: Version,
        lineage: Lineage,
        baselines: Sequence[Baseline],
        submission: Submission | None = None,
    ) -> None:
        """Show a version, with what its operator said of it. One that is shown already is left alone."""
        if self._shown and self._shown[0] == version.number:
            if submission and submission != self._shown[1]:
                self._shown = version.number, submission
                self.query_one("#scores-text", Static).update(scores(version, lineage, baselines, submission))
            return
        self._shown = version.number, submission
        self._version = version
        self.query_one("#scores-text", Static).update(scores(version, lineage, baselines, submission))
        self.query_one("#source-text", Static).update(code(version.attempt.source, "python", line_numbers=True))
        for name in ("scores", "source", "diff"):
            self.query_one(f"#{name}-page", Scroll).scroll_home(animate=False)
        self.query_one(HotLoop).show(lineage.run, version)
        self.compare(lineage.by_number.get(version.parents[0]) if version.parents else None)

    def compare(self, other: Version | None) -> None:
        """Show the diff from ``other`` to the version, None for a seed without parent."""
        if self._version is None:
            return
        self._other = other
        is_parent = other is None or self._version.parents[:1] == (other.number,)
        label = "Diff to parent" if is_parent or other is None else f"Diff to v{other.number}"
        self.query_one(TabbedContent).get_tab("diff").label = label
        new = self._version
        self._diff = None
        if other is not None:
            names = f"version {other.number}", f"version {new.number}"
            self._diff = Diff(other.attempt.source, new.attempt.source, *names)
        self._draw_diff()

    def on_resize(self) -> None:
        """See whether there is room for two sources."""
        self._draw_diff()

    def turn(self) -> None:
        """Put the sources side by side, or the changes below each other."""
        self._sides = not self._beside
        self._draw_diff()

    @property
    def _beside(self) -> bool:
        return self.size.width >= SIDES_FROM if self._sides is None else self._sides

    def _draw_diff(self) -> None:
        text = self.query_one("#diff-text", Static)
        text.set_class(self._beside, "sides")
        if self._diff:
            text.update(self._diff.sides if self._beside else self._diff.unified)
        else:
            text.update(Text("The seed has no parent. Press v to compare with another version."))

    @property
    def tab(self) -> str:
        """The tab that is shown, one of ``TABS``."""
        return self.query_one(TabbedContent).active

    def switch(self, tab: str) -> None:
        """Show one of ``TABS``."""
        self.query_one(TabbedContent).active = tab

    def focus_page(self) -> None:
        """Focus what the active tab shows."""
        self.query_one(f"#{self.tab} Scroll").focus()
