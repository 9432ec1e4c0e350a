"""Precedence: who releases the waits of programs, and how far each of both was through its work by then."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch

from avo.evaluator.allocation import Allocation
from avo.evaluator.executor.faults import Site
from avo.evaluator.executor.ir import Function, Op
from avo.evaluator.executor.memory import Memory
from avo.evaluator.executor.rows import Rows
from avo.evaluator.executor.space import Access
from avo.evaluator.executor.waiting import waiting_loops
from avo.evaluator.executor.work import loops
from avo.evaluator.work import VERSION, Waits

Tensor = torch.Tensor


class Precedence(Memory):
    """A memory that records its versions: after each store and atomic update of a byte, and which a poll has seen."""

    def __init__(self, allocations: Sequence[Allocation], function: Function) -> None:
        """``function`` is the kernel whose slice runs."""
        super().__init__(allocations, function.name)
        waiting = waiting_loops(function)
        self._loops = [None if loop.index in waiting else loop.block for loop in loops(function)]
        self._lines, self._shares = _outside(function)
        self._branching = _branching(function)
        self._owners: list[int] = []
        """The program of each node, or ``VERSION``."""
        self._nodes: list[list[float] | None] = []
        """Where it was; None for a poll that was repeated."""
        self._after: list[tuple[int, int]] = []
        self._latest: dict[int, Tensor] = {}
        """The node that last changed each byte of a buffer, int32, -1 for none."""
        self._polled: dict[int, int] = {}
        """The last node of each program where that is a poll, by position."""
        self._polling: dict[int, tuple[int, int]] = {}
        """Atomic polls that have not changed memory yet, by address: program's position and node."""
        self._arrived: dict[int, list[int]] = {}
        """What programs have seen in updates that decide a branch, by position: what they release comes after it."""

    def waits(self) -> Waits | None:
        """Return what was recorded; None if no program waited for another."""
        kept = [i for i, node in enumerate(self._nodes) if node is not None]
        number = dict(zip(kept, range(len(kept)), strict=True))
        after = [(number[a], number[b]) for a, b in self._after if a in number and b in number]
        programs = np.array([self._owners[i] for i in kept], dtype=np.int64)
        if not any(programs[later] != VERSION for _, later in after):
            return None
        return Waits(programs, np.array([self._nodes[i] for i in kept]), np.array(after, dtype=np.int64))

    @property
    def observes_turns(self) -> bool:
        """Return True."""
        return True

    def watches(self, buffer: int) -> bool:
        """Return True: every read may be a poll."""
        return True

    def observe_read(self, access: Access) -> None:
        """Record what a poll sees."""
        if access.site.polls:
            places, programs = self._lanes(access)
            seen = self._versions(access.buffer)[places]
            for position in programs.unique().tolist():
                self._poll(position, access.site, seen[programs == position].unique().tolist())

    def synchronise(self, address: Tensor, programs: Tensor, item_bytes: int, site: Site) -> None:
        """Record an atomic update, each of its own address, in order."""
        for at, position in zip(address.tolist(), programs.tolist(), strict=True):
            held = self._item(at, item_bytes)
            seen = held.unique().tolist()
            if site.polls:
                self._polling[at] = position, self._poll(position, site, seen)
            elif site.line in self._branching:
                held[:] = self._updated(self._node(position, site), seen)
                self._arrived[position] = seen
            else:
                issued = self._release(position, site)
                blind = site.order is not None and site.order.blind
                held[:] = issued if blind else self._updated(issued, seen)

    def replace(self, cells: Tensor, index: Tensor, values: Tensor) -> None:
        """Set elements like ``Memory.replace``; polls that change them make versions."""
        changed = {int(i) for i in index[cells[index] != values]} if self._polling else frozenset[int]()
        for at, (position, node) in self._polling.items():
            buffer = int(self.buffer_of(at))
            if (at - self._addresses[buffer]) // cells.element_size() in changed:
                self._item(at, cells.element_size())[:] = node
                self._polled.pop(position, None)
        self._polling.clear()
        super().replace(cells, index, values)

    def _overlooks(self, rows: Rows, item_bytes: int) -> bool:
        return False

    def _takes_rows(self, access: Access, start: int) -> bool:
        return False

    def _store(self, access: Access, index: Tensor, bits: Tensor) -> None:
        places, programs = self._lanes(access)
        for position in programs.unique().tolist():
            self._versions(access.buffer)[places[programs == position]] = self._release(position, access.site)
        super()._store(access, index, bits)

    def _versions(self, buffer: int) -> Tensor:
        if buffer not in self._latest:
            self._latest[buffer] = torch.full((self._allocations[buffer].data.nbytes,), -1, dtype=torch.int32)
        return self._latest[buffer]

    def _item(self, address: int, item_bytes: int) -> Tensor:
        """Return the versions of the bytes of an item."""
        buffer = int(self.buffer_of(address))
        first = address - self._addresses[buffer]
        return self._versions(buffer)[first : first + item_bytes]

    def _lanes(self, access: Access) -> tuple[Tensor, Tensor]:
        """Return the bytes of the active items of an access, [n, bytes], and the positions of the programs, [n]."""
        programs = access.site.positions
        shape = (programs.shape[0], *access.index.shape[1:])
        index, active = access.index.expand(shape), access.active
        owners = programs.view(-1, *[1] * (index.dim() - 1)).expand(shape)
        chosen = torch.ones(shape, dtype=torch.bool) if active is None else active.expand(shape)
        return index[chosen][:, None] * access.item_bytes + torch.arange(access.item_bytes), owners[chosen]

    def _node(self, position: int, site: Site) -> int:
        """Add a node of a program where it is now."""
        assert self.passes is not None
        done = self.passes[:, position]
        share = self._shares[bisect_left(self._lines, site.line)]
        place = [share, *(0.0 if block is None else float(done[block]) for block in self._loops)]
        self._owners.append(int(site.ids[position]))
        self._nodes.append(place)
        self._polled.pop(position, None)
        return len(self._nodes) - 1

    def _release(self, position: int, site: Site) -> int:
        """Add a node of a program that stores, after what it has seen in an update that sent it there."""
        node = self._node(position, site)
        self._link(self._arrived.pop(position, []), node)
        return node

    def _updated(self, issued: int, before: Sequence[int]) -> int:
        """Add the version that an update makes of those before."""
        self._owners.append(VERSION)
        self._nodes.append([0.0] * (1 + len(self._loops)))
        version = len(self._nodes) - 1
        self._link([issued, *before], version)
        return version

    def _poll(self, position: int, site: Site, seen: Sequence[int]) -> int:
        """Add a node that waits for versions, in place of the same program's if that was a poll at the same place."""
        self._arrived.pop(position, None)
        before = self._polled.get(position)
        node = self._node(position, site)
        if before is not None and self._nodes[before] == self._nodes[node]:
            self._nodes[before] = None
        self._link(seen, node)
        self._polled[position] = node
        return node

    def _link(self, earlier: Sequence[int], later: int) -> None:
        """Note what comes before a node; what the same program did does so anyway."""
        owner = self._owners[later]
        self._after.extend((e, later) for e in earlier if e >= 0 and (owner == VERSION or self._owners[e] != owner))


