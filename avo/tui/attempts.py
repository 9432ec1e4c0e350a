"""The attempts of a run, failures included, grouped by reason."""

from collections.abc import Mapping, Sequence

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from avo.tui.diff import code
from avo.tui.keys import Options, Scroll
from avo.tui.lines import Lines
from avo.tui.reader import AttemptDetails, Picture, Want
from avo.tui.view import View
from avo.watch.failures import Failures
from avo.watch.wording import duration, edited_from, first_line, printable, unit, verdict
from evaluator.evaluation import Status
from evaluator.problem import Baseline
from lineage_db.records import AttemptSummary

AROUND = 40
"""Number of rows that are read above and below the visible ones."""
_ALL, _ACCEPTED = "all", "accepted"


class Ledger(Lines):
    """The attempts of one group, newest first. Rows that are not read yet show dots."""

    def __init__(self) -> None:
        super().__init__(id="attempts-table")
        self._ids: Sequence[int] = ()
        self._attempts: dict[int, AttemptSummary] = {}

    def show(self, ids: Sequence[int], attempts: Mapping[int, AttemptSummary], *, other: bool) -> None:
        """Show the attempts ``ids``, oldest first. ``other``: they are another group than before."""
        self._attempts = {**self._attempts, **attempts} if len(self._attempts) < 20 * AROUND else dict(attempts)
        above = 0 if other else len(ids) - self.count
        self._ids = ids
        if other:
            self.cursor = 0
            self.set_count(len(ids))
        elif above:
            self.set_count(len(ids), above=max(0, above))
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
            (f"{result(attempt):<19.19} ", "" if attempt.geomean_tflops else "red"),
            first_line(attempt.change) or "seed",
        )


class AttemptsView(View):
    """Groups on the left; on the right the attempts of one group, and the details of the attempt under the cursor."""

    def __init__(self) -> None:
        super().__init__(id="attempts-view")
        self._groups: tuple[Failures, ...] | None = None
        self._versions = 0
        self._ids: dict[str, Sequence[int]] = {}
        self._shown = ""
        self._detailed: AttemptDetails | None = None

    def compose(self) -> ComposeResult:
        """Lay out the three parts."""
        with Horizontal():
            yield Options(id="reasons")
            with Vertical(id="attempts-right"):
                yield Ledger()
                with Scroll(id="attempt-page"):
                    yield Static(id="attempt-message", markup=False)
                    yield Static(id="attempt-source", markup=False)

    def want(self) -> Want:
        """Return the groups, the visible rows, and the attempt under the cursor."""
        ledger = self.query_one(Ledger)
        return Want(groups=True, attempts=ledger.wanted, attempt=ledger.under)

    def show(self, picture: Picture, baselines: Sequence[Baseline]) -> None:
        """Show new counts and rows."""
        if not picture.want.groups:
            return
        versions = len(picture.versions)
        if picture.groups is not self._groups or versions != self._versions:
            self._groups, self._versions = picture.groups, versions
            self._list_reasons(picture)
        self._list(picture.attempts)
        if picture.attempt and picture.attempt != self._detailed:
            moved = self._detailed is None or picture.attempt.attempt.id != self._detailed.attempt.id
            self._detailed = picture.attempt
            self.query_one("#attempt-message", Static).update(describe(picture.attempt))
            source = code(picture.attempt.attempt.source, "python", line_numbers=True)
            self.query_one("#attempt-source", Static).update(source)
            if moved:
                self.query_one("#attempt-page", Scroll).scroll_home(animate=False)

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
        self.query_one(Ledger).show(self._ids.get(key, ()), attempts, other=key != self._shown)
        self._shown = key


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
    text.append(verdict(group.status), "" if group.status is Status.CORRECT else "red")
    return text.append(f": {first_line(group.message)}" if group.message else "")


def result(attempt: AttemptSummary) -> str:
    """Return the score and the version it became, or the fault, in few words: the change stands on the same line."""
    if not attempt.geomean_tflops:
        return verdict(attempt.status)
    if attempt.version is not None:
        return f"{attempt.geomean_tflops:.1f} -> v{attempt.version}"
    ruling = attempt.decision.ruling.value.replace("_", " ") if attempt.decision else ""
    return f"{attempt.geomean_tflops:.1f} {ruling}".rstrip()


def describe(details: AttemptDetails) -> Text:
    """Return everything known about an attempt except its source: what was changed, why, and with what result."""
    attempt, summary, step = details.attempt, details.summary, details.step
    origins = [*(f"v{number}" for number in summary.parents), *edited_from(summary.built_on)]
    made_of = f"from {', '.join(origins)}: " if origins else ""
    text = Text(printable(f"{made_of}{summary.change.strip() or 'seed'}"))
    score = attempt.evaluation.score
    text.append(f"\n{result(summary)}" + (f"  {unit(score)}" if score else ""), "bold")
    if summary.message:
        text.append(f": {printable(summary.message)}")
    if summary.decision and summary.version is None:
        text.append(f"\n{printable(summary.decision.told)}", "yellow")
    if summary.hypothesis:
        text.append(f"\nhypothesis: {printable(summary.hypothesis)}")
    said = step.submission
    if said and said.attempt_id == attempt.id:
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
