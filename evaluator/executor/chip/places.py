"""Where allocations lie in shared memory: the compiler gives memory to one after the other.

It does so once the code makes no more use of the former (Triton, lib/Analysis/Allocation.cpp). Copies and products that
are still at work, and barriers that are not invalidated, it does not see.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from avo.evaluator.executor.chip.cluster import bases, parts
from avo.evaluator.executor.ir import Function, Op, Type

_OFFSET = "allocation.offset"
"""The attribute that says at which byte of a CTA's shared memory an allocation, or scratch memory, begins."""
_SIZE = "allocation.size"
_SCRATCH_BYTES = 16
"""Bytes of scratch memory that are known to be used where it is not said how many there are, as before Triton 3.9."""
_ORDER = re.compile(r"order = \[([\d, ]*)\]")
_RANK = re.compile(r"rank = (\d+)")
_NUMBER = re.compile(r"\d{1,9}(?: |$)")


@dataclass(frozen=True, slots=True)
class Place:
    """Bytes of a CTA's shared memory."""

    first: int
    end: int

    def meets(self, other: "Place") -> bool:
        """Whether they have bytes in common."""
        return self.first < other.end and other.first < self.end

    def covers(self, other: "Place") -> bool:
        """Whether all bytes of the other are in this one."""
        return self.first <= other.first and other.end <= self.end


@dataclass(frozen=True, slots=True)
class Ring:
    """Buffers that lie one after the other, or a single one. In what order elements lie within one is not known."""

    place: Place
    buffers: int

    @property
    def each(self) -> int:
        """Bytes of one buffer."""
        return (self.place.end - self.place.first) // self.buffers

    def of(self, first: int, last: int) -> Place:
        """Return where buffers lie, from the first to the last."""
        return Place(self.place.first + first * self.each, self.place.first + (last + 1) * self.each)

    def within(self, place: Place) -> range:
        """Return the buffers that have bytes in a place."""
        low, high = max(place.first, self.place.first), min(place.end, self.place.end)
        return range((low - self.place.first) // self.each, -((self.place.first - high) // self.each))


def place_of_scratch(op: Op) -> Place | None:
    """Return where an operation keeps what its warps exchange; None where it does not, or that is not said."""
    first = _number(op, _OFFSET) if op.name != "ttg.local_alloc" else None
    return None if first is None else Place(first, first + (_number(op, _SIZE) or _SCRATCH_BYTES))


def shared_places(function: Function) -> Mapping[int, Ring]:
    """Return the places of allocations, by the slot of their results, as far as they are said and can be followed.

    None are known where a function is called, which has places of its own.
    """
    found = {}
    for op in function.body.ops:
        if op.name == "tt.call":
            return {}
        if op.name == "ttg.local_alloc" and (first := _number(op, _OFFSET)) is not None:
            kind = function.types[op.results[0]]
            size, buffers = kind.block.elements * kind.block.item_bytes // parts(bases(kind.layout)), _buffers(kind)
            if "padded" not in kind.layout and size and size % buffers == 0:
                found[op.results[0]] = Ring(Place(first, first + size), buffers)
    return found


def _buffers(kind: Type) -> int:
    """Return how many buffers an allocation is: those along the axes that its layout does not arrange."""
    shape = kind.block.shape
    if order := _ORDER.search(kind.layout):
        rank = len(order[1].split(","))
    elif "#ttg.nvmma_shared" in kind.layout:
        rank = int(found[1]) if (found := _RANK.search(kind.layout)) else 2
    else:
        return 1
    return math.prod(shape[: max(len(shape) - rank, 0)])


def _number(op: Op, attribute: str) -> int | None:
    found = _NUMBER.match(op.attributes.get(attribute, ""))
    return int(found[0]) if found else None
