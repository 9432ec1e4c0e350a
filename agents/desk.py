"""What an operator reads and writes besides evaluations: one-method seams, and an in-memory desk for tests."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from avo.agents.model import Usage
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.inspection import Findings, Inspection
from avo.lineage_db.directions import Direction
from avo.lineage_db.records import Attempt, RunSummary, Version


def _nowhere(run: str, number: int | None) -> Version:
    raise LookupError(f"there is no run {run!r}")


@dataclass(frozen=True, slots=True)
class Left:
    """The budgets that are left, of the step or of its run, whichever is less. None means no limit."""

    tokens: int | None = None
    usd: float | None = None
    evaluations: int | None = None
    """New candidates that may still be evaluated."""
    looks: int | None = None
    """New candidates that may still be looked at without a verdict."""
    minutes: float | None = None
    spent: str = ""
    """Names the budget that does not allow another model call; empty while all of them do."""


class Record(Protocol):
    """Adds an entry to the transcript of the step."""

    def __call__(self, kind: str, content: dict[str, Any]) -> None:
        """Write ``content``, plain data, before anything else happens."""
        ...


class Charge(Protocol):
    """Records a model call and its cost, whether or not it gave a usable reply."""

    def __call__(self, *, model: str, usage: Usage, usd: float | None, seconds: float, error: str) -> None:
        """Record the call; ``error`` says why it gave no usable reply, and is empty if it did."""
        ...


class Listen(Protocol):
    """Notes how much of a model's reply has come, for those who watch. The next charge ends it."""

    def __call__(
        self, *, model: str, seconds: float, characters: int | None, wait_s: float = 0.0, trouble: str = ""
    ) -> None:
        """Note it ``seconds`` after the request; ``characters`` is None until anything has come.

        Before a request that is put off by ``wait_s`` seconds, ``trouble`` says why.
        """
        ...


@dataclass(frozen=True, slots=True)
class Desk:
    """What an operator works with in one step."""

    inspect: Callable[[Inspection], Findings]
    """Inspects a candidate without a verdict, or runs a script. Raises ``EvaluatorUnavailable``."""
    attempt: Callable[[int], Attempt]
    """Returns an attempt of the run by its id, with its source; raises ``LookupError`` if there is none."""
    record: Record
    charge: Charge
    remember: Callable[[str], None]
    """Keeps a note for later steps of the run."""
    hand_over: Callable[[str], None]
    """Leaves a text to the next step of the run, as this one ends."""
    left: Callable[[], Left]
    """Returns what is left of the budgets now."""
    listen: Listen
    explore: Callable[[Sequence[Direction]], None] = lambda directions: None
    """Keeps directions with what this step saw of them, for later steps and other runs."""
    news: Callable[[], Sequence[str]] = lambda: ()
    """Returns what was found since it was asked last, in lines for the operator."""
    runs: Callable[[], Sequence[RunSummary]] = lambda: ()
    """Returns the other runs of the database that have versions."""
    version: Callable[[str, int | None], Version] = _nowhere
    """Returns a version of any run by its name, the best for None; raises ``LookupError`` if there is none."""


@dataclass
class FakeDesk:
    """An in-memory desk for tests."""

    budget: Left = Left()
    findings: Findings | None = None
    """The result of every inspection; None: no evaluator is available."""
    attempts: dict[int, Attempt] = field(default_factory=dict)
    inspections: list[Inspection] = field(default_factory=list)
    entries: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """The transcript: kind and content of each entry."""
    calls: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    handovers: list[str] = field(default_factory=list)
    explored: list[Direction] = field(default_factory=list)
    heard: list[int | None] = field(default_factory=list)
    """How many characters had come, each time that this was noted."""
    waits: list[tuple[float, str]] = field(default_factory=list)
    """How long each request was put off, in seconds, and why."""

    @property
    def desk(self) -> Desk:
        """The desk to give to an operator."""
        return Desk(
            self._inspect,
            self.attempts.__getitem__,
            self._record,
            self._charge,
            self.notes.append,
            self.handovers.append,
            self._left,
            self._listen,
            self.explored.extend,
        )

    def _inspect(self, inspection: Inspection) -> Findings:
        self.inspections.append(inspection)
        if self.findings is None:
            raise EvaluatorUnavailable("there is no judge")
        return self.findings

    def _record(self, kind: str, content: dict[str, Any]) -> None:
        self.entries.append((kind, content))

    def _charge(self, **call: Any) -> None:
        self.calls.append(call)

    def _left(self) -> Left:
        return self.budget

    def _listen(
        self, *, model: str, seconds: float, characters: int | None, wait_s: float = 0.0, trouble: str = ""
    ) -> None:
        if trouble:
            self.waits.append((wait_s, trouble))
        else:
            self.heard.append(characters)
