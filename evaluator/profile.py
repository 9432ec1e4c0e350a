"""Profiles: the parts of a case's predicted time, what limits its loops, and what repairs would gain.

Everything is predicted by playing kernels again (``avo.evaluator.performance``); only ``Counted`` is measured.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from avo.evaluator.evaluation import CaseScore
from avo.evaluator.target import ScoreKind


@dataclass(frozen=True)
class Source:
    """The source text that line tables refer to."""

    file: str
    """The file's name in the line tables."""
    text: str

    def line(self, number: int | None) -> str:
        """Return a line without its indentation; empty for a line that does not exist."""
        lines = self.text.splitlines()
        return lines[number - 1].strip() if number and 0 < number <= len(lines) else ""


def opcode_of(instruction: str) -> str:
    """Return the opcode of an instruction's text, with its modifiers."""
    return next(word for word in instruction.split() if not word.startswith("@"))


@dataclass(frozen=True)
class InstructionCost:
    """The cost of one instruction to a warp in one pass, for one reason."""

    address: int
    instruction: str
    line: int | None
    """Line of the profiled source; None for code from elsewhere."""
    source: str
    reason: str
    waits_for: str
    """The instruction whose result is waited for, if known."""
    waits_for_line: int | None
    clocks_per_pass: float
    share: float
    """Share of the warp's time, 0 to 1."""


@dataclass(frozen=True)
class LineCost:
    """The cost of one source line to a warp in one pass."""

    line: int | None
    source: str
    clocks_per_pass: float
    share: float
    """Share of the warp's time, 0 to 1. The wait for a matrix product counts for the line of the product."""
    reasons: Mapping[str, float]
    """Parts of the share by reason, largest first."""
    waits_for: str
    """The instruction that is waited for most; empty if there is none or it is not known."""


@dataclass(frozen=True)
class Role:
    """The warps of a CTA that run the same code; under warp specialisation there are several."""

    warps: int
    reasons: Mapping[str, float]
    """Shares of a warp's time by reason, largest first; they add up to 1."""
    instructions: tuple[InstructionCost, ...]
    """Instructions, most expensive first."""
    lines: tuple[LineCost, ...]
    """Source lines, most expensive first."""
    products_and_waits: tuple[InstructionCost, ...] = ()
    """Matrix products and waits, cheap ones too: all of a line with one opcode together, as ``8 HGMMA...``."""


@dataclass(frozen=True)
class Section:
    """A loop without its inner loops, or the code outside all loops."""

    name: str
    line: int | None
    """Line of the loop; None outside loops, or if it is not known."""
    passes_per_program: float
    """Number of passes, mean over programs."""
    clocks_per_pass: float
    """Clocks of one pass by every CTA resident on the SM."""
    time_us: float
    utilisation: Mapping[str, float]
    """Busy fraction of each pipe, 0 to 1."""
    critical: str
    """The resource whose relief shortens a pass most; empty if no relief does."""
    relief_percent: Mapping[str, float]
    """How much shorter a pass gets when a resource is a quarter faster, largest first: the mean of several plays."""
    relief_spread: Mapping[str, float]
    """How far from it the mean of very many plays may be, in points: a gain that is no larger is not resolved."""
    roles: tuple[Role, ...]


@dataclass(frozen=True)
class Part:
    """A part of a case's time. The parts add up to the whole."""

    name: str
    launch: int | None
    """The launch that it belongs to, counted from 0."""
    time_us: float
    share: float


@dataclass(frozen=True)
class LaunchProfile:
    """One launch of a case."""

    kernel: str
    programs: int
    ctas_per_sm: int
    """CTAs resident on an SM together."""
    limited_by: tuple[str, ...]
    """The resource that keeps more CTAs from an SM."""
    waves: float
    """Number of programs over the places for them on all SMs."""
    registers: int
    """Registers per thread at launch."""
    spill_bytes: int
    """Bytes of spills per thread."""
    shared_bytes: int
    """Bytes of shared memory per CTA."""
    time_us: float
    clock_ghz: float
    """The clock that is assumed: the power limit lowers it under load."""
    sections: tuple[Section, ...]
    """The code outside loops first, then the loops in the order of the IR; those that take no time are left out."""


@dataclass(frozen=True)
class WhatIf:
    """The case's time with one change in all its kernels."""

    name: str
    label: str
    time_us: float
    tflops: float
    gain_percent: float
    """Gain in speed, the mean of several plays."""
    spread_percent: float
    """How far from it the mean of very many plays may be, in points."""
    note: str
    """What the repair takes, or why it changes nothing."""

    @property
    def resolved(self) -> bool:
        """Whether the gain is larger than its spread."""
        return abs(self.gain_percent) > self.spread_percent


@dataclass(frozen=True)
class CodeLine:
    """One instruction and its cost to a warp in one pass."""

    address: int
    instruction: str
    line: int | None
    """Line of the profiled source; None for code from elsewhere."""
    reason: str
    """The reason for most of its time; empty if it takes none."""
    clocks_per_pass: float
    share: float
    """Share of the warp's time, 0 to 1."""


