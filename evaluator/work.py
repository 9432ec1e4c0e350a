"""Work: what a launch asks of the machine, counted from its IR. Made by the executor, read by the performance model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from avo.evaluator.binary import Binary


@dataclass(frozen=True, slots=True)
class Body:
    """What one pass through a loop body, or through the code outside all loops, does; nested loops not included.

    Means over all passes of all programs: branches make some do more than others.
    """

    dot_flops: float
    """Floating-point operations of matrix products."""
    exponentials: float
    load_bytes: float
    """Bytes that loads ask for, masked elements included."""
    store_bytes: float
    entered: float = 1.0
    """Share of the passes, 0 to 1, that enter the branch in the body which most of them enter; 1 where unknown."""
    arithmetic: float = 0.0
    """Floating-point operations other than those of products. A conversion from or to such a number counts as four, as
    it takes that much longer at least. 0 where they were not counted."""
    shared_bytes: float = 0.0
    """Bytes that loads, stores and products read from or write to shared memory; copies not included. 0 for Triton IR,
    which has no shared memory."""


Shares = tuple[tuple[range, float], ...]
"""Lines of the text of the IR, counted from 1, that fewer passes reach than the loop around them makes, or fewer
programs than there are; and the share, 0 to 1, that does. If several ranges hold a line, the smallest counts."""


class Pace(NamedTuple):
    """How often a partition passes a loop for each pass of the loop of another partition that it is counted in; where
    it is counted in none, for each pass of any of that partition's loops.
    """

    mean: float = 1.0
    whole: float = 1.0
    """The pace but for ``peeled``; the same as ``mean`` where partitions are started once."""
    peeled: float = 0.0
    """Passes that are made in addition, or not made if below 0, each time that the partition is started."""


Paces = tuple[tuple[range, Pace], ...]
"""Lines of the text of the IR of loops that partitions pass at another pace. If several ranges hold a line, the
smallest counts."""
Trips = tuple[npt.NDArray[np.int64], ...]
"""For each loop, how often each program executes its body, int64 [programs]."""


@dataclass(frozen=True)
class LoopWork:
    """One loop of a kernel."""

    parent: int | None
    """Index of the enclosing loop, None at top level."""
    body: Body
    trips: npt.NDArray[np.int64]
    """[programs]: how often each program runs the body in all, in program order (x fastest)."""
    lines: range = range(0)
    """Its lines in the text of the IR, counted from 1; empty where they are not known."""


ALL_ROLES = -1
"""The role of a loop around a warp-specialised region, which starts all its partitions in each pass."""
_MOST_PEELED = 2
"""Most passes that a partition is taken to peel off its loops."""
LINE_BYTES, SECTOR_BYTES = 128, 32
"""Bytes of a cache line, and of the part of it that a miss of L1 brings: the unit in which L2 and device memory are
read and written (Nsight Compute documentation, memory tables).
"""
FEW_LINES = 16
"""Lines of a program's access that L1 keeps until its next one, whatever else passes through (estimate)."""
SAMPLED_PROGRAMS = 256
"""Programs of a sample: consecutive ones, about as many as run at once."""


@dataclass(frozen=True, slots=True)
class Access:
    """One operation that reads or writes memory, as a sample of programs that run together performs it."""

    loop: int | None
    """Index of the innermost loop around it, None outside loops."""
    buffer: int
    """Index of the buffer among the launch's."""
    writes: bool
    program_bytes: float
    """Bytes that one program asks for each time, masked elements left out."""
    distinct: float
    """Share of the bytes, above 0 to 1, that is left when programs of the sample ask for the same bytes at once."""
    fresh: float
    """Share of the distinct bytes, 0 to 1, that no earlier access of the sample asked for, after its first pass."""
    fresh_sectors: float
    """Of the sectors of 32 bytes that a program asks for after its first pass, the share that it had not asked for."""
    run_bytes: float
    """Mean length of the pieces of memory that hold the distinct bytes, and those that other operations of the loop ask
    for in turn with it. Sectors that follow each other are one piece."""
    program_lines: float
    """Distinct lines of 128 bytes that one program asks for each time."""
    line: int
    """The operation's line in the text of the IR, counted from 1."""
    often: float = 1.0
    """Share of the loop's passes in which it is performed: a branch may go around it."""
    spread: float = 1.0
    """Bytes of those pieces for each of them that is asked for, 1 or more: gaps within a sector are read too."""


