"""Roles of a warp-specialised kernel: whose loops run side by side, by how many warps, and which belong together."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from avo.evaluator.performance.mbarriers import ORDERED
from avo.evaluator.performance.pipes import Costs, Kind, Op
from avo.evaluator.performance.sass import Instruction
from avo.evaluator.performance.structure import MATRIX, SINGLE_ISSUE, Loop, Structure

_PARTIAL_BARRIER = re.compile(r"^0x[0-9a-f]+, (0x[0-9a-f]+)$")
_COMPUTE = (MATRIX | {"LDTM", "STTM"}) - SINGLE_ISSUE
_WARPGROUP = 4
WAITS = (Kind.MBARRIER_WAIT_COPY, Kind.MBARRIER_WAIT_ROLE)
"""Waits at mbarriers with known names."""
ARRIVALS = (Kind.BULK_COPY, Kind.MBARRIER_ARRIVE, Kind.TENSOR_COMMIT)
"""What completes phases of mbarriers with known names."""
Phases = dict[int, Fraction]
"""A number of phases by the name of an mbarrier."""
Path = tuple[int, ...]
"""The way to a loop: its place among the outermost ones, then among those inside that one, and so on."""


@dataclass(frozen=True)
class Role:
    """One role: its outermost loops, which it passes one after the other, and the number of its warps."""

    loops: tuple[Loop, ...]
    warps: int
    started: Loop | None = None
    """The loop each pass of which starts the role; None where it is started once."""

    @property
    def leaves(self) -> tuple[Loop, ...]:
        """The loops without others inside that it passes one after the other each time that it is started."""
        return tuple(loop for loop in (self.started.inner if self.started else self.loops) if not loop.inner)

    def paths(self) -> dict[Path, Loop]:
        """Return all its loops, outer before inner."""
        return dict(_paths(self.loops, ()))

    def beside(self, path: Path) -> Loop | None:
        """Return the loop that it passes while another role passes the loop at ``path``: the one at the same depth,
        the last one there if it has fewer; None if it has none as deep.
        """
        loops, found = self.loops, None
        for place in path:
            if not loops:
                return None
            found = loops[min(place, len(loops) - 1)]
            loops = found.inner
        return found


def find_roles(structure: Structure, warps: int) -> list[Role]:
    """Return the roles of a kernel with ``warps`` warps: the default one first, then those that are dispatched.

    Where the default role starts the others in a loop, each has a loop around its own.
    """
    own = tuple(top for top in structure.top if not top.dispatch)
    starting = _starting(own)
    found: list[tuple[tuple[Loop, ...], Loop | None]] = [(own, starting)]
    for dispatch in (top for top in structure.top if top.dispatch):
        for role in dispatch.roles:
            if starting:
                around = Loop(dispatch.address, role, False, lines=starting.lines)
                found.append(((around,), around))
            else:
                loops = (item for item in role if isinstance(item, Loop))
                found.append((tuple(sorted(loops, key=lambda loop: loop.address)), None))
    return [Role(loops, min(warps, _size(loops)), started) for loops, started in found if loops]


def _starting(own: Sequence[Loop]) -> Loop | None:
    """Return the loop in which the default role starts the others: there all warps of the CTA meet."""
    every = (loop for top in own for loop in top.tree())
    return next((loop for loop in every if any(i.joins_all for i in loop.own)), None)


def leading(roles: Sequence[Role], costs: Costs) -> Role:
    """Return the role whose loops stand for those of all: the one with most, so that each phase has a loop. If several
    have as many, it is the one of these that multiplies most.
    """
    return max(roles, key=lambda role: (len(role.paths()), _flops(role, costs)))


def _flops(role: Role, costs: Costs) -> float:
    return sum(costs.op(i).flops for top in role.loops for loop in top.tree() for i in loop.own if i.base in MATRIX)


def passes_in_step(roles: Sequence[Role], costs: Costs, passes: int) -> dict[Loop, int]:
    """Return how often each inner loop is passed in one pass of the loop around it, so that roles stay in step.

    Roles that peel a pass off, or split their loop in two, pass it less often. Over a pass of the outer loop an
    mbarrier completes as many phases as are waited for, which says how often a role passes its inner loops, given how
    often another one does. The leading role passes each of its inner loops ``passes`` times.
    """
    counted = [_Counted.of(role, costs) for role in roles if len(role.loops) == 1 and role.loops[0].inner]
    if not counted:
        return {}
    lead = leading(roles, costs)
    known = {id(each): passes * len(each.inner) for each in counted if each.outer in lead.loops}
    while more := {
        id(other): needed
        for each in counted
        for other in counted
        if id(each) in known and id(other) not in known and (needed := each.asks_of(other, known[id(each)])) is not None
    }:
        known |= more
    return {
        loop: max(1, (known[id(each)] + place) // len(each.inner))
        for each in counted
        if id(each) in known
        for place, loop in enumerate(each.inner)
    }


@dataclass(frozen=True)
class _Counted:
    """A role's outer loop, and the phases of mbarriers that are completed and waited for by it and its inner loops."""

    outer: Loop
    inner: tuple[Loop, ...]
    completed: tuple[Phases, Phases]
    """Phases by mbarrier, in a pass of the outer loop outside inner ones and in a pass of the first inner one."""
    awaited: tuple[Phases, Phases]

    @classmethod
    def of(cls, role: Role, costs: Costs) -> "_Counted":
        (outer,) = role.loops
        completed, awaited = [], []
        for loop in (outer, outer.inner[0]):
            ops = [costs.op(i) for i in loop.own]
            completed.append(_phases(op for op in ops if op.kind in ARRIVALS))
            awaited.append(_phases(op for op in ops if op.kind in WAITS))
        return cls(outer, outer.inner, (completed[0], completed[1]), (awaited[0], awaited[1]))

    def asks_of(self, other: "_Counted", passes: int) -> int | None:
        """Return how often ``other`` passes its inner loops while this one passes its own so many times; None if they
        do not meet at an mbarrier that is known.
        """
        for mine, theirs in ((self.completed, other.awaited), (self.awaited, other.completed)):
            for name in sorted(mine[1].keys() & theirs[1].keys()):
                return round((mine[0][name] + mine[1][name] * passes - theirs[0][name]) / theirs[1][name])
        return None


def _phases(ops: Iterable[Op]) -> Phases:
    """Return the phases of each known mbarrier: one for each op, but all the copies that one counts make one."""
    found: Phases = defaultdict(Fraction)
    for op in ops:
        if op.mbarrier != ORDERED:
            found[op.mbarrier] += Fraction(1, max(1, op.count)) if op.kind is Kind.BULK_COPY else 1
    return found


def _paths(loops: Sequence[Loop], before: Path) -> list[tuple[Path, Loop]]:
    found = []
    for place, loop in enumerate(loops):
        found += [((*before, place), loop), *_paths(loop.inner, (*before, place))]
    return found


def _size(loops: Sequence[Loop]) -> int:
    """Return a role's number of warps, read off the thread counts of its barriers.

    Without barriers, a role that computes has a warpgroup, and one that only issues copies or products a warp.
    """
    own = [instruction for top in loops for loop in top.tree() for instruction in loop.own]
    counts = [int(count[1], 16) // 32 for i in own if i.base == "BAR" and (count := _PARTIAL_BARRIER.match(i.operands))]
    return max(counts) if counts else _WARPGROUP if any(map(_computes, own)) else 1


def _computes(instruction: Instruction) -> bool:
    return instruction.base in _COMPUTE or instruction.opcode.startswith("MUFU.EX2")
