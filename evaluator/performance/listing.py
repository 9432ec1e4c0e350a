"""Listings: the machine code that takes most of a case's time, with what each instruction waits for."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter

from avo.evaluator.performance.structure import MATRIX
from avo.evaluator.profile import InstructionCost, Profile, Section, opcode_of

_LEAST_SHARE = 0.005
"""Share of a warp's time below which a wait is not named."""
_CHEAP_SHARE = 0.002
_SHOWN_OPCODES = 4
"""Number of opcodes named for cheap instructions in a row, which share a line."""
_WAITS = frozenset({"WARPGROUP", "DEPBAR", "BAR", "UTCBAR"})


def stands_out(opcode: str) -> bool:
    """Return whether an instruction is listed even if it is cheap: a matrix product, or a wait of some kind."""
    base = opcode.partition(".")[0]
    return base in MATRIX or base in _WAITS or opcode.startswith("SYNCS.PHASECHK")


def hot_code(profile: Profile) -> str:
    """Return the most expensive section of a profile's longest launch, from a profile of all its instructions.

    Instructions are in the order of their addresses, each with its predicted share of a warp's time.
    """
    launch = max(profile.launches, key=attrgetter("time_us"))
    section = max(launch.sections, key=attrgetter("time_us"))
    lines = [
        f"{profile.score.case}, kernel {launch.kernel}, {section.name}: "
        f"{section.clocks_per_pass:.0f} clocks per pass, {profile.kind}"
    ]
    for number, role in enumerate(section.roles):
        if len(section.roles) > 1:
            lines.append(f"role {number}, {role.warps} warps")
        lines += _rows(role.instructions)
    return "\n".join([*lines, *_nothing(section)])


def _rows(costs: Iterable[InstructionCost]) -> Iterable[str]:
    yield f"{'address':>7} {'share':>6} {'line':>5}  instruction  <- waits"
    ordered = sorted(costs, key=attrgetter("address"))
    each = [list(charges) for _, charges in groupby(ordered, key=attrgetter("address"))]
    for kind, run in groupby(each, key=_kind):
        instructions = list(run)
        if kind and len(instructions) > (2 if kind == "cheap" else 1):
            yield _together(instructions)
        else:
            yield from map(_row, instructions)


def _row(charges: Sequence[InstructionCost]) -> str:
    own = sorted(charges, key=lambda cost: -cost.share)
    waits = ", ".join(
        f"{cost.reason}{f' of {cost.waits_for}' if cost.waits_for else ''} {cost.share:.1%}"
        for cost in own
        if cost.share >= _LEAST_SHARE
    )
    first = own[0]
    line = f"{first.address:#07x} {_share(own):>6.1%} {first.line or '?':>5}  {first.instruction}"
    return f"{line}  <- {waits}" if waits else line


def _together(instructions: Sequence[Sequence[InstructionCost]]) -> str:
    opcodes = Counter(_opcode(charges[0].instruction) for charges in instructions)
    named = ", ".join(f"{count} {opcode}" for opcode, count in opcodes.most_common(_SHOWN_OPCODES))
    share = sum(map(_share, instructions))
    return f"{'...':>7} {share:>6.1%} {'':>5}  {len(instructions)} cheap instructions: {named}"


def _kind(charges: Sequence[InstructionCost]) -> str:
    """Return which cheap instructions in a row share a line: empty for one that is not cheap."""
    if _share(charges) >= _CHEAP_SHARE:
        return ""
    opcode = opcode_of(charges[0].instruction)
    return opcode if stands_out(opcode) else "cheap"


def _opcode(instruction: str) -> str:
    return opcode_of(instruction).partition(".")[0]


def _share(charges: Sequence[InstructionCost]) -> float:
    return sum(cost.share for cost in charges)


def _nothing(section: Section) -> Iterable[str]:
    return () if section.roles else ("its instructions were not played",)
