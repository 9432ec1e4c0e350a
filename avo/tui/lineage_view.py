"""The view of the lineage: the tree on the left, the selected version on the right."""

from collections.abc import Sequence

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import OptionList

from avo.evaluator.problem import Baseline
from avo.tui.copying import Copy, copies_of
from avo.tui.detail import VersionDetail
from avo.tui.hot_loop import MakeProfiler
from avo.tui.lineage import LineageList
from avo.tui.reader import Picture, Want
from avo.tui.view import View


class LineageView(View):
    """The lineage on the left, the selected version on the right."""

    def __init__(self, profiler: MakeProfiler, options: str) -> None:
        super().__init__(id="lineage-view")
        self._profiler = profiler
        self._options = options
        self._picture: Picture | None = None
        self._baselines: Sequence[Baseline] = ()
        self._drawn: object = None
        self._words = ""
        self._sought = ""

    def compose(self) -> ComposeResult:
        """Lay out lineage and detail."""
        with Horizontal(id="body"):
            yield LineageList(id="lineage")
            yield VersionDetail(self._profiler)

    def want(self) -> Want:
        """Return the attempt of the selected version, whose step has the operator's submission."""
        number = self.query_one(LineageList).selected
        if self._picture is None or number is None:
            return Want()
        return Want(attempt=self._picture.by_number[number].attempt.id)

    def show(self, picture: Picture, baselines: Sequence[Baseline]) -> None:
        """Show new versions and the details of the selected one."""
        self._picture, self._baselines = picture, baselines
        drawn = (
            picture.view.run.id, len(picture.versions), picture.interventions, picture.view.measured, self._words,
        )  # fmt: skip
        if drawn != self._drawn:
            self._drawn = drawn
            self.query_one(LineageList).show(picture, baselines, self._words)
        self._show_version()

    def enter(self) -> None:
        """Focus the lineage."""
        self.query_one(LineageList).focus()

    def enter_part(self) -> None:
        """Focus the version."""
        self.query_one(VersionDetail).focus_page()

    @on(OptionList.OptionHighlighted, "#lineage")
    def _change_version(self) -> None:
        self._show_version()
        self.needs()

    @on(OptionList.OptionSelected, "#lineage")
    def _go_to_detail(self) -> None:
        self.enter_part()

    def _show_version(self) -> None:
        number = self.query_one(LineageList).selected
        if self._picture is None or number is None:
            return
        picture, details = self._picture, self._picture.attempt
        version = picture.by_number[number]
        submission = details.step.said_of(version.attempt.id) if details else None
        self.query_one(VersionDetail).show(version, picture, self._baselines, submission)

    def typed(self, purpose: str, text: str, *, done: bool) -> bool:
        """Filter by words, find them, or compare with a version."""
        if purpose == "filter":
            self.filter(text)
            return True
        if purpose == "find":
            return self.find(text)
        return self.compare(text) if done and text.strip() else True

    def turn(self) -> None:
        """Show the diff side by side, or no longer."""
        self.query_one(VersionDetail).turn()

    def copies(self) -> Sequence[Copy]:
        """Return the texts of the selected version."""
        number = self.query_one(LineageList).selected
        if self._picture is None or number is None:
            return ()
        attempt = self._picture.by_number[number].attempt
        return copies_of(self._picture.view.run.name, f"@{number}", attempt.digest, attempt.source, self._options)

    def select_best(self) -> None:
        """Select the best version."""
        if self._picture and (best := self._picture.view.best):
            self.query_one(LineageList).select(best.number)

    def switch(self, tab: str) -> None:
        """Show a tab of the detail."""
        detail = self.query_one(VersionDetail)
        inside = self.screen.focused is not None and detail in self.screen.focused.ancestors
        detail.switch(tab)
        if inside:
            detail.focus_page()

    def filter(self, words: str) -> None:
        """Show only versions that ``words`` finds."""
        self._words = words
        if self._picture:
            self.show(self._picture, self._baselines)

    def find(self, words: str | None = None, *, forward: bool = True) -> bool:
        """Select the version that matches ``words``, or the next one that matches the last words; return whether there
        is one.
        """
        if words is not None:
            self._sought = words
        return self.query_one(LineageList).find(self._sought, forward=forward, stay=words is not None)

    def compare(self, words: str) -> bool:
        """Show the diff between the selected version and the one that ``words`` names; return whether there is one."""
        number = words.strip().removeprefix("v")
        versions = self._picture.by_number if self._picture else {}
        other = versions.get(int(number)) if number.isdecimal() else None
        if other:
            self.query_one(VersionDetail).compare(other)
            self.switch("diff")
        return other is not None
