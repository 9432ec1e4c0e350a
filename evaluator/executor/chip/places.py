"""Where allocations lie in shared memory: the compiler gives memory to one after the other.

It does so once the code makes no more use of the former (Triton, lib/Analysis/Allocation.cpp). Copies and products that
are still at work, and barriers that are not invalidated, it does not see.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from evaluator.executor.chip.cluster import bases, parts
from evaluator.executor.ir import Function, Op, walk

PLACE = "allocation.offset"
"""The attribute that says at which byte of a CTA's shared memory an allocation, or scratch memory, begins."""
_SIZE = "allocation.size"
_SCRATCH_BYTES = 16
"""Bytes of scratch memory that are known to be used where it is not said how many there are."""


@dataclass(frozen=True, slots=True)
class Place:
    """Bytes of a CTA's shared memory."""

    first: int
    end: int

    def meets(self, other: "Place") -> bool:
        """Whether they have bytes in common."""
        return self.first < other.end and other.first < self.end


def place_of_scratch(op: Op) -> Place | None:
    """Return where an operation keeps what its warps exchange; None where it does not, or that is not said."""
    first = _number(op, PLACE) if op.name != "ttg.local_alloc" else None
    return None if first is None else Place(first, first + (_number(op, _SIZE) or _SCRATCH_BYTES))


def shared_places(function: Function) -> Mapping[int, Place]:
    """Return the places of allocations, by the slot of their results, as far as they are said.

    None are known where a function is called, which has places of its own.
    """
    found = {}
    for op in walk(function.body):
        if op.name == "tt.call":
            return {}
        if op.name == "ttg.local_alloc" and (first := _number(op, PLACE)) is not None:
            kind = function.types[op.results[0]]
            size = kind.block.elements * kind.block.item_bytes // parts(bases(kind.layout))
            found[op.results[0]] = Place(first, first + size)
    return found


def _number(op: Op, attribute: str) -> int | None:
    number = op.attributes.get(attribute, "").partition(" ")[0]
    return int(number) if number.isdecimal() else None
