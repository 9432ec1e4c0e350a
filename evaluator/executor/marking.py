"""Memory that only takes note of what stores would write: coverage of a whole grid, at the price of its addresses."""

import numpy as np
import torch

from evaluator.executor.faults import Site
from evaluator.executor.ir import Type
from evaluator.executor.memory import Memory
from evaluator.executor.rows import contiguous_axis
from evaluator.executor.space import all_true, total
from evaluator.executor.values import AddressSum

Tensor = torch.Tensor


class Marks(Memory):
    """Buffers whose contents stores leave alone; they set ``Allocation.written`` and report faults as ever."""

    def write(self, address: Tensor | AddressSum, mask: Tensor | None, value: Tensor, kind: Type, site: Site) -> None:
        """Mark the elements of a block of type ``kind``."""
        if mask is not None and all_true(mask):
            mask = None
        if not self._mark_rows(address, mask, kind):
            flat = total(address)
            shape = np.broadcast_shapes(flat.shape, *(() if mask is None else (mask.shape,)))
            flat, mask = flat.expand(shape), None if mask is None else mask.expand(shape)
            for access in self._locate(flat, mask, kind.item_bytes, "write", site):
                index = access.index.flatten() if access.active is None else access.index[access.active]
                self._mark(self._allocations[access.buffer], index, kind.item_bytes)

    def _mark_rows(self, address: Tensor | AddressSum, mask: Tensor | None, kind: Type) -> bool:
        """Mark whole rows if the block consists of some, and say whether it did."""
        found = contiguous_axis(address, kind.shape, kind.item_bytes)
        if found is None:
            return False
        axis = found[0]
        if mask is not None and mask.shape[axis] != 1:
            some = mask.any(axis, keepdim=True)
            if not torch.equal(some, mask.all(axis, keepdim=True)):
                return False
            mask = some
        rows = self._rows(address, mask, kind)
        if rows is None or rows.axis != axis:
            return False
        allocation, length = self._allocations[rows.buffer], kind.shape[axis - 1]
        if allocation.readonly or allocation.data.element_size() != kind.item_bytes:
            return False
        if allocation.written is None:
            return True
        index = rows.index.flatten()
        phase = int(index[0]) % length
        if bool((index % length != phase).any()):
            return False
        table = allocation.written[phase:]
        table = table[: table.numel() // length * length].view(-1, length)
        table.index_fill_(0, index // length, True)
        return True
