"""Counts of what the programs of an execution did: operations by kind, and bytes and sectors per buffer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from avo.evaluator.executor.faults import Site
from avo.evaluator.executor.ir import Function, Region, Type, walk_blocks
from avo.evaluator.executor.memory import Memory
from avo.evaluator.executor.space import total
from avo.evaluator.executor.values import AddressSum
from avo.evaluator.executor.work import OpKind, block_work
from avo.evaluator.work import SECTOR_BYTES, Trips

Tensor = torch.Tensor
Address = Tensor | AddressSum
PerProgram = npt.NDArray[np.int64]
"""One number per program that ran."""


@dataclass(frozen=True)
class Traffic:
    """What programs read from or wrote to one buffer; masked elements do not count."""

    read_bytes: PerProgram
    written_bytes: PerProgram
    read_sectors: PerProgram
    """Distinct sectors of each access (one operation on one block), summed over all accesses: the traffic of the best
    layout through a cache that keeps nothing."""
    written_sectors: PerProgram


@dataclass(frozen=True)
class Counts:
    """What each program of an execution did."""

    operations: Mapping[OpKind, PerProgram]
    """Scalar operations. Those on elements that a later mask discards count: the machine executes them, too."""
    traffic: Mapping[str, Traffic]
    """Traffic by name of the buffer. Atomic operations both read and write."""


class Metered:
    """A memory that counts accesses and passes them on. Accesses outside all buffers do not count."""

    def __init__(self, memory: Memory, programs: int) -> None:
        self._memory = memory
        self._counts = torch.zeros(4, memory.buffers, programs, dtype=torch.int64)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)

    def read(self, address: Address, mask: Tensor | None, other: Tensor | None, kind: Type, site: Site) -> Tensor:
        """Like ``Memory.read``."""
        self._count(address, mask, kind, site, reads=True)
        return self._memory.read(address, mask, other, kind, site)

    def write(self, address: Address, mask: Tensor | None, value: Tensor, kind: Type, site: Site) -> None:
        """Like ``Memory.write``."""
        self._count(address, mask, kind, site, writes=True)
        self._memory.write(address, mask, value, kind, site)

    def gather_cells(
        self, address: Tensor, mask: Tensor | None, kind: Type, site: Site
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Like ``Memory.gather_cells``."""
        self._count(address, mask, kind, site, reads=True, writes=True)
        return self._memory.gather_cells(address, mask, kind, site)

    def traffic(self, names: Sequence[str], programs: int) -> dict[str, Traffic]:
        """Return the traffic of the first ``programs`` counted so far, by name of the buffer."""
        counts = self._counts[..., :programs]
        return {name: Traffic(*(column.numpy() for column in counts[:, i])) for i, name in enumerate(names)}

    def _count(
        self,
        address: Address,
        mask: Tensor | None,
        kind: Type,
        site: Site,
        *,
        reads: bool = False,
        writes: bool = False,
    ) -> None:
        flat = total(address)
        active = torch.ones((), dtype=torch.bool) if mask is None else mask
        flat, active = torch.broadcast_tensors(flat, active)
        flat, active = flat.reshape(flat.shape[0], -1), active.reshape(active.shape[0], -1)
        buffers = self._memory.buffer_of(flat)
        for buffer in buffers[active].unique().tolist():
            if not 0 <= buffer < self._memory.buffers:
                continue
            here = active & (buffers == buffer)
            amounts = here.sum(1) * kind.item_bytes, _distinct(flat // SECTOR_BYTES, here)
            for i, amount in enumerate(amounts):
                for j, wanted in enumerate((reads, writes)):
                    if wanted:
                        counts = self._counts[2 * i + j, buffer]
                        counts.index_add_(0, site.positions, amount.expand(site.positions.shape[0]))


def _distinct(values: Tensor, active: Tensor) -> Tensor:
    """Return the number of distinct values, all at least 0, in each row of ``values`` [P, n] that are ``active``."""
    ordered = torch.where(active, values, -1).sort(1).values
    fresh = ordered >= 0
    fresh[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
    return fresh.sum(1)


def operations(function: Function, passes: torch.Tensor) -> dict[OpKind, PerProgram]:
    """Return the operations of each kind, given how often each block was executed: ``passes`` [blocks, programs]."""
    done: dict[OpKind, PerProgram] = {}
    for block in walk_blocks(function.body):
        for kind, amount in block_work(block, function.types).items():
            here = passes[block.index].numpy() * amount
            done[kind] = done[kind] + here if kind in done else here
    return done


def elements(function: Function, trips: Trips, programs: int) -> PerProgram:
    """Return how many elements each of ``programs`` computes that passes through loops as ``trips`` says.

    Branches count as taken.
    """

    def made(region: Region, times: PerProgram) -> PerProgram:
        ops = [op for block in region.blocks for op in block.ops]
        inside = (made(nested, times if op.loop is None else trips[op.loop]) for op in ops for nested in op.regions)
        return sum(inside, start=times * sum(function.types[slot].elements for op in ops for slot in op.results))

    return made(function.body, np.ones(programs, dtype=np.int64))