VERSION = -1
"""Stands for a program where a node of ``Waits`` is what memory holds after an atomic update."""


@dataclass(frozen=True)
class Waits:
    """Which programs of a launch wait for others: nodes in an order in which they may happen.

    A node is a place in a program at which it waits for others or releases them, or a version of memory, which is there
    as soon as all nodes are that it comes after.
    """

    programs: npt.NDArray[np.int64]
    """[nodes]: linear id of the program, or ``VERSION``."""
    places: npt.NDArray[np.float64]
    """[nodes, 1 + loops]: how far the program was through its work: the share of what it does outside loops, and its
    passes of each loop."""
    after: npt.NDArray[np.int64]
    """[n, 2]: pairs of nodes, of which the second does not happen before the first."""


@dataclass(frozen=True)
class LaunchWork:
    """One launch of a kernel."""

    binary: Binary
    programs: int
    loops: tuple[LoopWork, ...]
    """The loops in order of appearance in the IR, a parent before its children."""
    outside: Body
    """Work of the code outside all loops, per program."""
    accesses: tuple[Access, ...] = ()
    """Where programs read and write; empty where that was not looked at."""
    buffer_bytes: tuple[int, ...] = ()
    """Size of each buffer of the launch."""
    fills: tuple[int, ...] = ()
    """Bytes written by each fill of a buffer before the launch, or after it if it is the last."""
    shares: Shares = ()
    """Which lines of the IR are passed by; empty where none is, or where that was not counted."""
    paces: Paces = ()
    """Which loops are passed at another pace than the loop that they are counted in."""
    waits: Waits | None = None
    """Which programs wait for others; None where none does, or that was not played."""

    def total(self, what: str) -> float:
        """Return a field of ``Body``, e.g. ``dot_flops``, added up over all programs."""
        inside = sum(float(loop.trips.sum()) * float(getattr(loop.body, what)) for loop in self.loops)
        return inside + self.programs * float(getattr(self.outside, what))


@dataclass(frozen=True)
class Counted:
    """What a launch asks of the machine, before its kernel is compiled."""

    trips: Trips
    bodies: tuple[Body, ...]
    """For each loop, the mean work of a pass through its body, without nested loops."""
    outside: Body
    """The mean work of a program outside all loops."""
    parents: tuple[int | None, ...] = ()
    """For each loop, the index of the enclosing one, None at top level."""
    lines: tuple[range, ...] = ()
    """For each loop, its lines in the text of the IR, counted from 1."""
    accesses: tuple[Access, ...] = ()
    """Where a sample of programs reads and writes."""
    buffer_bytes: tuple[int, ...] = ()
    """Size of each buffer of the launch."""
    roles: tuple[int, ...] = ()
    """For each loop, the partition of a warp-specialised region that it is in, from 1; ``ALL_ROLES`` for a loop around
    such a region; 0 for all others. Empty where there is no such region."""
    shares: Shares = ()
    """Which lines of the IR are passed by."""
    waits: Waits | None = None
    """Which programs wait for others."""

    def of(self, binary: Binary, programs: int, fills: tuple[int, ...] = ()) -> LaunchWork:
        """Return the work of the launch of ``programs`` programs with a compiled kernel; ``fills`` go with it."""
        loops = tuple(LoopWork(*each) for each in zip(self.parents, self.bodies, self.trips, self.lines, strict=True))
        work = LaunchWork(binary, programs, loops, self.outside, self.accesses, self.buffer_bytes, fills, self.shares)
        return side_by_side(replace(work, waits=self.waits), self.roles)


