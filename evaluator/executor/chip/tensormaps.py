"""Tensor descriptors that programs make in scratch memory of their own, by their addresses there.

They lie in global memory, but only the copies of the program that makes them read them.
"""

from collections.abc import Sequence

import torch

Tensor = torch.Tensor

_MADE, _FENCED = 1, 2


class Tensormaps:
    """The descriptors of a number of programs (rows). Rows and addresses are int64 [P] throughout."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._fields: dict[int, Tensor] = {}
        """By address: whether one was made and fenced, then its fields, int64 [rows, 1 + fields]."""

    def make(self, rows: Tensor, address: Tensor, fields: Sequence[Tensor]) -> None:
        """Write descriptors; ``fields`` are int64 [P or 1] each."""
        written = torch.stack([each.expand(rows.numel()) for each in (torch.tensor([_MADE]), *fields)], 1)
        for one in address.unique().tolist():
            held = self._fields.get(one)
            if held is None or held.shape[1] != written.shape[1]:
                held = self._fields[one] = torch.zeros(self._rows, written.shape[1], dtype=torch.int64)
            held[rows[address == one]] = written[address == one]

    def fence(self, rows: Tensor, address: Tensor) -> None:
        """Let copies see the descriptors as they are now (fence.proxy.tensormap of the PTX ISA)."""
        for one in address.unique().tolist():
            if (held := self._fields.get(one)) is not None:
                here = rows[address == one]
                held[here, 0] = torch.where(held[here, 0] == _MADE, _FENCED, held[here, 0])

    def at(self, rows: Tensor, address: Tensor, fields: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the fields, int64 [P, fields], where none were made, and where no fence followed, bool [P] each."""
        found = torch.zeros(rows.numel(), 1 + fields, dtype=torch.int64)
        for one in address.unique().tolist():
            held = self._fields.get(one)
            if held is not None and held.shape[1] == found.shape[1]:
                found[address == one] = held[rows[address == one]]
        return found[:, 1:], found[:, 0] == 0, found[:, 0] == _MADE
