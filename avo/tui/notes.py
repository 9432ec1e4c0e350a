"""The memory of a run: notes of operators, and interventions of the supervisor."""

from collections.abc import Sequence
from datetime import datetime

from rich.text import Text
from textual.app import ComposeResult
from textual.widgets import Static

from avo.agents.mutate import Mutate
from avo.agents.single_turn import SingleTurn
from avo.evaluator.problem import Baseline
from avo.lineage_db.entries import Intervention, Memory
from avo.lineage_db.records import Run
from avo.tui.lines import Entry, Folds
from avo.tui.reader import Picture, Want
from avo.tui.transcript import spent
from avo.tui.view import View
from avo.watch.wording import first_line, paying


class NotesView(View):
    """Memories and interventions, newest first."""

    def __init__(self) -> None:
        super().__init__(id="memory-view")

    def compose(self) -> ComposeResult:
        """Lay out a title above the list."""
        yield Static("Reading the notes ...", id="notes-title", markup=False)
        yield Folds(id="notes")

    def want(self) -> Want:
        """Return the memories; interventions are always read."""
        return Want(memories=True)

    def show(self, picture: Picture, baselines: Sequence[Baseline]) -> None:
        """Show memories and interventions."""
        if not picture.want.memories:
            return
        memories, interventions = picture.memories, picture.interventions
        title = f"notes of operators: {len(memories)}, interventions of the supervisor: {len(interventions)}"
        if picture.view.spend.calls:
            title += f"; calls of models: {picture.view.spend.calls}, {spent(picture.view.spend)}"
        title += "".join(f"\n{paying(each)}" for each in picture.view.models)
        if not memories and not interventions:
            title += f"\n{_why_empty(picture.view.run)}"
        self.query_one("#notes-title", Static).update(title)
        dated = [(memory.written, _memory(memory)) for memory in memories]
        dated += [(made.made, _intervention(made)) for made in interventions]
        dated.sort(key=lambda each: each[0], reverse=True)
        self.query_one(Folds).show(tuple(entry for _, entry in dated))

    def enter(self) -> None:
        """Focus the list."""
        self.query_one(Folds).focus()


def _why_empty(run: Run) -> str:
    """Return why a run has no memory."""
    talks = run.operator not in (Mutate.name, SingleTurn.name)
    notes = "takes none so far" if talks else "takes none: only operators that call tools do"
    off = run.config.get("supervisor") == "off"
    steps_in = "is off" if off else "has had no reason to step in: it does when the search stalls"
    return f"The operator {first_line(run.operator)} {notes}. The supervisor {steps_in}."


def _memory(memory: Memory) -> Entry:
    title = Text.assemble(
        (f"{_when(memory.written)}  step {memory.step_number:<5} ", "dim"),
        (_kind(memory), "bold"),
        first_line(memory.text),
    )
    return Entry(f"memory {memory.id}", title, memory.text)


def _kind(memory: Memory) -> str:
    return "handover " if memory.handover else "note " if memory.direction is None else "direction "


def _intervention(made: Intervention) -> Entry:
    title = Text.assemble(
        (f"{_when(made.made)}  step {made.after_step:<5} ", "dim"),
        (f"◆ {first_line(made.level)} ", "bold magenta"),
        first_line(made.reason),
    )
    lines = [made.reason, *(f"- {direction}" for direction in made.directions)]
    if made.restart_from is not None:
        lines.append(f"restart from v{made.restart_from}")
    lines.append(f"source: {made.source}")
    return Entry(f"intervention {made.id}", title, "\n".join(lines))


def _when(moment: datetime) -> str:
    return f"{moment:%m-%d %H:%M}"