def side_by_side(work: LaunchWork, roles: Sequence[int]) -> LaunchWork:
    """Return work in which partitions of a warp-specialised region, which run at the same time, are counted together.

    The loops of all ``roles``, see ``Counted``, are added, in order, to those of the leading role: the one with most
    loops, or if several have as many, the one of these that does most matrix products. A loop without a counterpart
    counts as outside, or, where partitions are started in a loop, in the leading role's loop that is passed most. An
    access then says what it asks for in a pass of the loop that it is counted in.
    """
    of_role = {role: [i for i, each in enumerate(roles) if each == role] for role in sorted(set(roles))}
    shared = of_role.pop(ALL_ROLES, [])
    if len(of_role) < 2:
        return work
    loops, outside = work.loops, work.outside
    main = max(
        of_role,
        key=lambda role: (
            len(of_role[role]),
            sum(loops[i].trips.sum() * loops[i].body.dot_flops for i in of_role[role]),
        ),
    )
    places = of_role.pop(main)
    kept = sorted([*shared, *places])
    bodies = {i: loops[i].body for i in kept}
    counted_in: dict[int | None, int | None] = {i: place for place, i in enumerate(kept)}
    passes: dict[int | None, float] = {}
    paces: dict[int, Pace] = {}
    around = {loops[i].parent for i in places}
    leaves = [i for i in places if i not in around]
    mine = sum(float(loops[i].trips.sum()) for i in leaves)
    starts = float(loops[shared[-1]].trips.sum()) if shared else 0.0
    most = max(leaves, key=lambda i: loops[i].trips.sum()) if starts and mine else None
    for theirs in of_role.values():
        for i, beside in zip(theirs, places if len(theirs) == len(places) else [None] * len(theirs), strict=True):
            trips = float(loops[i].trips.sum())
            place = beside if beside is not None and loops[beside].trips.any() else most
            if place is None:
                passes[i] = trips / work.programs
                outside = _sum(outside, loops[i].body, passes[i])
            else:
                passes[i] = trips / float(loops[place].trips.sum())
                bodies[place] = _sum(bodies[place], loops[i].body, passes[i])
                counted_in[i] = counted_in[place]
            if place == beside and place is not None:
                paces[i] = _pace(trips, float(loops[place].trips.sum()), starts)
            elif trips or beside is None:  # else neither passes it
                paces[i] = _pace(trips, mine or work.programs, starts)
    merged = tuple(replace(loops[i], parent=counted_in.get(loops[i].parent), body=bodies[i]) for i in kept)
    accesses = tuple(
        _repeated(replace(access, loop=counted_in.get(access.loop)), passes.get(access.loop, 1.0))
        for access in work.accesses
    )
    listed = tuple((loops[i].lines, pace) for i, pace in sorted(paces.items()) if pace != Pace())
    waits = _in_loops(work.waits, [(i, counted_in.get(i), passes.get(i, 1.0)) for i in range(len(loops))], len(kept))
    return replace(work, loops=merged, outside=outside, accesses=accesses, paces=listed, waits=waits)


def _in_loops(waits: Waits | None, counted: Sequence[tuple[int, int | None, float]], loops: int) -> Waits | None:
    """Return waits at places in so many ``loops``; ``counted`` has, for each loop of before, in which of these it is
    counted, if in any, and how often it is passed for each pass of that.
    """
    if waits is None:
        return None
    places = np.zeros((len(waits.places), 1 + loops))
    places[:, 0] = waits.places[:, 0]
    for loop, place, times in counted:
        if place is not None and times:
            places[:, 1 + place] = np.maximum(places[:, 1 + place], waits.places[:, 1 + loop] / times)
    return replace(waits, places=places)


def _pace(trips: float, others: float, starts: float) -> Pace:
    """Return the pace of ``trips`` for ``others``, in so many ``starts`` of the partitions, 0 where they start once."""
    pace = trips / others
    if starts and pace:
        whole = round(pace) if pace >= 1 else 1 / round(1 / pace)
        peeled = (trips - whole * others) / starts
        if abs(peeled) <= _MOST_PEELED:
            return Pace(pace, whole, peeled)
    return Pace(pace, pace)


def _repeated(access: Access, times: float) -> Access:
    return replace(access, program_bytes=access.program_bytes * times, program_lines=access.program_lines * times)


def _sum(body: Body, other: Body, times: float) -> Body:
    amounts = ("dot_flops", "exponentials", "load_bytes", "store_bytes", "arithmetic", "shared_bytes")
    summed = {name: getattr(body, name) + times * getattr(other, name) for name in amounts}
    return Body(**summed, entered=max(body.entered, other.entered))
