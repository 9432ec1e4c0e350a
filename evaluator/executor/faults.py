"""Memory faults: what a kernel does outside its buffers, in words, a few per execution."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

MAX_FAULTS = 8
"""Faults reported per execution."""


@dataclass(frozen=True, slots=True)
class MemoryFault:
    """An access that a right kernel does not make, or a promise to the compiler that it does not keep."""

    kind: str
    """``read out of bounds``, ``write out of bounds``, ``write to an input``, ``misaligned access``, ``false
    assumption`` or ``false hint``."""
    message: str
    """One line: kind, source line, buffer, element and a program."""


@dataclass(frozen=True, slots=True)
class Site:
    """Who accesses memory: what a fault is reported with."""

    location: str
    ids: torch.Tensor
    """int64 [total]: linear ids of all programs of the run."""
    positions: torch.Tensor
    """int64 [P]: which of them access."""
    grid: tuple[int, int, int]


class FaultLog:
    """Collects faults: the first per kind, place and buffer, and not too many."""

    def __init__(self) -> None:
        self._faults: dict[tuple[str, str, str], MemoryFault] = {}

    @property
    def faults(self) -> tuple[MemoryFault, ...]:
        """What was added so far."""
        return tuple(self._faults.values())

    def add(
        self, kind: str, buffer: str, wrong: torch.Tensor, describe: Callable[[tuple[int, ...]], str], site: Site
    ) -> None:
        """Add the first access of a block [P or 1, ...] that is wrong; ``describe`` names its element by its place."""
        key = (kind, site.location, buffer)
        if key in self._faults or len(self._faults) >= MAX_FAULTS:
            return
        places = wrong.nonzero()
        first = tuple(int(i) for i in places[0])
        x, y, _ = site.grid
        linear = int(site.ids[site.positions[first[0]]])
        message = (
            f"{kind} at {site.location}: {describe(first)}, program {(linear % x, linear // x % y, linear // (x * y))}"
        )
        others = int(places[:, 0].unique().numel()) - 1
        self._faults[key] = MemoryFault(kind, message + (f" and {others} more" if others else ""))
