"""Device memory: reads, writes and atomic cells. No access leaves the buffers of the launch."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from avo.evaluator.allocation import Allocation
from avo.evaluator.division import quotient
from avo.evaluator.executor.dtypes import DTYPES, RAW
from avo.evaluator.executor.faults import Site
from avo.evaluator.executor.ir import Type
from avo.evaluator.executor.journal import Journal
from avo.evaluator.executor.rows import Rows, row_table
from avo.evaluator.executor.space import Access, Space, all_true, any_true, distinct, total
from avo.evaluator.executor.values import AddressSum, DescriptorValue

Tensor = torch.Tensor


class Memory(Space):
    """The buffers of a launch and their contents."""

    def __init__(self, allocations: Sequence[Allocation], kernel: str = "") -> None:
        super().__init__(allocations, kernel)
        self._version: int | None = None
        self.journal: Journal | None = None
        """Where what memory holds is noted before it is changed; None: nobody undoes that."""
        self.passes: Tensor | None = None
        """How often each program has executed each block so far, int64 [blocks, programs], while programs run."""

    @property
    def version(self) -> int:
        """How often contents have changed since this was first asked."""
        self._version = self._version or 0
        return self._version

    def _keep(self, held: Tensor, index: Tensor) -> None:
        """Note what elements, or rows, at an index [n] hold before they change, where that may be undone."""
        if self.journal is not None:
            self.journal.note(held, index)

    def _changes(self, held: Tensor, index: Tensor, bits: Tensor) -> None:
        """Note that elements, or rows, at an index [n] are about to become ``bits``."""
        self._keep(held, index)
        if self._version is not None and not torch.equal(held[index], bits):
            self._version += 1

    certain = False
    """Whether what partitions do at barriers must be in order in every execution, not in this one alone."""

    # Hooks for the sanitiser; they do nothing here.

    def watches(self, buffer: int) -> bool:
        """Whether the reads of a buffer are observed."""
        return False

    def observe_read(self, access: Access) -> None:
        """Observe a read before it happens."""

    def _overlooks(self, rows: Rows, item_bytes: int) -> bool:
        """Whether a read of rows need not be observed element by element."""
        return not self.watches(rows.buffer)

    def _takes_rows(self, access: Access, start: int) -> bool:
        """Observe a store of rows, counted from byte ``start`` on; return False if its elements must be observed."""
        return True

    def observe_update(self, access: Access) -> None:
        """Observe an atomic operation before it happens."""

    @property
    def observes_turns(self) -> bool:
        """Whether ``synchronise`` has to see the atomic accesses to one address one after another."""
        return False

    def synchronise(self, address: Tensor, programs: Tensor, item_bytes: int, site: Site) -> None:
        """Observe atomic accesses by programs [n] to distinct addresses [n] in one buffer, as they happen."""

    def observe_barrier(self, programs: Tensor) -> None:
        """Observe that programs, positions [n], synchronise their threads."""

    def observe_arrival(self, programs: Tensor) -> None:
        """Observe that programs, positions [n], have waited until all that they sent by TMA was written."""

    def observe_descriptor(self, descriptor: DescriptorValue, item_bytes: int, site: Site) -> None:
        """Observe a descriptor that is made."""

    def read(
        self,
        address: Tensor | AddressSum,
        mask: Tensor | None,
        other: Tensor | None,
        kind: Type,
        site: Site,
    ) -> Tensor:
        """Return the elements at the addresses, of type ``kind`` [P or 1, ...].

        Where the mask is false, the value is ``other``, or 0 without it, since the hardware clears its registers first.
        A faulty access gives 0, except one to padding, which gives the contents.
        """
        raw = RAW[kind.item_bytes]
        dtype = DTYPES[kind.element]
        replace = None if other is None else other.view(raw)
        if mask is not None and all_true(mask):
            mask = None
        rows = self._rows(address, mask, kind)
        if rows is None:
            return self._read_elements(total(address), mask, replace, kind, site).view(dtype)
        if not self._overlooks(rows, kind.item_bytes):
            index = rows.elements()
            active = None
            if mask is not None:
                index, active = torch.broadcast_tensors(index, mask)
            self.observe_read(Access(rows.buffer, index, active, kind.item_bytes, site))
        values = rows.table.index_select(0, rows.index.flatten())
        values = values.view(*rows.index.shape, rows.table.shape[1]).movedim(-1, rows.axis)
        if mask is not None:
            values = torch.where(mask, values, _zero(values) if replace is None else replace)
        return values.view(dtype)

    def _read_elements(
        self, address: Tensor, mask: Tensor | None, other: Tensor | None, kind: Type, site: Site
    ) -> Tensor:
        raw = RAW[kind.item_bytes]
        if mask is not None:
            address, mask = torch.broadcast_tensors(address, mask)
        result: Tensor | None = None
        for access in self._locate(address, mask, kind.item_bytes, "read", site):
            if self.watches(access.buffer):
                self.observe_read(access)
            index, bits = access.index, self._bits(access.buffer, kind.item_bytes)
            values = bits.index_select(0, index.flatten()).view(index.shape) if bits.numel() else _zero(index).to(raw)
            if access.active is not None:
                values = torch.where(access.active, values, _zero(values))
            result = values if result is None else result | values
        if result is None:
            result = torch.zeros(1, dtype=raw).expand(address.shape)
        if mask is not None and other is not None:
            result = torch.where(mask, result, other)
        return result

    def write(
        self,
        address: Tensor | AddressSum,
        mask: Tensor | None,
        value: Tensor,
        kind: Type,
        site: Site,
    ) -> None:
        """Store a block of type ``kind``; the leading dimensions of the arguments broadcast.

        Every program stores, so a buffer that all programs share is written once, and the last program wins.
        """
        if mask is not None and not any_true(mask):
            return
        if mask is not None and all_true(mask):
            mask = None
        if self._write_rows(address, mask, value, kind, site):
            return
        flat = total(address)
        shape = np.broadcast_shapes(flat.shape, value.shape, *(() if mask is None else (mask.shape,)))
        flat = flat.expand(shape)
        bits = value.view(RAW[kind.item_bytes]).expand(shape)
        mask = None if mask is None else mask.expand(shape)
        for access in self._locate(flat, mask, kind.item_bytes, "write", site):
            if access.active is None:
                self._store(access, access.index.flatten(), bits.flatten())
            else:
                self._store(access, access.index[access.active], bits[access.active])

    def _write_rows(
        self, address: Tensor | AddressSum, mask: Tensor | None, value: Tensor, kind: Type, site: Site
    ) -> bool:
        """Store a block row by row; return False, having done nothing, where that is not possible."""
        whole = self._whole_rows(address, mask, kind)
        if whole is None:
            return False
        rows, active, phase = whole
        length, bits = rows.table.shape[1], value.view(RAW[kind.item_bytes]).movedim(rows.axis, -1)
        shape = np.broadcast_shapes(rows.index.shape, bits.shape[:-1])
        number, bits = quotient(rows.index, length).expand(shape), bits.expand(*shape, length)
        active = None if active is None else active.expand(shape)
        access = Access(rows.buffer, number, active, length * kind.item_bytes, site)
        if active is None:
            number, bits = number.flatten(), bits.reshape(-1, length)
        else:
            number, bits = number[active], bits[active]
        # If two programs store a row, the last one wins, and a copy of rows promises no order.
        if distinct(number).numel() < number.numel() or not self._takes_rows(access, phase * kind.item_bytes):
            return False
        allocation = self._allocations[rows.buffer]
        held = row_table(self._bits(rows.buffer, kind.item_bytes), length, phase)
        self._changes(held, number, bits)
        held.index_copy_(0, number, bits)
        for marks in (allocation.written, allocation.initialised):
            if marks is not None:
                self._set_marks(row_table(marks, length, phase), number)
        return True

    def _set_marks(self, marks: Tensor, index: Tensor) -> None:
        self._keep(marks, index)
        marks.index_fill_(0, index, True)

    def _store(self, access: Access, index: Tensor, bits: Tensor) -> None:
        """Store bits [n] at indices [n], the active items of an access."""
        if index.numel():
            held = self._bits(access.buffer, access.item_bytes)
            self._changes(held, index, bits)
            held.scatter_(0, index, bits)
            self._mark(self._allocations[access.buffer], index, access.item_bytes)

    def _mark(self, allocation: Allocation, index: Tensor, item_bytes: int) -> None:
        if allocation.written is None and allocation.initialised is None:
            return
        elements = allocation.covered(index, item_bytes).flatten()
        for marks in (allocation.written, allocation.initialised):
            if marks is not None:
                self._set_marks(marks, elements)

    def gather_cells(
        self, address: Tensor, mask: Tensor | None, kind: Type, site: Site
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return, for each buffer, the buffer as a typed tensor, the element indices [n] of atomic accesses to it, and
        their places [n] in the flattened block, in the order in which they take effect: that of the programs, and the
        elements of each block out of order. Faulty accesses are reported and left out.
        """
        cells = []
        if mask is not None and all_true(mask):
            mask = None
        for access in self._locate(address, mask, kind.item_bytes, "write", site):
            self.observe_update(access)
            index = _mixed(access.index, kind.elements)
            where = _mixed(torch.arange(index.numel()), kind.elements)
            if access.active is not None:
                active = _mixed(access.active, kind.elements).nonzero().flatten()
                index, where = index.index_select(0, active), where.index_select(0, active)
            self._mark(self._allocations[access.buffer], index, kind.item_bytes)
            cells.append((self._bits(access.buffer, kind.item_bytes).view(DTYPES[kind.element]), index, where))
        return cells

    def replace(self, cells: Tensor, index: Tensor, values: Tensor) -> None:
        """Set elements at distinct indices [n] of a typed tensor from ``gather_cells``."""
        self._changes(cells.view(RAW[cells.element_size()]), index, values.view(RAW[cells.element_size()]))
        cells[index] = values

    def add_up(self, cells: Tensor, index: Tensor, values: Tensor) -> None:
        """Add values [n] to elements at indices [n] of a typed tensor from ``gather_cells``, one after another."""
        held = cells.view(RAW[cells.element_size()])
        self._keep(held, index)
        if self._version is None:
            cells.index_add_(0, index, values)
            return
        before = held[index]
        cells.index_add_(0, index, values)
        self._version += not torch.equal(held[index], before)


def _mixed(blocks: Tensor, elements: int) -> Tensor:
    """Return the elements of blocks of so many, [n], with those of each block out of order."""
    if elements == 1:
        return blocks.flatten()
    parts = math.gcd(elements, 8)
    order = torch.arange(parts) ^ parts * 5 // 8
    return blocks.reshape(-1, parts, elements // parts).index_select(1, order).flatten()


def _zero(like: Tensor) -> Tensor:
    return torch.zeros(1, dtype=like.dtype).expand(like.shape)
