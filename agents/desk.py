"""What an operator sees and writes beside evaluations: one-method seams, and a desk in memory for tests."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from agents.model import Usage
from evaluator.errors import EvaluatorUnavailable
from evaluator.inspection import Findings, Inspection
from lineage_db.records import Attempt


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of the budgets of a step and its run, whichever is less. None: no limit."""

    tokens: int | None = None
    usd: float | None = None
    evaluations: int | None = None
    """New ones that may still be made."""
    minutes: float | None = None
    spent: str = ""
    """The budget that has no room for another call of a model, in words; empty while all have."""


class Record(Protocol):
    """Adds an entry to the transcript of the step."""

    def __call__(self, kind: str, content: dict[str, Any]) -> None:
        """Write ``content``, plain data, before anything else happens."""
        ...


class Charge(Protocol):
    """Writes down a call of a model, whether or not it was of use."""

    def __call__(self, *, model: str, usage: Usage, usd: float | None, seconds: float, error: str) -> None:
        """``error`` says why there is no reply that can be used; empty where there is one."""
        ...


@dataclass(frozen=True, slots=True)
class Desk:
    """What an operator works with in one step."""

    inspect: Callable[[Inspection], Findings]
    """Looks at a candidate without a verdict, or runs a script. Raises ``EvaluatorUnavailable``."""
    attempt: Callable[[int], Attempt]
    """Returns an attempt of the run by its id, source included; raises ``LookupError`` where there is none."""
    record: Record
    charge: Charge
    remember: Callable[[str], None]
    """Keeps a note for later steps of the run."""
    left: Callable[[], Left]
    """Says what is left of the budgets at this moment."""


@dataclass
class FakeDesk:
    """A desk in memory."""

    budget: Left = Left()
    findings: Findings | None = None
    """Of every look; None: there is nobody to look."""
    attempts: dict[int, Attempt] = field(default_factory=dict)
    inspections: list[Inspection] = field(default_factory=list)
    entries: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Of the transcript."""
    calls: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def desk(self) -> Desk:
        """What an operator is given."""
        return Desk(self._inspect, self.attempts.__getitem__, self._record, self._charge, self.notes.append, self._left)

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
