"""Device memory: addresses, bounds, reads and writes, and the faults that a kernel makes there.

An address is an int64: every buffer starts at its own multiple of ``SPACING``, so that a pointer is a plain integer to
every operation, and the buffer it points into can be told from its value. No access leaves the buffers of the launch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from evaluator.executor.faults import FaultLog, MemoryFault, Site
from evaluator.executor.ir import Type
from evaluator.executor.rows import Rows, contiguous_axis
from evaluator.executor.values import DTYPES, RAW, AddressSum

SPACING_BITS = 44
SPACING = 1 << SPACING_BITS
"""Bytes of address space per buffer, 16 TiB: more than any offset that a right kernel computes."""


@dataclass
class Allocation:
    """One buffer."""

    name: str
    data: torch.Tensor
    """Flat, contiguous."""
    written: torch.Tensor | None = None
    """bool per element, set by stores; None if nobody asks."""
    readonly: bool = False
    """Stores to it are faults and change nothing."""


class Memory:
    """The buffers of a launch."""

    def __init__(self, allocations: Sequence[Allocation]) -> None:
        self._allocations = tuple(allocations)
        self._raw: dict[tuple[int, int], torch.Tensor] = {}
        self._log = FaultLog()

    @property
    def buffers(self) -> int:
        """How many buffers there are."""
        return len(self._allocations)

    @property
    def faults(self) -> tuple[MemoryFault, ...]:
        """What went wrong so far, one per place, kind and buffer."""
        return self._log.faults

    def address(self, buffer: int, byte_offset: int) -> int:
        """Return the address of a byte of a buffer."""
        return (buffer + 1) * SPACING + byte_offset

    def copy(self) -> "Memory":
        """Return memory with the same contents that shares nothing."""
        return Memory([Allocation(a.name, a.data.clone(), None, a.readonly) for a in self._allocations])

    def _bits(self, buffer: int, item_bytes: int) -> torch.Tensor:
        """Return a buffer as integers of the given size; a remainder at its end is left out."""
        key = (buffer, item_bytes)
        if key not in self._raw:
            data = self._allocations[buffer].data.view(torch.int8)
            self._raw[key] = data[: data.numel() // item_bytes * item_bytes].view(RAW[item_bytes])
        return self._raw[key]

    def read(
        self,
        address: torch.Tensor | AddressSum,
        mask: torch.Tensor | None,
        other: torch.Tensor | None,
        kind: Type,
        site: Site,
    ) -> torch.Tensor:
        """Return the elements at the addresses, of type ``kind`` [P or 1, ...].

        Where the mask is false: ``other``, or 0 as the hardware's registers are cleared first. Where an access is a
        fault: 0.
        """
        raw = RAW[kind.item_bytes]
        dtype = DTYPES[kind.element]
        replace = None if other is None else other.view(raw)
        if mask is not None and all_true(mask):
            mask = None
        rows = self._rows(address, mask, kind)
        if rows is None:
            return self._read_elements(total(address), mask, replace, kind, site).view(dtype)
        values = rows.table.index_select(0, rows.index.flatten())
        values = values.view(*rows.index.shape, rows.table.shape[1]).movedim(-1, rows.axis)
        if mask is not None:
            values = torch.where(mask, values, _zero(values) if replace is None else replace)
        return values.view(dtype)

    def _read_elements(
        self, address: torch.Tensor, mask: torch.Tensor | None, other: torch.Tensor | None, kind: Type, site: Site
    ) -> torch.Tensor:
        raw = RAW[kind.item_bytes]
        if mask is not None:
            address, mask = torch.broadcast_tensors(address, mask)
        result: torch.Tensor | None = None
        for buffer, index, valid in self._locate(address, mask, kind.item_bytes, "read out of bounds", site):
            bits = self._bits(buffer, kind.item_bytes)
            values = bits.index_select(0, index.flatten()).view(index.shape) if bits.numel() else _zero(index).to(raw)
            if valid is not None:
                values = torch.where(valid, values, _zero(values))
            result = values if result is None else result | values
        if result is None:
            result = torch.zeros(1, dtype=raw).expand(address.shape)
        if mask is not None and other is not None:
            result = torch.where(mask, result, other)
        return result

    def write(
        self,
        address: torch.Tensor | AddressSum,
        mask: torch.Tensor | None,
        value: torch.Tensor,
        kind: Type,
        site: Site,
    ) -> None:
        """Store a block of type ``kind``; the leading dimensions of the arguments broadcast.

        Every program stores, so a buffer that all programs share is written once, and the last program wins.
        """
        if mask is not None and all_true(mask):
            mask = None
        flat = total(address)
        shape = torch.broadcast_shapes(flat.shape, value.shape, *(() if mask is None else (mask.shape,)))
        flat = flat.expand(shape)
        bits = value.view(RAW[kind.item_bytes]).expand(shape)
        mask = None if mask is None else mask.expand(shape)
        for buffer, index, valid in self._locate(flat, mask, kind.item_bytes, "write out of bounds", site):
            allocation = self._allocations[buffer]
            if allocation.readonly:
                self._report("write to an input", buffer, flat, valid, site)
                continue
            if valid is None:
                index, chosen = index.flatten(), bits.flatten()
            else:
                index, chosen = index[valid], bits[valid]
            if index.numel():
                self._bits(buffer, kind.item_bytes).scatter_(0, index, chosen)
                self._mark(allocation, index, kind.item_bytes)

    def _mark(self, allocation: Allocation, index: torch.Tensor, item_bytes: int) -> None:
        if allocation.written is None:
            return
        element_bytes = allocation.data.element_size()
        if item_bytes <= element_bytes:
            allocation.written[index * item_bytes // element_bytes] = True
        else:
            per_item = item_bytes // element_bytes
            allocation.written[(index[:, None] * per_item + torch.arange(per_item)).flatten()] = True

    def gather_cells(
        self, address: torch.Tensor, mask: torch.Tensor | None, kind: Type, site: Site
    ) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Return what atomics need, per buffer: the buffer as a typed tensor, element indices [n], and where in the
        flattened block the accesses are [n], in program order. Faults are reported and left out.
        """
        cells = []
        for buffer, index, valid in self._locate(address, mask, kind.item_bytes, "write out of bounds", site):
            allocation = self._allocations[buffer]
            if allocation.readonly:
                self._report("write to an input", buffer, address, valid, site)
                continue
            where = (
                torch.arange(index.numel())
                if valid is None
                else valid.expand(index.shape).flatten().nonzero().flatten()
            )
            index = index.flatten().index_select(0, where)
            self._mark(allocation, index, kind.item_bytes)
            cells.append((self._bits(buffer, kind.item_bytes).view(DTYPES[kind.element]), index, where))
        return cells

    def _rows(self, address: torch.Tensor | AddressSum, mask: torch.Tensor | None, kind: Type) -> Rows | None:
        """Recognise a block of contiguous rows that lie in one buffer: those are read a row at a time."""
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
        buffer = _buffer_of(low)
        if not 0 <= buffer < len(self._allocations):
            return None
        bits = self._bits(buffer, item)
        offset = starts - self.address(buffer, 0)
        first, last = low - self.address(buffer, 0), high - self.address(buffer, 0)
        if first < 0 or last + length * item > bits.numel() * item:
            return None
        index = offset
        if item > 1:
            index = offset // item if item not in _SHIFT else offset >> _SHIFT[item]
            if bool((offset & (item - 1)).any()):
                return None
        table = bits.as_strided((bits.numel() - length + 1, length), (1, 1))
        return Rows(axis, buffer, index.squeeze(axis), table)

    def _locate(
        self, address: torch.Tensor, mask: torch.Tensor | None, item_bytes: int, kind: str, site: Site
    ) -> list[tuple[int, torch.Tensor, torch.Tensor | None]]:
        """Return per buffer that is accessed: its index, element indices that are safe to use, and which of them count.

        Reports active accesses outside of all buffers, and misaligned ones.
        """
        active = address if mask is None else address[mask]
        if active.numel() == 0:
            return []
        low, high = (int(t) for t in torch.aminmax(active))
        if _buffer_of(low) == _buffer_of(high):
            buffers = [_buffer_of(low)]
        else:
            buffers = [int(b) for b in torch.unique((active + SPACING // 2 >> SPACING_BITS) - 1)]
        found = []
        for buffer in buffers:
            here = mask
            if len(buffers) > 1:
                here = (address + SPACING // 2 >> SPACING_BITS) - 1 == buffer
                here = here if mask is None else here & mask
            if not 0 <= buffer < len(self._allocations):
                self._report(kind, buffer, address, here, site)
                continue
            size = self._bits(buffer, item_bytes).numel() * item_bytes
            start = self.address(buffer, 0)
            offset = address - start
            if len(buffers) == 1 and low >= start and high + item_bytes <= start + size:
                inside = None
            else:
                inside = (offset >= 0) & (offset <= size - item_bytes)
            misaligned = (offset & (item_bytes - 1)) != 0
            if bool(misaligned.any()):
                wrong = misaligned if here is None else misaligned & here
                if bool(wrong.any()):
                    self._report("misaligned access", buffer, address, wrong, site)
                inside = ~misaligned if inside is None else inside & ~misaligned
            if inside is not None:
                outside = ~inside & ((offset < 0) | (offset > size - item_bytes))
                outside = outside if here is None else outside & here
                if bool(outside.any()):
                    self._report(kind, buffer, address, outside, site)
                here = inside if here is None else inside & here
            index = offset // item_bytes
            found.append((buffer, index if here is None else torch.where(here, index, 0), here))
        return found

    def refute(self, kind: str, wrong: torch.Tensor, describe: Callable[[tuple[int, ...]], str], site: Site) -> None:
        """Report that what the kernel promises does not hold where ``wrong`` [P or 1, ...] is true."""
        if bool(wrong.any()):
            self._log.add(kind, "", wrong, describe, site)

    def _report(self, kind: str, buffer: int, address: torch.Tensor, wrong: torch.Tensor | None, site: Site) -> None:
        wrong = torch.ones_like(address, dtype=torch.bool) if wrong is None else wrong
        if not 0 <= buffer < len(self._allocations):
            self._log.add(kind, "no buffer", wrong, lambda place: f"address {int(address[place]):#x}", site)
            return
        allocation = self._allocations[buffer]
        name, size, element_bytes = repr(allocation.name), allocation.data.numel(), allocation.data.element_size()

        def describe(place: tuple[int, ...]) -> str:
            element = (int(address[place]) - self.address(buffer, 0)) // element_bytes
            return f"element {element} of {name}, which has {size}"

        self._log.add(kind, name, wrong, describe, site)


_SHIFT = {2: 1, 4: 2, 8: 3}


def _buffer_of(address: int) -> int:
    return (address + SPACING // 2 >> SPACING_BITS) - 1


def total(address: torch.Tensor | AddressSum) -> torch.Tensor:
    """Return addresses as one tensor."""
    return address if isinstance(address, torch.Tensor) else address.base + address.offset


def _zero(like: torch.Tensor) -> torch.Tensor:
    return torch.zeros(1, dtype=like.dtype).expand(like.shape)


def all_true(mask: torch.Tensor) -> bool:
    """Whether all of a bool tensor is true; several times faster than ``torch.all``."""
    return mask.numel() == 0 or bool(mask.view(torch.uint8).amin())
