"""Entries of the journal: what operators and the supervisor write down besides attempts. Times are UTC."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from avo.lineage_db.directions import Direction


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of a step's transcript. Entries are only ever added."""

    step_id: int
    number: int
    """Position in the transcript, from 0."""
    kind: str
    """What ``content`` is; the kinds are up to the operator that writes the transcript."""
    content: Mapping[str, Any]
    """Plain data for JSON."""
    written: datetime


UNANSWERED = "the step ended before the reply: its cost is not known"
"""The error of a call that was under way when its step ended, unless the reply came after all."""


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One call of a model and its cost, whether or not it was of use."""

    id: int
    run_id: int
    step_id: int | None
    """Number of the step; None for a call that belongs to no step, such as the supervisor's."""
    model: str
    input_tokens: int
    """All input tokens, cached ones included."""
    cached_tokens: int
    output_tokens: int
    usd: float | None
    """Cost in US dollars; None where the model has no price."""
    seconds: float
    error: str
    """Why there was no usable reply; empty where there was one."""
    finished: datetime


@dataclass(frozen=True, slots=True)
class Spend:
    """The total of some model calls."""

    calls: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0
    """The cost of the calls whose price is known."""

    @property
    def tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Spend") -> "Spend":
        return Spend(
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            self.usd + other.usd,
        )


@dataclass(frozen=True, slots=True)
class PaidStep:
    """What a step that has ended paid for a model, and gained."""

    number: int
    model: str
    """The one that had most of its calls."""
    tokens: int
    usd: float | None
    """None where the price of a call that used tokens is not known."""
    gain: float
    """Logarithm of the speed-up of its version over the best one before; 0 without one that is faster."""


@dataclass(frozen=True, slots=True)
class Memory:
    """A text that a step left for later steps of its run."""

    id: int
    run_id: int
    step_number: int
    text: str
    written: datetime
    handover: bool = False
    """Whether it is what the step handed over when it ended; else a note."""
    direction: Direction | None = None
    """The direction that ``text`` is about, as its step left it; None for a note and a handover."""


@dataclass(frozen=True, slots=True)
class Intervention:
    """What the supervisor told the operators after it saw the trajectory."""

    id: int
    run_id: int
    after_step: int
    """Number of the newest step that the supervisor had seen."""
    level: str
    """How far the intervention goes: nudge, redirect or restart."""
    reason: str
    """What the supervisor saw."""
    directions: tuple[str, ...]
    """What to try next."""
    source: str
    """Where the directions come from: a model's name, or the knowledge base."""
    restart_from: int | None
    """Number of the version that the next steps start from, where they return to an earlier one."""
    made: datetime
