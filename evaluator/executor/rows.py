"""Finds contiguous rows in blocks of addresses: attention kernels read little else, and rows are fast to read."""

from dataclasses import dataclass

import torch

from avo.evaluator.executor.values import AddressSum

SHORTEST_ROW = 8
"""Number of elements from which reading by rows pays."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A block of rows of one buffer."""

    axis: int
    """Axis along which rows run, counting the block's leading dimension."""
    buffer: int
    """Number of the buffer that the rows lie in."""
    index: torch.Tensor
    """Index of the first element of each row, in the block's shape without ``axis``."""
    table: torch.Tensor
    """Every run of ``length`` elements of the buffer, as a view [n, length]."""

    def elements(self) -> torch.Tensor:
        """Return the index of every element, in the block's shape."""
        shape = [1] * (self.index.dim() + 1)
        shape[self.axis] = -1
        return self.index.unsqueeze(self.axis) + torch.arange(self.table.shape[1]).view(shape)


def contiguous_axis(
    address: torch.Tensor | AddressSum, shape: tuple[int, ...], item_bytes: int
) -> tuple[int, torch.Tensor] | None:
    """Return the axis along which addresses increase by one element, and the addresses at its start; None if none."""
    terms = (address,) if isinstance(address, torch.Tensor) else (address.offset, address.base)
    for axis in range(len(shape), 0, -1):
        length = shape[axis - 1]
        if length < SHORTEST_ROW:
            continue
        varying = [term for term in terms if term.shape[axis] != 1]
        if len(varying) != 1:
            continue
        step = varying[0].narrow(axis, 1, length - 1) - varying[0].narrow(axis, 0, length - 1)
        low, high = torch.aminmax(step)
        if int(low) == int(high) == item_bytes:
            starts = [term.narrow(axis, 0, 1) for term in terms]
            return axis, starts[0] if len(starts) == 1 else starts[0] + starts[1]
    return None


def row_table(elements: torch.Tensor, length: int, phase: int) -> torch.Tensor:
    """Return elements [n] as rows of ``length`` from ``phase`` on, as a view without the remainder at the end."""
    table = elements[phase:]
    return table[: table.numel() // length * length].view(-1, length)
