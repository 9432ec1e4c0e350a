"""The details of one version, in tabs: scores, source, diff to another version, and its hot loop."""

from collections.abc import Sequence

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static, TabbedContent, TabPane

from avo.evaluator.problem import Baseline
from avo.lineage_db.records import Submission, Version
from avo.tui.diff import SIDES_FROM, Diff, code
from avo.tui.hot_loop import HotLoop, MakeProfiler
from avo.tui.keys import Scroll
from avo.tui.reader import Picture
from avo.tui.tables import scores
from avo.watch.wording import measured

TABS = ("scores", "source", "diff", "hot-loop")


class VersionDetail(Vertical):
    """Tabs about the selected version."""

    def __init__(self, profiler: MakeProfiler) -> None:
        super().__init__(id="detail")
        self._profiler = profiler
        self._version: Version | None = None
        self._picture: Picture | None = None
        self._baselines: Sequence[Baseline] = ()
        self._submission: Submission | None = None
        self._other: Version | None = None
        """The version that it is compared with."""
        self._stale: set[str] = set()
        """Tabs that have to be drawn again."""
        self._sides: bool | None = None
        """Whether a diff is shown side by side; None: if there is room."""

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
        picture: Picture,
        baselines: Sequence[Baseline],
        submission: Submission | None = None,
    ) -> None:
        """Show a version and what its operator submitted about it. What is shown already is not drawn again."""
        moved = self._version is None or version.attempt.id != self._version.attempt.id
        before, now = self._picture.view if self._picture else None, picture.view
        same = before is not None and (now.measured, now.ablation) == (before.measured, before.ablation)
        if not moved and same and (submission is None or submission == self._submission):
            return
        self._version, self._picture, self._baselines, self._submission = version, picture, baselines, submission
        self._stale.add("scores")
        if moved:
            self._stale.update(TABS)
            for name in ("scores", "source", "diff"):
                self.query_one(f"#{name}-page", Scroll).scroll_home(animate=False)
            self.compare(picture.by_number.get(version.parents[0]) if version.parents else None)
        self._draw()

    def compare(self, other: Version | None) -> None:
        """Compare with ``other``; None for a seed, which has no parent."""
        if self._version is None:
            return
        is_parent = other is None or self._version.parents[:1] == (other.number,)
        label = "Diff to parent" if is_parent or other is None else f"Diff to v{other.number}"
        self.query_one(TabbedContent).get_tab("diff").label = label
        self._other = other
        self._stale.add("diff")
        self._draw()

    def on_resize(self) -> None:
        """Draw the diff again: there may be room for two sources, or no longer."""
        self._stale.add("diff")
        self._draw()

    def on_tabbed_content_tab_activated(self) -> None:
        """Draw the tab that was hidden before."""
        self._draw()

    def _draw(self) -> None:
        """Draw the active tab if its content has changed."""
        tab, version, picture = self.tab, self._version, self._picture
        if tab not in self._stale or version is None or picture is None:
            return
        self._stale.remove(tab)
        if tab == "scores":
            view = picture.view
            told = measured(view.measured.get(version.attempt.id), view.run.name, view.unit) if view.measured else ""
            known = view.ablation if view.ablation and view.ablation.version == version.number else None
            found = scores(version, picture.by_number, self._baselines, view.run, self._submission, told, known)
            self.query_one("#scores-text", Static).update(found)
        elif tab == "source":
            self.query_one("#source-text", Static).update(code(version.attempt.source, "python", line_numbers=True))
        elif tab == "diff":
            self._draw_diff(version)
        else:
            self.query_one(HotLoop).show(picture.view.run, version)

    def _draw_diff(self, version: Version) -> None:
        text, other = self.query_one("#diff-text", Static), self._other
        text.set_class(self._beside, "sides")
        if other is None:
            text.update(Text("A seed has no parent. Press v to compare with another version."))
            return
        names = f"version {other.number}", f"version {version.number}"
        diff = Diff(other.attempt.source, version.attempt.source, *names)
        text.update(diff.sides if self._beside else diff.unified)

    def turn(self) -> None:
        """Switch between a side-by-side and a unified diff."""
        self._sides = not self._beside
        self._stale.add("diff")
        self._draw()

    @property
    def _beside(self) -> bool:
        return self.size.width >= SIDES_FROM if self._sides is None else self._sides

    @property
    def tab(self) -> str:
        """The active tab, one of ``TABS``."""
        return self.query_one(TabbedContent).active

    def switch(self, tab: str) -> None:
        """Activate one of ``TABS``."""
        self.query_one(TabbedContent).active = tab
        self._draw()

    def focus_page(self) -> None:
        """Focus the page of the active tab."""
        self.query_one(f"#{self.tab} Scroll").focus()
