"""Steps, newest first, and the transcript of one."""

from collections.abc import Mapping, Sequence

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Static

from avo.evaluator.problem import Baseline
from avo.lineage_db.records import StepState
from avo.tui.lines import Folds, Lines
from avo.tui.reader import Picture, Transcript, Want
from avo.tui.transcript import entries, spent
from avo.tui.view import View
from avo.watch.view import StepProgress
from avo.watch.wording import counted, duration, first_line, looked

AROUND = 40
"""Number of rows that are read above and below the visible ones."""


class StepList(Lines):
    """All steps of the run."""

    def __init__(self) -> None:
        super().__init__(id="steps")
        self._work: dict[int, StepProgress] = {}

    def show(self, count: int, work: Mapping[int, StepProgress]) -> None:
        """Show ``count`` steps; ``work`` holds those that were read."""
        self._work = {**self._work, **work} if len(self._work) < 20 * AROUND else dict(work)
        if count != self.count:
            self.set_count(count, above=count - self.count if self.count else 0)
        self.refresh()

    @property
    def under(self) -> int | None:
        """Number of the step under the cursor."""
        return self.count - 1 - self.cursor if self.count else None

    @property
    def wanted(self) -> range:
        """Numbers of the steps in the visible rows and around them."""
        sight = self.sight
        return range(max(0, self.count - sight.stop - AROUND), min(self.count, self.count - sight.start + AROUND))

    def row(self, index: int) -> Text:
        """Return number, state, tries and cost of a step."""
        number = self.count - 1 - index
        work = self._work.get(number)
        if work is None:
            return Text(f"{number:>6}  ...", "dim")
        step = work.step
        words = f"{work.tried} tried{looked(step.looks)}"
        if work.spend.calls:
            words += f", {spent(work.spend)}"
        return Text.assemble(
            (f"{number:>6}  ", "dim"),
            (f"{step.state:<9} ", "red" if step.state is StepState.FAILED else ""),
            f"{words}  {first_line(step.reason)}",
        )


class StepsView(View):
    """The steps, and the transcript of the one under the cursor."""

    def __init__(self) -> None:
        super().__init__(id="steps-view")
        self._transcript: Transcript | None = None

    def compose(self) -> ComposeResult:
        """Lay out both."""
        with Horizontal():
            yield StepList()
            with Vertical(id="steps-right"):
                yield Static(id="step-title", markup=False)
                yield Folds(id="transcript")

    def want(self) -> Want:
        """Return the visible steps and the transcript of one."""
        steps = self.query_one(StepList)
        return Want(steps=steps.wanted, transcript=steps.under)

    def show(self, picture: Picture, baselines: Sequence[Baseline]) -> None:
        """Show new steps and the transcript of the one under the cursor."""
        steps = self.query_one(StepList)
        view = picture.view
        steps.show(view.steps, {**{work.step.number: work for work in view.working}, **picture.steps})
        transcript = picture.transcript
        if transcript and transcript != self._transcript and transcript.work.step.number == steps.under:
            moved = self._transcript is None or self._transcript.work.step.id != transcript.work.step.id
            self._transcript = transcript
            self.query_one("#step-title", Static).update(_title(transcript.work))
            folds = self.query_one(Folds)
            folds.show(entries(transcript, picture.view.unit))
            if moved:
                folds.cursor = 0

    def enter(self) -> None:
        """Focus the steps."""
        self.query_one(StepList).focus()

    def enter_part(self) -> None:
        """Focus the transcript."""
        self.query_one(Folds).focus()

    @on(Lines.Moved, "#steps")
    @on(Lines.Looked, "#steps")
    def _look(self) -> None:
        self.needs()

    @on(Lines.Chosen, "#steps")
    def _go_to_transcript(self) -> None:
        self.enter_part()


def _title(work: StepProgress) -> Text:
    step = work.step
    took = f", {duration((step.finished - step.started).total_seconds())}" if step.finished else ""
    made = f"{work.tried} tried{looked(step.looks)}"
    words = f"  {step.state}{took}, {first_line(step.operator)} on {first_line(step.worker)}, {made}"
    if work.spend.calls:
        words += f", {counted(work.spend.calls, 'call')}, {spent(work.spend)}"
    return Text.assemble((f"Step {step.number}", "bold"), words)
