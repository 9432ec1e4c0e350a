"""Finds out which bytes programs that run together ask for, from the addresses of a sample of programs and passes."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch

from avo.evaluator.allocation import Allocation
from avo.evaluator.division import quotient
from avo.evaluator.executor.chip.cluster import bases, parts
from avo.evaluator.executor.effects import ATOMIC, CONTROL, READS, WRITES, effects
from avo.evaluator.executor.faults import Site
from avo.evaluator.executor.ir import Block, Function, Op, Region, Type, walk_blocks
from avo.evaluator.executor.marking import Marks
from avo.evaluator.executor.space import all_true, distinct, total
from avo.evaluator.executor.values import AddressSum
from avo.evaluator.work import FEW_LINES, LINE_BYTES, SAMPLED_PROGRAMS, SECTOR_BYTES, Access, Trips

Tensor = torch.Tensor

_PROGRAM = 40
"""From this bit on, the number of a program is kept beside an offset that it asks for."""
PASSES = 3
"""Passes of every loop that a sample makes, if they show all that the kernel asks for."""
MORE_PASSES = 10
"""Passes that a sample makes otherwise."""
FEW = 8
"""Programs that make all passes, where the sample leaves accesses out altogether."""
_MOST_ROWS = 2**18
"""Rows of one access that are looked at; programs are left out beyond that."""


@dataclass
class _Seen:
    """What was seen of one operation."""

    asked: float = 0.0
    """Bytes that programs asked for."""
    whole: float = 0.0
    """Bytes that they would have asked for without masks."""
    times: int = 0
    """How often a program did."""
    together: float = 0.0
    """Distinct bytes, added up over passes."""
    later: float = 0.0
    """The part of ``together`` after the first pass."""
    fresh: float = 0.0
    """The part of ``later`` that no earlier access asked for."""
    runs: float = 0.0
    """Pieces of memory that it asked for, by itself or, in part, with others."""
    spans: float = 0.0
    """Bytes from the first to the last of these pieces, its part of them."""
    passes: int = 0
    lines: float = 0.0
    """Distinct lines that a program asked for in the mean, added up over passes."""
    buffers: dict[int, float] = field(default_factory=dict)
    own: "defaultdict[int, _Own]" = field(default_factory=lambda: defaultdict(_Own))
    """What each program asked for, by buffer, where that is few lines."""


class _Offsets:
    """A set that grows, as sorted parts of which each is at least twice as long as the next: so adding takes as long as
    what is added, and hardly longer for what is there.
    """

    def __init__(self) -> None:
        self._parts: list[npt.NDArray[np.int64]] = []

    def add(self, offsets: Tensor) -> Tensor:
        """Add ``offsets``, sorted and distinct; return those of them that are new."""
        fresh = offsets.numpy()
        for part in self._parts:
            at = np.searchsorted(part, fresh).clip(max=part.size - 1)
            fresh = fresh[part[at] != fresh]
        added = fresh
        while self._parts and self._parts[-1].size < 2 * added.size:
            added = np.sort(np.concatenate((self._parts.pop(), added)), kind="stable")  # fast, as both are sorted
        if added.size:
            self._parts.append(added)
        return torch.from_numpy(fresh)


@dataclass
class _Own:
    """What programs asked for by one operation, each for itself: its number is kept beside each offset."""

    programs: _Offsets = field(default_factory=_Offsets)
    sectors: _Offsets = field(default_factory=_Offsets)
    starts: _Offsets = field(default_factory=_Offsets)
    again: float = 0.0
    """Sectors that programs asked for after their first pass."""
    fresh: float = 0.0
    """Those of them that they had not asked for; at least as many as new bytes fill, as a sample has few passes."""

    def ask(self, starts: Tensor, length: int) -> None:
        """Add pieces of ``length`` bytes that begin at these offsets, sorted and distinct."""
        sectors = _touched(starts, length, SECTOR_BYTES)
        beginners = self.programs.add((starts >> _PROGRAM).unique_consecutive())

        def later(pairs: Tensor) -> int:
            return int((~torch.isin(pairs >> _PROGRAM, beginners)).sum())

        self.again += later(sectors)
        new_bytes = later(self.starts.add(starts)) * length
        self.fresh += max(later(self.sectors.add(sectors)), new_bytes / SECTOR_BYTES)


def _touched(starts: Tensor, length: int, size: int) -> Tensor:
    """Return where the blocks of ``size`` bytes begin that pieces of ``length`` bytes touch, each once, in order.

    The pieces begin at ``starts``, in order.
    """
    first, last = quotient(starts, size), quotient(starts + length - 1, size)
    blocks, more = first.unique_consecutive(), last[last != first]
    return (distinct(torch.cat((blocks, more))) if more.numel() else blocks) * size


class Reach(Marks):
    """A memory that only observes the addresses of stores. The location of each is its place: see ``placed``."""

    def __init__(self, allocations: Sequence[Allocation]) -> None:
        super().__init__([replace(a, initialised=None, written=None, readonly=False) for a in allocations])
        self._seen: dict[str, _Seen] = {}
        self._rounds: defaultdict[tuple[int, str], dict[str, tuple[Tensor, int]]] = defaultdict(dict)
        """By buffer, and the loop and kind of operations: what each has asked for since it was last its turn."""
        self._known: defaultdict[int, _Offsets] = defaultdict(_Offsets)

    def write(self, address: Tensor | AddressSum, mask: Tensor | None, value: Tensor, kind: Type, site: Site) -> None:
        """Observe one access of a block of type ``kind``."""
        if mask is not None and all_true(mask):
            mask = None
        seen = self._seen.setdefault(site.location, _Seen())
        programs = site.positions.numel()
        seen.times += programs
        seen.whole += kind.elements * kind.item_bytes * programs
        rows = self._rows(address, mask, kind)
        if rows is not None and (mask is None or torch.equal(mask.any(rows.axis), mask.all(rows.axis))):
            length = rows.table.shape[1] * kind.item_bytes
            active = None
            if mask is not None:
                active = mask.any(rows.axis)
            self._observe(seen, rows.buffer, rows.index * kind.item_bytes, active, length, programs, site)
            return
        flat = total(address)
        if mask is not None:
            flat, mask = torch.broadcast_tensors(flat, mask)
        every = -(-flat.numel() // _MOST_ROWS)
        if flat.shape[0] > 1 and every > 1:
            flat, mask = flat[::every], None if mask is None else mask[::every]
            site = replace(site, positions=site.positions[::every])
        for access in self._locate(flat, mask, kind.item_bytes, "read", site):
            start = access.index * kind.item_bytes
            self._observe(seen, access.buffer, start, access.active, kind.item_bytes, programs, site)

    def _observe(
        self, seen: _Seen, buffer: int, start: Tensor, active: Tensor | None, length: int, programs: int, site: Site
    ) -> None:
        """Observe rows of ``length`` bytes at offsets [P or 1, ...] in a buffer, asked for by P programs."""
        if active is not None:
            start, active = torch.broadcast_tensors(start, active)
        asked = start.numel() if active is None else int(active.sum())
        if not asked:
            return
        offsets = distinct(start.flatten() if active is None else start[active])
        fresh = self._known[buffer].add(offsets)
        scale = programs / start.shape[0]  # one row of all programs, or of some
        share = offsets.numel() * length * (1.0 if start.shape[0] == 1 else scale)
        seen.asked += asked * length * scale
        seen.together += share
        if seen.passes:
            seen.later += offsets.numel()
            seen.fresh += fresh.numel()
        seen.passes += 1
        numbers = (site.ids[site.positions[: start.shape[0]]] % 2 ** (62 - _PROGRAM)) << _PROGRAM
        own = start + numbers.reshape(-1, *[1] * (start.dim() - 1))
        asking = start.shape[0] if active is None else int(active.reshape(active.shape[0], -1).any(1).sum())
        own = distinct(own.flatten() if active is None else own[active])
        if length > LINE_BYTES:
            lines = own.numel() * length / LINE_BYTES
        else:
            lines = _touched(own, length, LINE_BYTES).numel()
            if lines <= FEW_LINES * asking:
                seen.own[buffer].ask(own, length)
        seen.lines += lines / asking
        loop, kind, *_ = site.location.split(" ")
        if site.location in self._rounds[turn := (buffer, f"{loop} {kind[0]}")]:
            self._end(turn)
        self._rounds[turn][site.location] = offsets, length
        seen.buffers[buffer] = seen.buffers.get(buffer, 0.0) + offsets.numel() * length

    def _end(self, turn: tuple[int, str]) -> None:
        """Count the pieces that operations ask for together: sectors that follow each other are one, with gaps."""
        if not (asked := self._rounds.pop(turn, None)):
            return
        every = [(starts, torch.full_like(starts, length)) for starts, length in asked.values()]
        starts, lengths = (torch.cat(each) for each in zip(*every, strict=True))
        order = starts.argsort(stable=True)
        begins, ends = starts[order], (starts + lengths)[order].cummax(0).values
        apart = quotient(begins[1:], SECTOR_BYTES) > quotient(ends[:-1] - 1, SECTOR_BYTES) + 1
        opens, closes = (torch.nn.functional.pad(apart, side, value=True) for side in ((1, 0), (0, 1)))
        spans = (ends[closes] - begins[opens]).double()
        new = ends - torch.maximum(begins, torch.nn.functional.pad(ends[:-1], (1, 0), value=-1))
        piece = torch.empty_like(order).index_copy_(0, order, opens.cumsum(0) - 1)
        covered = torch.zeros_like(spans).index_add_(0, piece[order], new.clamp(min=0).double())
        shares = lengths / covered[piece]
        sizes = [each.numel() for each, _ in every]
        for place, runs, own in zip(asked, shares.split(sizes), (shares * spans[piece]).split(sizes), strict=True):
            self._seen[place].runs += float(runs.sum())
            self._seen[place].spans += float(own.sum())

    def shows(self, places: Iterable[str]) -> bool:
        """Whether all of these places were observed, with nothing masked off."""
        return all(place in self._seen and self._seen[place].asked >= self._seen[place].whole for place in places)

    def add(self, other: "Reach", places: Iterable[str]) -> None:
        """Take what ``other`` observed at these places."""
        other._end_all()
        self._seen |= {place: other._seen[place] for place in places if place in other._seen}

    def left_out(self, places: Iterable[str]) -> list[str]:
        """Return those of the places at which nothing was asked for, in the order given."""
        return [place for place in places if place not in self._seen or not self._seen[place].asked]

    def unseen(self, places: Mapping[str, int]) -> set[int]:
        """Return the blocks of those of the places, given by place, that were not observed."""
        return {block for place, block in places.items() if place not in self._seen}

    def _end_all(self) -> None:
        for turn in tuple(self._rounds):
            self._end(turn)

    def accesses(self, often: Mapping[str, float]) -> tuple[Access, ...]:
        """Return what was observed; ``often`` has in what share of its loop's passes each place is come to."""
        self._end_all()
        return tuple(_access(place, seen, often.get(place, 1.0)) for place, seen in self._seen.items() if seen.asked)


