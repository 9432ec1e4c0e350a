"""The attempts of a run, failures included, grouped by reason."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from rich.console import RenderableType
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from avo.evaluator.evaluation import Status
from avo.evaluator.problem import Baseline
from avo.evaluator.units import TFLOPS, Unit
from avo.lineage_db.records import Attempt, AttemptSummary
from avo.tui.copying import Copy, copies_of
from avo.tui.diff import SIDES_FROM, Diff, code
from avo.tui.keys import Options, Scroll
from avo.tui.lines import Lines
from avo.tui.reader import AttemptDetails, Picture, Want
from avo.tui.view import View
from avo.watch.failures import Failures
from avo.watch.wording import duration, edited_from, first_line, in_a_list, printable, valued

AROUND = 40
"""Number of rows that are read above and below the visible ones."""
_ALL, _ACCEPTED = "all", "accepted"
_NEWEST, _FASTEST, _OLDEST = "newest", "fastest", "oldest"
ORDERS = (_NEWEST, _FASTEST, _OLDEST)
"""Orders of the attempts, by what comes first."""


class Ledger(Lines):
    """The attempts of one group. Rows that are not read yet show dots."""

    def __init__(self) -> None:
        super().__init__(id="attempts-table")
        self._ids: Sequence[int] = ()
        self._attempts: dict[int, AttemptSummary] = {}
        self._unit = TFLOPS

    def show(self, ids: Sequence[int], attempts: Mapping[int, AttemptSummary], unit: Unit, *, other: bool) -> None:
        """Show the attempts ``ids``, the last of them first. ``other``: they are another group than before, or in
        another order.
        """
        self._attempts = {**self._attempts, **attempts} if len(self._attempts) < 20 * AROUND else dict(attempts)
        self._unit = unit
        under, before = self.under, self._ids
        self._ids = ids
        if other:
            self.cursor = 0
            self.set_count(len(ids))
        elif ids is not before and ids != before:
            row = len(ids) - 1 - ids.index(under) if under in ids else self.cursor
            self.set_count(len(ids), above=max(0, row - self.cursor))
        self.refresh()

    @property
    def under(self) -> int | None:
        """Id of the attempt under the cursor."""
        return self._ids[-1 - self.cursor] if self.count else None

    @property
    def wanted(self) -> tuple[int, ...]:
        """Ids of the attempts in the visible rows and around them."""
        sight = self.sight
        newest, oldest = max(0, sight.start - AROUND), min(self.count, sight.stop + AROUND)
        return tuple(self._ids[len(self._ids) - oldest : len(self._ids) - newest])

    def row(self, index: int) -> Text:
        """Return id, result and change of an attempt."""
        made = self._ids[-1 - index]
        attempt = self._attempts.get(made)
        if attempt is None:
            return Text(f"{made:>6}  ...", "dim")
        return Text.assemble(
            (f"{made:>6}  ", "dim"),
            (f"{result(attempt, self._unit):<19.19} ", "" if attempt.geomean_tflops else "red"),
            first_line(in_a_list(attempt.change)) or "seed",
        )


class AttemptsView(View):
    """Groups on the left; on the right the attempts of one group, and the details of the attempt under the cursor."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("o", "order", "Order")]

    def __init__(self, options: str) -> None:
        super().__init__(id="attempts-view")
        self._options = options
        self._picture: Picture | None = None
        self._order = ORDERS[0]
        self._words: tuple[str, ...] = ()
        self._compares = False
        """Whether the difference to another source is shown instead of the source."""
        self._other: int | None = None
        """Id of the attempt to compare with; None for the parent."""
        self._groups: tuple[Failures, ...] | None = None
        self._versions = 0
        self._ids: dict[str, Sequence[int]] = {}
        self._shown: object = None
        self._listed: tuple[object, Sequence[int]] = None, ()
        """What the listed ids were made of, and these in their order."""
        self._detailed: object = None

    def compose(self) -> ComposeResult:
        """Lay out the three parts."""
        with Horizontal():
            yield Options(id="reasons")
            with Vertical(id="attempts-right"):
                yield Static("Reading the attempts ...", id="attempts-title", markup=False)
                yield Ledger()
                with Scroll(id="attempt-page"):
                    yield Static(id="attempt-message", markup=False)
                    yield Static(id="attempt-source", markup=False)

    def want(self) -> Want:
        """Return the groups, what is found, the visible rows, and the attempt under the cursor with what to compare."""
        ledger = self.query_one(Ledger)
        return Want(
            groups=True, attempts=ledger.wanted, attempt=ledger.under, other=self._other, words=self._words
        )  # fmt: skip

    def show(self, picture: Picture, baselines: Sequence[Baseline]) -> None:
        """Show new counts and rows."""
        if not picture.want.groups:
            return
        self._picture = picture
        versions = len(picture.versions)
        if picture.groups is not self._groups or versions != self._versions:
            self._groups, self._versions = picture.groups, versions
            self._list_reasons(picture)
        self._list(picture.attempts)
        self._draw_attempt()

    def _draw_attempt(self) -> None:
        picture = self._picture
        if picture is None or picture.attempt is None:
            return
        page = self.query_one("#attempt-page", Scroll)
        beside = self.size.width >= 2 * SIDES_FROM or (self.has_class("zoomed") and self.size.width >= SIDES_FROM)
        drawn = picture.attempt, self._compares and picture.other, self._compares, beside
        if drawn == self._detailed:
            return
        moved = not isinstance(self._detailed, tuple) or self._detailed[0].attempt.id != picture.attempt.attempt.id
        self._detailed = drawn
        self.query_one("#attempt-message", Static).update(describe(picture.attempt, picture.view.unit))
        text = self.query_one("#attempt-source", Static)
        text.set_class(self._compares and beside, "sides")
        text.update(self._difference(picture, picture.attempt.attempt, beside) if self._compares else _source(picture))
        if moved:
            page.scroll_home(animate=False)

    def _difference(self, picture: Picture, attempt: Attempt, beside: bool) -> RenderableType:
        """Return the difference to the attempt that was asked for, or to the parent."""
        parents = picture.attempt.summary.parents if picture.attempt else ()
        if self._other is None and not parents:
            return Text("A seed has no parent. Press v to compare it with another attempt.")
        if self._other is None:
            other, name = picture.by_number[parents[0]].attempt, f"version {parents[0]}"
        elif picture.other and picture.other.id == self._other:
            other, name = picture.other, f"attempt {self._other}"
        elif picture.want.other == self._other:
            return Text(f"This run has no attempt {self._other}. Press v to compare with another.")
        else:
            return Text("Reading ...")
        diff = Diff(other.source, attempt.source, name, f"attempt {attempt.id}")
        return diff.sides if beside else diff.unified

    def typed(self, purpose: str, text: str, *, done: bool) -> bool:
        """Search for words, or compare with an attempt (``38``) or a version (``v4``)."""
        if purpose != "compare":
            self._words = tuple(text.lower().split())
            self.needs()
            return True
        if not done or not text.strip():
            return True
        word = text.strip().lower().removeprefix("#")
        versions = self._picture.by_number if self._picture else {}
        if word[:1] == "v" and word[1:].isdecimal() and int(word[1:]) in versions:
            self._other = versions[int(word[1:])].attempt.id
        elif word.isdecimal():
            self._other = int(word)
        else:
            return False
        self._compares = True
        self.needs()
        return True

    def turn(self) -> None:
        """Show the difference to the parent, or the source again."""
        self._compares, self._other = not self._compares, None
        self._draw_attempt()
        self.needs()

    def action_order(self) -> None:
        """Show the attempts in the next order."""
        self._order = ORDERS[(ORDERS.index(self._order) + 1) % len(ORDERS)]
        self._list({})
        self.needs()

    def copies(self) -> Sequence[Copy]:
        """Return the texts of the attempt under the cursor."""
        if self._picture is None or self._picture.attempt is None:
            return ()
        attempt = self._picture.attempt.attempt
        return copies_of(self._picture.view.run.name, f"#{attempt.id}", attempt.digest, attempt.source, self._options)

    def on_resize(self) -> None:
        """Draw the attempt again: there may be room for two sources, or no longer."""
        self._draw_attempt()

    def zoom(self) -> None:
        """Give the attempt the whole width, or undo that."""
        super().zoom()
        self._draw_attempt()

    def enter(self) -> None:
        """Focus the rows."""
        self.query_one(Ledger).focus()

    def enter_part(self) -> None:
        """Focus the details of the attempt."""
        self.query_one("#attempt-page", Scroll).focus()

    @on(OptionList.OptionHighlighted, "#reasons")
    def _change_group(self) -> None:
        self._list({})

    @on(OptionList.OptionSelected, "#reasons")
    def _go_to_rows(self) -> None:
        self.enter()

    @on(Lines.Moved, "#attempts-table")
    @on(Lines.Looked, "#attempts-table")
    def _look(self) -> None:
        self.needs()

    @on(Lines.Chosen, "#attempts-table")
    def _go_to_detail(self) -> None:
        self.enter_part()

    def _list_reasons(self, picture: Picture) -> None:
        reasons = self.query_one("#reasons", Options)
        chosen = reasons.highlighted_option
        self._ids = _members(picture)
        names = {_key(group): group for group in picture.groups}
        reasons.set_options(Option(_reason(key, names.get(key), len(ids)), id=key) for key, ids in self._ids.items())
        keys = list(self._ids)
        reasons.highlighted = keys.index(chosen.id) if chosen and chosen.id in self._ids else 0

    def _list(self, attempts: Mapping[int, AttemptSummary]) -> None:
        chosen = self.query_one("#reasons", Options).highlighted_option
        key = (chosen.id if chosen else None) or _ALL
        picture, ids = self._picture, self._ids.get(key, ())
        words = picture.want.words if picture else ()
        shown = key, self._order, words
        other = shown != self._shown
        made_of = shown, ids, picture.found if picture else ()
        if picture is None or self._listed[0] != made_of:  # not at each move of the cursor: a run may be long
            self._listed = made_of, _ordered(ids, self._order, picture)
        self._shown = shown
        unit = picture.view.unit if picture else TFLOPS
        self.query_one(Ledger).show(self._listed[1], attempts, unit, other=other)
        title = f"{len(self._listed[1]):,} {self._order} first" + (f", with {' '.join(words)}" if words else "")
        self.query_one("#attempts-title", Static).update(title)