def _outside(function: Function) -> tuple[list[int], list[float]]:
    """Return lines of the IR in ascending order, and which share of what is computed outside loops is written before
    each, and, at last, after all of them. Blocks count by their elements.
    """
    inside = {id(inner) for op in function.body.ops if op.loop is not None for inner in op.nested}
    ops = sorted((op.lines.start, _size(op, function)) for op in function.body.ops if id(op) not in inside)
    total = sum(size for _, size in ops) or 1
    return [line for line, _ in ops], [done / total for done in accumulate((size for _, size in ops), initial=0)]


def _size(op: Op, function: Function) -> int:
    return max((function.types[slot].elements for slot in (*op.results, *op.operands)), default=0)


def _branching(function: Function) -> frozenset[int]:
    """Return the lines of atomic updates whose results only decide which way a branch goes, as the last to arrive is
    found: who goes that way has waited for all before it.
    """
    users: dict[int, list[Op]] = {}
    for op in function.body.ops:
        for slot in (*op.operands, *(value for _, values in op.successors for value in values)):
            users.setdefault(slot, []).append(op)

    def decides(slot: int) -> bool:
        return slot in users and all(
            user.name in ("scf.if", "cf.cond_br")
            or (user.name in ("arith.cmpi", "arith.andi") and decides(*user.results))
            for user in users[slot]
        )

    updates = [op for op in function.body.ops if op.name in ("tt.atomic_rmw", "tt.atomic_cas")]
    return frozenset(op.lines.start for op in updates if op.results and decides(op.results[0]))
