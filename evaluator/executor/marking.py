"""Memory that only records what stores would write: coverage of a whole grid, at the cost of its addresses."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from avo.evaluator.allocation import Allocation
from avo.evaluator.executor.faults import Site
from avo.evaluator.executor.ir import Type
from avo.evaluator.executor.memory import Memory
from avo.evaluator.executor.rows import row_table
from avo.evaluator.executor.space import all_true, any_true, total
from avo.evaluator.executor.values import AddressSum

Tensor = torch.Tensor


class Marks(Memory):
    """A memory whose contents stores do not change: they set ``Allocation.written`` and report faults as usual."""

    def write(self, address: Tensor | AddressSum, mask: Tensor | None, value: Tensor, kind: Type, site: Site) -> None:
        """Mark the elements of a block of type ``kind``."""
        if mask is not None and not any_true(mask):
            return
        if mask is not None and all_true(mask):
            mask = None
        if not self._mark_rows(address, mask, kind, site):
            flat = total(address)
            shape = np.broadcast_shapes(flat.shape, *(() if mask is None else (mask.shape,)))
            flat, mask = flat.expand(shape), None if mask is None else mask.expand(shape)
            for access in self._locate(flat, mask, kind.item_bytes, "write", site):
                self._note(access.buffer, access.index, access.active, kind.item_bytes, site)

    def _note(self, buffer: int, index: Tensor, active: Tensor | None, item_bytes: int, site: Site) -> None:
        """Record the active items [P or 1, ...] of a buffer."""
        self._mark(self._allocations[buffer], index.flatten() if active is None else index[active], item_bytes)

    def _note_rows(
        self, buffer: int, index: Tensor, active: Tensor | None, length: int, phase: int, site: Site
    ) -> None:
        """Record rows of ``length`` elements, from ``phase``, by the index [P or 1, ...] of their first element.

        Rows that are not ``active`` [P or 1, ...] are not accessed: their index is that of another.
        """
        written = self._allocations[buffer].written
        assert written is not None
        row_table(written, length, phase).index_fill_(0, index.flatten() // length, True)

    def _mark_rows(self, address: Tensor | AddressSum, mask: Tensor | None, kind: Type, site: Site) -> bool:
        """Record whole rows if the block consists of rows; return whether it did."""
        whole = self._whole_rows(address, mask, kind)
        if whole is None:
            return False
        rows, active, phase = whole
        if self._allocations[rows.buffer].written is not None:
            self._note_rows(rows.buffer, rows.index, active, rows.table.shape[1], phase, site)
        return True


class Writers(Marks):
    """A memory that finds out which programs would store where buffers are marked as written."""

    def __init__(self, allocations: Sequence[Allocation], programs: int) -> None:
        super().__init__([replace(a, initialised=None) for a in allocations])
        self.found = torch.zeros(programs, dtype=torch.bool)
        """Whether each program hit, by position."""
        self._wanted_rows: dict[tuple[int, int, int], Tensor] = {}

    def _note(self, buffer: int, index: Tensor, active: Tensor | None, item_bytes: int, site: Site) -> None:
        allocation = self._allocations[buffer]
        if allocation.written is not None:
            hit = allocation.written[allocation.covered(index, item_bytes)].any(-1)
            self._find(hit if active is None else hit & active, site)

    def _note_rows(
        self, buffer: int, index: Tensor, active: Tensor | None, length: int, phase: int, site: Site
    ) -> None:
        key = buffer, length, phase
        if key not in self._wanted_rows:
            written = self._allocations[buffer].written
            assert written is not None
            self._wanted_rows[key] = row_table(written, length, phase).view(torch.uint8).amax(1).bool()
        hit = self._wanted_rows[key][index // length]
        self._find(hit if active is None else hit & active, site)

    def _find(self, hit: Tensor, site: Site) -> None:
        """Record the programs that hit; ``hit`` is bool [P or 1, ...]."""
        self.found[site.positions] |= hit.reshape(hit.shape[0], -1).any(1)


class Owners(Marks):
    """A memory that finds programs whose accesses meet another program's stores.

    It keeps which program stored to each element of the buffers that have ``written``. Programs are positions.
    """

    def __init__(self, allocations: Sequence[Allocation]) -> None:
        super().__init__([replace(a, initialised=None) for a in allocations])
        self.stores = True
        """Whether accesses are stores, which own what they store to from then on."""
        self._owners: dict[int, Tensor] = {}
        """The programs that stored to each element of a buffer, or to each of the rows in which it is only accessed."""
        self._rows_of: dict[int, tuple[int, int]] = {}
        """Length and phase of the rows that ``_owners`` counts in; a row of one element is an element."""
        self._pairs: list[Tensor] = []

    def take_pairs(self) -> Tensor:
        """Return the pairs of programs that met, int64 [n, 2], and forget them."""
        pairs, self._pairs = self._pairs, []
        return torch.cat(pairs).unique(dim=0) if pairs else torch.zeros(0, 2, dtype=torch.int64)

    def _note(self, buffer: int, index: Tensor, active: Tensor | None, item_bytes: int, site: Site) -> None:
        allocation = self._allocations[buffer]
        if allocation.written is not None:
            elements = allocation.covered(index, item_bytes)
            programs = _along(site.positions, elements)
            elements = elements.expand(programs.shape)
            chosen = None if active is None else active.unsqueeze(-1).expand(programs.shape)
            if chosen is not None:
                elements, programs = elements[chosen], programs[chosen]
            self._meet(self._by_rows(buffer, 1, 0), elements.flatten(), programs.flatten())

    def _note_rows(
        self, buffer: int, index: Tensor, active: Tensor | None, length: int, phase: int, site: Site
    ) -> None:
        programs = _along(site.positions, index)
        rows = (index // length).expand(programs.shape)
        if active is not None:
            chosen = active.expand(programs.shape)
            rows, programs = rows[chosen], programs[chosen]
        self._meet(self._by_rows(buffer, length, phase), rows.flatten(), programs.flatten())

    def _by_rows(self, buffer: int, length: int, phase: int) -> Tensor:
        """Return the owners of rows, int32 [rows], or of the elements of each, int32 [rows, length]."""
        size = self._allocations[buffer].data.numel()
        if buffer not in self._owners:
            self._rows_of[buffer] = length, phase
            self._owners[buffer] = torch.full(((size - phase) // length,), -1, dtype=torch.int32)
        if self._rows_of[buffer] == (length, phase):
            return self._owners[buffer]
        if self._rows_of[buffer] != (1, 0):
            elements = torch.full((size,), -1, dtype=torch.int32)
            row_table(elements, *self._rows_of[buffer]).copy_(self._owners[buffer][:, None])
            self._owners[buffer], self._rows_of[buffer] = elements, (1, 0)
        return self._owners[buffer] if length == 1 else row_table(self._owners[buffer], length, phase)

    def _meet(self, owners: Tensor, places: Tensor, programs: Tensor) -> None:
        """Let ``programs`` [n] access the ``places`` [n] of ``owners``, single elements or rows of them."""
        mine = programs.to(torch.int32)
        mine = mine.view(-1, *[1] * (owners.dim() - 1))
        self._add(owners[places], programs)
        if self.stores:
            owners[places] = mine.expand(places.shape[0], *owners.shape[1:])
            self._add(owners[places], programs)

    def _add(self, held: Tensor, programs: Tensor) -> None:
        programs = programs.view(-1, *[1] * (held.dim() - 1)).expand(held.shape)
        met = (held >= 0) & (held != programs)
        if bool(met.any()):
            self._pairs.append(torch.stack([held[met].to(torch.int64), programs[met]], 1).unique(dim=0))


def _along(programs: Tensor, places: Tensor) -> Tensor:
    """Return programs [P] in the shape of ``places`` [P or 1, ...], for all of them."""
    return programs.view(-1, *[1] * (places.dim() - 1)).expand(programs.shape[0], *places.shape[1:])