def _ordered(ids: Sequence[int], order: str, picture: Picture | None) -> Sequence[int]:
    """Return those ids that have the searched words, the one that comes first in ``order`` last."""
    if picture and picture.want.words:
        ids = [made for made in ids if made in picture.found]
    if picture and order == _FASTEST:
        speeds = dict(zip(picture.tried.ids, picture.tried.tflops, strict=True))
        return sorted(ids, key=lambda made: (speeds.get(made, 0.0), made))
    return ids[::-1] if order == _OLDEST else ids


def _source(picture: Picture) -> RenderableType:
    assert picture.attempt is not None, "only an attempt that was read is drawn"
    return code(picture.attempt.attempt.source, "python", line_numbers=True)


def _members(picture: Picture) -> dict[str, Sequence[int]]:
    """Return the ids of each group by its key: all, accepted, correct, then failures, the most frequent first."""
    every = sorted(made for group in picture.groups for made in group.attempts)
    found: dict[str, Sequence[int]] = {
        _ALL: every,
        _ACCEPTED: [version.attempt.id for version in picture.versions],
    }
    right = [group for group in picture.groups if group.status is Status.CORRECT]
    failed = [group for group in picture.groups if group.status is not Status.CORRECT]
    return found | {_key(group): group.attempts for group in (*right, *failed)}


