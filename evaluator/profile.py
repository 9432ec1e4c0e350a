"""Profiles: what a case's predicted time is made of, what holds its loops back, and what repairs would gain.

All of it is predicted, by playing kernels again (``evaluator.performance``); nothing here is measured.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from evaluator.evaluation import CaseScore
from evaluator.target import ScoreKind


@dataclass(frozen=True)
class Source:
    """The text that line tables refer to."""

    file: str
    """The name by which line tables refer to it."""
    text: str

    def line(self, number: int | None) -> str:
        """Return line ``number`` without its indentation; ``""`` where there is none."""
        lines = self.text.splitlines()
        return lines[number - 1].strip() if number and 0 < number <= len(lines) else ""


@dataclass(frozen=True)
class InstructionCost:
    """What one instruction costs a warp in one pass, for one reason."""

    address: int
    instruction: str
    line: int | None
    """Line of the profiled source; None for code from elsewhere."""
    source: str
    reason: str
    waits_for: str
    """The instruction whose result is waited for, where one is known."""
    waits_for_line: int | None
    clocks_per_pass: float
    share: float
    """Share of the warp's time, 0 to 1."""


@dataclass(frozen=True)
class LineCost:
    """What one line of source costs a warp in one pass."""

    line: int | None
    source: str
    clocks_per_pass: float
    share: float
    """Share of the warp's time, 0 to 1. The wait for a matrix product counts for the line of the product."""
    reasons: Mapping[str, float]
    """Parts of the share by reason, largest first."""
    waits_for: str
    """The instruction that is waited for most; empty where nothing is, or it is not known."""


@dataclass(frozen=True)
class Role:
    """The warps of a CTA that run the same code; under warp specialisation there are several."""

    warps: int
    reasons: Mapping[str, float]
    """Shares of a warp's time by reason, largest first; 1 together."""
    instructions: tuple[InstructionCost, ...]
    """Most expensive first."""
    lines: tuple[LineCost, ...]
    """Most expensive first."""


@dataclass(frozen=True)
class Section:
    """A loop, without those inside it; or the code outside all loops."""

    name: str
    line: int | None
    """Where the loop is written; None outside loops, or where that is not known."""
    passes_per_program: float
    """Mean over programs."""
    clocks_per_pass: float
    """While all CTAs resident on the SM do one each."""
    time_us: float
    utilisation: Mapping[str, float]
    """Busy fraction of each pipe, 0 to 1."""
    critical: str
    """The resource whose relief shortens a pass most; empty where none does."""
    relief_percent: Mapping[str, float]
    """How much shorter a pass gets when a resource is a quarter faster, by resource, largest first."""
    roles: tuple[Role, ...]


@dataclass(frozen=True)
class Part:
    """A part of a case's time. The parts add up to the whole."""

    name: str
    launch: int | None
    """Which launch of the case it belongs to, from 0."""
    time_us: float
    share: float


@dataclass(frozen=True)
class LaunchProfile:
    """One launch."""

    kernel: str
    programs: int
    ctas_per_sm: int
    """Resident together."""
    limited_by: tuple[str, ...]
    """What keeps an SM from holding more CTAs."""
    waves: float
    """Programs divided by the CTAs that all SMs hold together."""
    registers: int
    """Per thread at launch."""
    spill_bytes: int
    """Per thread."""
    shared_bytes: int
    """Per CTA."""
    limiter: str
    time_us: float
    sections: tuple[Section, ...]
    """Code outside loops first, then the loops in the order of the IR; those without time are left out."""


@dataclass(frozen=True)
class WhatIf:
    """The case's time with something changed in all its kernels."""

    name: str
    label: str
    time_us: float
    tflops: float
    gain_percent: float
    """How much faster the case gets."""
    note: str
    """What it takes, or why nothing changes."""


@dataclass(frozen=True)
class CodeLine:
    """One instruction, and what it costs a warp in one pass."""

    address: int
    instruction: str
    line: int | None
    """Line of the profiled source; None for code from elsewhere."""
    reason: str
    """What most of its time is spent on; empty for one that takes none."""
    clocks_per_pass: float
    share: float
    """Share of the warp's time, 0 to 1."""


@dataclass(frozen=True)
class Code:
    """The machine code of the section that takes most time."""

    kernel: str
    section: str
    sass: tuple[CodeLine, ...]
    """Instructions in order of address; under warp specialisation, role by role."""
    ptx: tuple[str, ...]
    """The loop of PTX that most of it was made from, without line tables; all lines from the first to the last where
    there is no such loop."""


RUNNING = "running"
"""State of a warp that issues, or waits for a fixed latency only."""


@dataclass(frozen=True, slots=True)
class PipeLane:
    """How busy a pipe is."""

    name: str
    busy: tuple[float, ...]
    """Busy fraction in each cell, 0 to 1."""


@dataclass(frozen=True, slots=True)
class WarpLane:
    """What a group of warps does."""

    name: str
    states: tuple[str, ...]
    """What the warps spend most of each cell on: ``RUNNING``, or the reason to wait."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """What happened on one SM during a while of the play."""

    name: str
    """What was played."""
    clocks: float
    """How long it took, in clocks."""
    passes: tuple[float, ...]
    """When the first lane's warps begin a pass, in clocks; empty for code outside loops."""
    pipes: tuple[PipeLane, ...]
    warps: tuple[WarpLane, ...]


@dataclass(frozen=True)
class Profile:
    """One case."""

    kind: ScoreKind
    target: str
    score: CaseScore
    parts: tuple[Part, ...]
    launches: tuple[LaunchProfile, ...]
    what_if: tuple[WhatIf, ...]
    """Largest gain first."""
    timeline: Timeline | None
    """Two passes of the section that takes most time."""
    code: Code | None = None
    """The machine code of the same section; None where it was not played as a loop."""

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON, without the timeline and the code."""
        data = asdict(self)
        del data["timeline"], data["code"]
        return data