@dataclass(frozen=True)
class Code:
    """The machine code of the section that takes most time."""

    kernel: str
    section: str
    sass: tuple[CodeLine, ...]
    """Instructions by address; under warp specialisation, role by role."""
    ptx: tuple[str, ...]
    """The loop of PTX that most of it was made from, without line tables; else the lines from first to last."""


RUNNING = "running"
"""The state of a warp that issues, or waits only for a fixed latency."""


@dataclass(frozen=True, slots=True)
class PipeLane:
    """How busy a pipe is over time, by all warps or by those of a role."""

    name: str
    busy: tuple[float, ...]
    """Busy fraction in each cell, 0 to 1."""


@dataclass(frozen=True, slots=True)
class WarpLane:
    """The activity of a group of warps over time."""

    name: str
    states: tuple[str, ...]
    """What most of the warps' time is spent on in each cell: ``RUNNING``, or the reason to wait."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """The activity of one SM during a stretch of the play."""

    name: str
    """Name of the section that was played."""
    clocks: float
    """Length in clocks."""
    passes: tuple[float, ...]
    """Clocks at which passes of the first lane's warps begin; empty for code that is not a loop."""
    pipes: tuple[PipeLane, ...]
    warps: tuple[WarpLane, ...]


@dataclass(frozen=True)
class LineSamples:
    """What warps were sampled to wait for at one source line: shares of all samples of the launch, 0 to 1."""

    line: int | None
    source: str
    share: float
    reasons: Mapping[str, float]
    """Parts of the share by reason, in ncu's words, largest first."""


@dataclass(frozen=True)
class Counters:
    """What ncu measured of one launch."""

    kernel: str
    values: Mapping[str, float]
    """By name, with the unit: ``tensor pipe busy, %``; without what its release or the card does not have."""
    lines: tuple[LineSamples, ...]
    """Source lines, most samples first."""


@dataclass(frozen=True)
class Counted:
    """What was measured of one case."""

    card: str = ""
    launches: tuple[Counters, ...] = ()
    why: str = ""
    """Why nothing was, in one line."""


@dataclass(frozen=True)
class Profile:
    """The profile of one case."""

    kind: ScoreKind
    target: str
    score: CaseScore
    parts: tuple[Part, ...]
    launches: tuple[LaunchProfile, ...]
    what_if: tuple[WhatIf, ...]
    """Repairs, largest gain first."""
    timeline: Timeline | None
    """Timeline of two passes of the section that takes most time."""
    code: Code | None = None
    """Machine code of the same section; None if it was not played as a loop."""
    counted: Counted | None = None
    """What a profiler measured; None where nobody looked, or why not was said before."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data for JSON, without the timeline and the code."""
        data = asdict(self)
        del data["timeline"], data["code"]
        return data


def measured_tables(profile: Profile) -> Iterator[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """Yield what was measured of each launch beside what is predicted, as tables: the head and the rows, first of its
    counters, then of the lines that warps were sampled at. A prediction is empty where there is none.
    """
    for launch, counters in zip(profile.launches, profile.counted.launches if profile.counted else (), strict=False):
        yield (counters.kernel, "predicted", "measured"), list(_counters(launch, counters))
        yield ("line", "predicted", "measured", "mostly", "source"), list(_sampled(launch, counters))


def _counters(launch: LaunchProfile, counters: Counters) -> Iterator[tuple[str, ...]]:
    busy: Counter[str] = Counter()
    for section in launch.sections:
        percent = 100 * section.time_us / launch.time_us
        busy.update({pipe: share * percent for pipe, share in section.utilisation.items()})
    warps = max((sum(role.warps for role in section.roles) for section in launch.sections), default=0)
    predicted = {
        "time, us": launch.time_us,
        "SM clock, GHz": launch.clock_ghz,
        "tensor pipe busy, %": busy["tensor"],
        "issue slots used, %": busy["issue"],
        "L2 of its peak, %": busy["l2"],
        "warps on an SM": warps * launch.ctas_per_sm,
    }
    for name, value in counters.values.items():
        yield name, f"{predicted[name]:,.2f}" if name in predicted else "", f"{value:,.{0 if value > 1e4 else 2}f}"


def _sampled(launch: LaunchProfile, counters: Counters) -> Iterator[tuple[str, ...]]:
    roles = [(section.time_us * role.warps, role) for section in launch.sections for role in section.roles]
    predicted: Counter[int | None] = Counter()
    for weight, role in roles:
        predicted.update({cost.line: cost.share * weight for cost in role.lines})
    whole = sum(weight for weight, _ in roles)
    for found in counters.lines:
        (reason, share), *_ = found.reasons.items()
        listed = f"{predicted[found.line] / whole:.1%}" if found.line in predicted else ""
        yield str(found.line or "?"), listed, f"{found.share:.1%}", f"{reason} {share / found.share:.0%}", found.source
