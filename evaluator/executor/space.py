"""The address space: which buffer an address lies in, and checks of bounds, alignment and padding.

An address is an int64, so a pointer is a plain integer to every operation. Its value tells which buffer it points
into: half of the gap between two buffers belongs to each. Buffers without a given address start at multiples of
``SPACING``.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import overload

import numpy as np
import torch

from avo.evaluator.allocation import Allocation
from avo.evaluator.division import quotient, remainder
from avo.evaluator.executor.dtypes import RAW
from avo.evaluator.executor.faults import FaultLog, Finding, MemoryFault, Site
from avo.evaluator.executor.ir import Type
from avo.evaluator.executor.rows import Rows, contiguous_axis
from avo.evaluator.executor.values import AddressSum

Tensor = torch.Tensor

SPACING = 1 << 44
"""Bytes of address space per buffer, 16 TiB: more than any offset that a correct kernel computes."""


@dataclass(frozen=True, slots=True)
class Access:
    """The elements of a block that one operation reads or writes in one buffer, without faulty ones."""

    buffer: int
    index: Tensor
    """Indices of items of ``item_bytes`` in the buffer, int64 [P or 1, ...]; 0 where not active."""
    active: Tensor | None
    """Which items are accessed, bool of the same shape; None: all."""
    item_bytes: int
    site: Site


class Space:
    """The buffers of a launch and their addresses."""

    def __init__(self, allocations: Sequence[Allocation], kernel: str = "") -> None:
        self._allocations = tuple(allocations)
        self._addresses = [(i + 1) * SPACING if a.address is None else a.address for i, a in enumerate(allocations)]
        self._ascending = sorted(range(len(self._addresses)), key=self._addresses.__getitem__)
        self._bounds = self._find_bounds()
        self._raw: dict[tuple[int, int], Tensor] = {}
        self._padding: dict[int, Tensor | None] = {}
        self._kernel = kernel
        self._log = FaultLog(kernel)
        self._notes = FaultLog(kernel)

    @property
    def buffers(self) -> int:
        """Number of buffers."""
        return len(self._allocations)

    @property
    def faults(self) -> tuple[MemoryFault, ...]:
        """The faults so far, one per place, kind and buffer."""
        return self._log.found

    @property
    def notes(self) -> tuple[MemoryFault, ...]:
        """The findings so far that are not faults."""
        return self._notes.found

    @property
    def suspicion(self) -> str:
        """What may be why a program is stuck, in words: the first fault, or a read of what nobody wrote."""
        unwritten = (note for note in self.notes if note.kind == "read of uninitialised memory")
        return "".join(f"; before that, {found.message}" for found in [*self.faults, *unwritten][:1])

    def address(self, buffer: int, byte_offset: int) -> int:
        """Return the address of a byte of a buffer."""
        return self._addresses[buffer] + byte_offset

    def _find_bounds(self) -> list[int]:
        """Return where the space of each buffer begins, in order of address, and where the last one ends."""
        if not self._ascending:
            return []
        sizes = [each.extent * each.data.element_size() for each in self._allocations]
        places = [(self._addresses[i], self._addresses[i] + sizes[i]) for i in self._ascending]
        between = [(end + start) // 2 for (_, end), (start, _) in pairwise(places)]
        return [places[0][0] - SPACING // 2, *between, places[-1][1] + SPACING // 2]

    @overload
    def buffer_of(self, address: int) -> int: ...
    @overload
    def buffer_of(self, address: Tensor) -> Tensor: ...
    def buffer_of(self, address: int | Tensor) -> int | Tensor:
        """Return the number of the buffer that each address belongs to, -1 where there is none."""
        if isinstance(address, int):
            found = bisect_right(self._bounds, address)
            return self._ascending[found - 1] if 0 < found < len(self._bounds) else -1
        numbers = torch.tensor([-1, *self._ascending, -1])
        return numbers[torch.bucketize(address.contiguous(), torch.tensor(self._bounds), right=True)]

    def _offset(self, buffer: int, address: Tensor) -> Tensor:
        """Return the bytes from where a buffer's contents begin to those that addresses mean, far below zero for
        addresses between the rows of a sparse one.
        """
        offset = address - self.address(buffer, 0)
        allocation = self._allocations[buffer]
        if allocation.sparse is None:
            return offset
        element_bytes = allocation.data.element_size()
        index = allocation.sparse.index(quotient(offset, element_bytes))
        return torch.where(index < 0, -SPACING, index * element_bytes + remainder(offset, element_bytes))

    def _bits(self, buffer: int, item_bytes: int) -> Tensor:
        """Return a buffer as integers of the given size; a remainder at its end is left out."""
        key = (buffer, item_bytes)
        if key not in self._raw:
            data = self._allocations[buffer].data.view(torch.int8)
            self._raw[key] = data[: data.numel() // item_bytes * item_bytes].view(RAW[item_bytes])
        return self._raw[key]

    def _rows(self, address: Tensor | AddressSum, mask: Tensor | None, kind: Type) -> Rows | None:
        """Return a block as contiguous rows in one buffer, which can be read row by row; None if it is not that."""
        item = kind.item_bytes
        found = contiguous_axis(address, kind.shape, item)
        if found is None:
            return None
        axis, starts = found
        length = kind.shape[axis - 1]
        if mask is None:
            low, high = (int(t) for t in torch.aminmax(starts))
        else:
            active = mask if mask.shape[axis] == 1 else mask.any(axis, keepdim=True)
            starts, active = torch.broadcast_tensors(starts, active)
            chosen = starts[active]
            if chosen.numel() == 0:
                return None
            low, high = (int(t) for t in torch.aminmax(chosen))
            starts = torch.where(active, starts, low)
        buffer = self.buffer_of(low)
        if not 0 <= buffer < len(self._allocations):
            return None
        bits = self._bits(buffer, item)
        offset = self._offset(buffer, starts)
        first, last = low - self.address(buffer, 0), high - self.address(buffer, 0)
        if self._allocations[buffer].sparse is not None:
            if bool((self._offset(buffer, starts + (length - 1) * item) != offset + (length - 1) * item).any()):
                return None
            first, last = (int(t) for t in torch.aminmax(offset))
        if first < 0 or last + length * item > bits.numel() * item:
            return None
        if item > 1 and bool((offset & (item - 1)).any()):
            return None
        index = (offset >> _SHIFT[item]).squeeze(axis)
        before = self._padding_before(buffer)
        if before is not None:
            element_bytes = self._allocations[buffer].data.element_size()
            if element_bytes != item or any_true(before[index + length] != before[index]):
                return None
        table = bits.as_strided((bits.numel() - length + 1, length), (1, 1))
        return Rows(axis, buffer, index, table)

    def _whole_rows(
        self, address: Tensor | AddressSum, mask: Tensor | None, kind: Type
    ) -> tuple[Rows, Tensor | None, int] | None:
        """Return a block that may be written as rows, which of them are [P or 1, ...] (None: all), and the remainder
        of their indices by their length; None if part of a row is not written, or if they have no common remainder.

        The index of a row that is not written is that of another.
        """
        rows = self._rows(address, mask, kind)
        if rows is None:
            return None
        allocation, length, active = self._allocations[rows.buffer], rows.table.shape[1], None
        if allocation.readonly or allocation.data.element_size() != kind.item_bytes:
            return None
        if mask is not None:
            some = mask.any(rows.axis)
            if mask.shape[rows.axis] != 1 and not torch.equal(some, mask.all(rows.axis)):
                return None
            active = some.expand(rows.index.shape)
        phases = remainder(rows.index, length)
        phase = int(phases.flatten()[0])
        return None if any_true(phases != phase) else (rows, active, phase)

    def _padding_before(self, buffer: int) -> Tensor | None:
        """Return the number of padding elements before each element of a buffer, int64 [elements + 1]; None if none."""
        if buffer not in self._padding:
            valid = self._allocations[buffer].valid
            self._padding[buffer] = None
            if valid is not None and not all_true(valid):
                self._padding[buffer] = torch.nn.functional.pad((~valid).cumsum(0), (1, 0))
        return self._padding[buffer]

    def _locate(self, address: Tensor, mask: Tensor | None, item_bytes: int, verb: str, site: Site) -> list[Access]:
        """Return the accesses in each buffer, with indices that are safe to use.

        ``verb`` is ``read`` or ``write``. Active accesses outside all buffers, misaligned accesses, accesses to padding
        and writes to inputs are reported.
        """
        if mask is not None and not any_true(mask):
            return []
        low, high = _ends(address, mask)
        if self.buffer_of(low) == self.buffer_of(high):
            buffers = [self.buffer_of(low)]
        else:
            buffers = [int(b) for b in torch.unique(self.buffer_of(address if mask is None else address[mask]))]
        found = []
        for buffer in buffers:
            here = mask
            if len(buffers) > 1:
                here = self.buffer_of(address) == buffer
                here = here if mask is None else here & mask
            if not 0 <= buffer < len(self._allocations):
                self._report(f"{verb} out of bounds", buffer, address, here, site)
                continue
            size = self._bits(buffer, item_bytes).numel() * item_bytes
            start = self.address(buffer, 0)
            offset = self._offset(buffer, address)
            dense = self._allocations[buffer].sparse is None
            if dense and len(buffers) == 1 and low >= start and high + item_bytes <= start + size:
                inside = None
            else:
                inside = (offset >= 0) & (offset <= size - item_bytes)
            remainder = offset & (item_bytes - 1)
            if item_bytes > 1 and int(remainder.amax()):
                misaligned = remainder != 0
                wrong = misaligned if here is None else misaligned & here
                if any_true(wrong):
                    self._report("misaligned access", buffer, address, wrong, site)
                inside = ~misaligned if inside is None else inside & ~misaligned
            if inside is not None:
                outside = ~inside & ((offset < 0) | (offset > size - item_bytes))
                outside = outside if here is None else outside & here
                if any_true(outside):
                    self._report(f"{verb} out of bounds", buffer, address, outside, site)
                here = inside if here is None else inside & here
            if verb == "write" and self._allocations[buffer].readonly:
                if here is None or any_true(here):
                    self._report("write to an input", buffer, address, here, site)
                continue
            index = offset >> _SHIFT[item_bytes]
            index = index if here is None else torch.where(here, index, 0)
            here = self._outside_padding(buffer, address, index, here, item_bytes, verb, site)
            found.append(Access(buffer, index, here, item_bytes, site))
        return found

    def _outside_padding(
        self,
        buffer: int,
        address: Tensor,
        index: Tensor,
        here: Tensor | None,
        item_bytes: int,
        verb: str,
        site: Site,
    ) -> Tensor | None:
        """Report accesses to padding, and return which accesses proceed: all reads, and the writes outside padding."""
        allocation = self._allocations[buffer]
        if allocation.valid is None or self._padding_before(buffer) is None:
            return here
        good = allocation.valid[allocation.covered(index, item_bytes)].all(-1)
        wrong = ~good if here is None else here & ~good
        if verb == "read" and allocation.views:
            element = quotient(index * item_bytes, allocation.data.element_size())
            beside = wrong & ~torch.stack([view.spans(element) for view in allocation.views]).any(0)
            if any_true(beside):
                self._report("read beside a tensor", buffer, address, beside, site)
            wrong = wrong & ~beside
        if any_true(wrong):
            self._report(f"{verb} in padding", buffer, address, wrong, site)
        if verb == "read":
            return here
        return good if here is None else here & good

    def refute(self, kind: str, wrong: Tensor, describe: Callable[[tuple[int, ...]], str], site: Site) -> None:
        """Report that a promise of the kernel does not hold where ``wrong`` [P or 1, ...] is true."""
        if any_true(wrong):
            self._log.add(kind, "", wrong, lambda place: Finding(describe(place)), site)

    def remark(self, kind: str, where: Tensor, describe: Callable[[tuple[int, ...]], str], site: Site) -> None:
        """Note what happens where ``where`` [P or 1, ...] is true and is no fault by itself."""
        if any_true(where):
            self._notes.add(kind, "", where, lambda place: Finding(describe(place)), site)

    def report_overflow(self, address: Tensor, exact: Tensor, wrong: Tensor, site: Site) -> None:
        """Report accesses [P or 1, ...] whose addresses differ from their exact values, without overflow."""
        if any_true(wrong):
            address, exact, wrong = torch.broadcast_tensors(address, exact, wrong)
            allocation, start = self._pointed(int(address[wrong][0]))

            def describe(place: tuple[int, ...]) -> Finding:
                if allocation is None:
                    return Finding("the offset wraps around")
                index, text = allocation.name_of((int(exact[place]) - start) // allocation.data.element_size())
                return Finding(f"the offset of {text} wraps around", index)

            name = allocation.name if allocation else ""
            self._log.add("integer overflow", name, wrong, describe, site)

    def report_wrapped_coordinate(self, base: Tensor, value: Tensor, exact: Tensor, wrong: Tensor, site: Site) -> None:
        """Report coordinates [P or 1, ...] of a descriptor's block that have wrapped around."""
        if any_true(wrong):
            value, exact, wrong, base = torch.broadcast_tensors(value, exact, wrong, base)
            allocation, _ = self._pointed(int(base[wrong][0]))
            name = allocation.name if allocation else ""

            def describe(place: tuple[int, ...]) -> Finding:
                return Finding(
                    f"coordinate {int(exact[place])} of a block of {name!r} wraps around to {int(value[place])}"
                )

            self._log.add("integer overflow", name, wrong, describe, site)

    def _pointed(self, address: int) -> tuple[Allocation | None, int]:
        """Return the buffer that an address belongs to, if any, and the address where it starts."""
        buffer = self.buffer_of(address)
        if not 0 <= buffer < len(self._allocations):
            return None, 0
        return self._allocations[buffer], self.address(buffer, 0)

    def state_misaligned(self, text: str, buffer: int | None) -> None:
        """Report an argument, an address in a buffer or a number, that is less divisible than declared."""
        name = self._allocations[buffer].name if buffer is not None and 0 <= buffer < self.buffers else ""
        self._log.state("misaligned access", f"{text}, {name!r}" if name else text, tensor=name)

    def _report(self, kind: str, buffer: int, address: Tensor, wrong: Tensor | None, site: Site) -> None:
        wrong = torch.ones_like(address, dtype=torch.bool) if wrong is None else wrong
        if not 0 <= buffer < len(self._allocations):
            self._log.add(kind, "", wrong, lambda place: Finding(f"address {int(address[place]):#x}"), site)
            return
        allocation = self._allocations[buffer]
        element_bytes = allocation.data.element_size()

        def describe(place: tuple[int, ...]) -> Finding:
            index, text = allocation.name_of((int(address[place]) - self.address(buffer, 0)) // element_bytes)
            return Finding(f"{text}, which has {allocation.extent}", index)

        self._log.add(kind, allocation.name, wrong, describe, site)


_SHIFT = {1: 0, 2: 1, 4: 2, 8: 3}
"""The logarithm of each size of an item."""


def _ends(address: Tensor, mask: Tensor | None) -> tuple[int, int]:
    """Return the least and the greatest address, where the mask is true."""
    if mask is None:
        low, high = torch.aminmax(address)
    else:
        range_ = torch.iinfo(address.dtype)
        low, high = torch.where(mask, address, range_.max).amin(), torch.where(mask, address, range_.min).amax()
    return int(low), int(high)


def total(address: Tensor | AddressSum) -> Tensor:
    """Return addresses as one tensor."""
    return address if isinstance(address, Tensor) else address.base + address.offset


def distinct(numbers: Tensor) -> Tensor:
    """Return the distinct ones of numbers [n] in order. ``unique`` takes four times as long, and more if sorted."""
    if all_true(numbers[1:] > numbers[:-1]):
        return numbers
    ordered: Tensor = torch.from_numpy(np.sort(numbers.numpy())).unique_consecutive()
    return ordered


def all_true(mask: Tensor) -> bool:
    """Whether a bool tensor is true everywhere; several times faster than ``torch.all``."""
    return mask.numel() == 0 or bool(mask.view(torch.uint8).amin())


def any_true(mask: Tensor) -> bool:
    """Whether a bool tensor is true anywhere; many times faster than ``torch.any``."""
    return mask.numel() > 0 and bool(mask.view(torch.uint8).amax())