def _key(group: Failures) -> str:
    return f"{group.status} {group.attempts[0]}"


def _reason(key: str, group: Failures | None, count: int) -> Text:
    text = Text(no_wrap=True, overflow="ellipsis").append(f"{count:>6} ", "bold")
    if group is None:
        return text.append(key)
    text.append(group.status.words, "" if group.status is Status.CORRECT else "red")
    return text.append(f": {first_line(group.message)}" if group.message else "")


def result(attempt: AttemptSummary, unit: Unit) -> str:
    """Return the score and the version it became, or the fault, in few words: the change stands on the same line."""
    if not attempt.geomean_tflops:
        return attempt.status.words
    speed = f"{unit.figure(attempt.geomean_tflops)}{' GB/s' if unit.nbytes else ''}"
    if attempt.version is not None:
        return f"{speed} -> v{attempt.version}"
    ruling = attempt.ruling.value.replace("_", " ") if attempt.ruling else ""
    return f"{speed} {ruling}".rstrip()


def describe(details: AttemptDetails, unit: Unit) -> Text:
    """Return everything known about an attempt except its source: what was changed, why, and with what result."""
    attempt, summary, step = details.attempt, details.summary, details.step
    origins = [*(f"v{number}" for number in summary.parents), *edited_from(summary.built_on)]
    made_of = f"from {', '.join(origins)}: " if origins else ""
    text = Text(printable(f"{made_of}{summary.change.strip() or 'seed'}"))
    score = attempt.evaluation.score
    text.append(f"\n{result(summary, unit)}" + (f"  {valued(score, unit)}" if score else ""), "bold")
    if summary.message:
        text.append(f": {printable(summary.message)}")
    if summary.decision and summary.version is None:
        text.append(f"\n{printable(summary.decision.told)}", "yellow")
    if summary.hypothesis:
        text.append(f"\nhypothesis: {printable(summary.hypothesis)}")
    if said := step.said_of(attempt.id):
        for label, words in (("expected", said.expected), ("seen", said.seen)):
            if words:
                text.append(f"\n{label}: {printable(words)}")
    for case in attempt.evaluation.cases:
        if not case.passed and case.message not in summary.message:
            text.append(f"\ncase {case.case}: {printable(case.message)}")
    text.append(
        f"\nattempt {attempt.id} of step {step.number} by {first_line(step.operator)}, "
        f"{attempt.finished:%Y-%m-%d %H:%M:%S} UTC, judged in {duration(summary.seconds)}\n",
        "dim",
    )
    return text