def _access(place: str, seen: _Seen, often: float) -> Access:
    loop, kind, line, times = place.split(" ")
    ctas = int(times)
    return Access(
        None if loop == "-" else int(loop),
        max(seen.buffers, key=lambda buffer: seen.buffers[buffer]),
        kind.startswith("w"),
        ctas * seen.asked / seen.times,
        min(1.0, seen.together / seen.asked / ctas),
        seen.fresh / seen.later if seen.later else 1.0,
        _fresh_sectors(seen),
        seen.spans / seen.runs,
        ctas * seen.lines / seen.passes,
        int(line),
        often,
        seen.spans / sum(seen.buffers.values()),
    )


def _fresh_sectors(seen: _Seen) -> float:
    again, fresh = sum(own.again for own in seen.own.values()), sum(own.fresh for own in seen.own.values())
    return min(1.0, fresh / again) if again else 1.0


def busiest(passes: Tensor, most: int) -> Tensor:
    """Return ``most`` consecutive programs that execute most blocks; if several groups do, the middle one.

    Programs that do nothing could hide from a sample what the others ask for.
    """
    together = min(passes.numel(), most)
    sums = torch.nn.functional.pad(passes.cumsum(0), (1, 0))
    work = sums[together:] - sums[:-together]
    found = (work == work.max()).nonzero().flatten()
    return torch.arange(together) + int(found[found.numel() // 2])


def observe(
    look: Callable[[Sequence[Tensor], int | None], Reach],
    busy: Tensor,
    places: Mapping[str, int],
    passes: Tensor,
    followed: Set[int],
) -> Reach:
    """Return what the programs ``busy`` are seen to ask for, and others where these leave accesses out.

    ``look`` observes samples of programs in so many passes of each loop, or in all. ``places`` are those of accesses
    with their blocks, ``passes`` [blocks, programs] how often each program executes each block that is ``followed``.
    """
    loads = {place: block for place, block in places.items() if re.match(r"\d+ r", place)}  # those in loops
    samples = [busy]
    space = look(samples, PASSES)
    if others := space.unseen(loads) & followed:  # what programs do that have less to do
        for block in sorted(others):
            more = busiest(passes[block], SAMPLED_PROGRAMS)
            # A program that is looked at twice seems to find all that it loads in L2.
            more = more[~torch.isin(more, torch.cat(samples))]
            samples += [more] if more.numel() else []
        space = look(samples, PASSES) if samples[1:] else space
    if not space.shows(loads):
        space = look(samples, MORE_PASSES)
        if late := space.left_out(loads):
            few = [sample[max(0, sample.numel() - FEW) // 2 :][:FEW] for sample in samples]  # in the middle
            space.add(look(few, None), late)
    if elsewhere := space.left_out(places):  # masks may know programs
        spread = (2 * torch.arange(FEW) + 1) * passes.shape[1] // (2 * FEW)
        space.add(look([spread.unique()], None), elsewhere)
    return space


def places_of(function: Function, times: Mapping[int, int], told: Set[int]) -> dict[str, int]:
    """Return the places of accesses in a ``placed`` function with the indices of their blocks, except in blocks that no
    program executes, and except those of atomic operations whose results are ``told``: these are not observed.

    ``times`` has how often all programs together executed each block; one that is missing there counts as executed.
    """
    executed = (block for block in walk_blocks(function.body) if times.get(block.index, 1))
    return {
        op.location: block.index
        for block in executed
        for op in block.ops
        if op.name in READS | WRITES and not (op.name in ATOMIC and not told.isdisjoint(op.results))
    }


def shares_of(places: Mapping[str, int], times: Mapping[int, int], trips: Trips) -> dict[str, float]:
    """Return in what share of the passes through its loop each place is come to: a branch may go around it.

    A place outside loops, or in a block that was not counted, is come to each time.
    """
    found = {}
    for place, block in places.items():
        loop = place.split(" ")[0]
        passes = int(trips[int(loop)].sum()) if loop != "-" and block in times else 0
        found[place] = min(1.0, times[block] / passes) if passes else 1.0
    return found


def placed(function: Function) -> Function:
    """Return a function whose operations that access memory have their place as location: the innermost loop around
    them, whether they read or write and which of them they are, their line, and how many CTAs ask for the same.
    """
    number = 0

    def region(inside: Region, loop: int | None) -> Region:
        return Region(tuple(block(each, loop) for each in inside.blocks))

    def block(each: Block, loop: int | None) -> Block:
        return replace(each, ops=tuple(operation(op, loop) for op in each.ops))

    def operation(op: Op, loop: int | None) -> Op:
        nonlocal number
        inner = loop if op.loop is None else op.loop
        if op.name in CONTROL and op.regions:
            return replace(op, regions=tuple(region(each, inner) for each in op.regions))
        if op.name not in READS | WRITES:
            return op
        number += 1
        kind = "w" if op.name in WRITES else "r"
        place = "-" if loop is None else loop
        return replace(op, location=f"{place} {kind}{number} {op.lines.start} {_askers(op, function.types)}")

    return replace(function, body=region(function.body, None))


def _askers(op: Op, types: Sequence[Type]) -> int:
    """Return how many CTAs of a cluster ask for the same: those that hold copies of the buffer which an operation
    fills, unless one of them sends to all. What goes to registers counts once.
    """
    row = effects(op.name)
    if not (row.reads and row.on_chip) or row.value is None or "multicast" in op.attributes:
        return 1
    held = bases(types[op.operands[row.value]].layout)
    return int(2 ** len(held)) // parts(held)
