"""Counts, from the IR alone, what each loop body of a kernel asks of the machine."""

from collections.abc import Sequence
from dataclasses import dataclass

from evaluator.executor.ir import Function, Op, Region, Type
from evaluator.work import Body

EXPONENTIALS = frozenset(("math.exp", "math.exp2"))
_LIBDEVICE_EXPONENTIALS = ("__nv_exp", "__nv_fast_exp")


@dataclass(frozen=True, slots=True)
class Loop:
    """One loop of a kernel, as far as the IR tells."""

    index: int
    parent: int | None
    """Index of the enclosing loop, None at top level."""
    body: Body
    location: str
    """``FILE:LINE``."""


def count(function: Function) -> tuple[tuple[Loop, ...], Body]:
    """Return the loops in order of appearance, and the work outside of all loops. Both sides of a branch count."""
    found: list[tuple[int | None, list[int], str]] = []
    outside = [0, 0, 0, 0]

    def visit(region: Region, parent: int | None, totals: list[int]) -> None:
        for block in region.blocks:
            for op in block.ops:
                inner, inner_totals = parent, totals
                if op.loop is not None:
                    inner, inner_totals = op.loop, [0, 0, 0, 0]
                    found.append((parent, inner_totals, op.location))
                else:
                    for i, amount in enumerate(_work(op, function.types)):
                        totals[i] += amount
                for nested in op.regions:
                    visit(nested, inner, inner_totals)

    visit(function.body, None, outside)
    loops = tuple(Loop(i, parent, Body(*totals), location) for i, (parent, totals, location) in enumerate(found))
    return loops, Body(*outside)


def _work(op: Op, types: Sequence[Type]) -> tuple[int, int, int, int]:
    """Return dot FLOPs, exponentials, bytes loaded and bytes stored by one operation."""
    if op.name == "tt.dot":
        a, b = types[op.operands[0]], types[op.operands[1]]
        return 2 * a.elements * b.shape[-1], 0, 0, 0
    if op.name in EXPONENTIALS or op.attributes.get("symbol", "").strip('"').startswith(_LIBDEVICE_EXPONENTIALS):
        return 0, types[op.results[0]].elements, 0, 0
    if op.name in ("tt.load", "tt.descriptor_load", "tt.descriptor_gather"):
        return 0, 0, _bytes(types[op.results[0]]), 0
    if op.name == "tt.store":
        return 0, 0, 0, _bytes(types[op.operands[1]])
    if op.name in ("tt.descriptor_store", "tt.descriptor_reduce", "tt.descriptor_scatter"):
        return 0, 0, 0, _bytes(types[op.operands[-1]])
    if op.name in ("tt.atomic_rmw", "tt.atomic_cas"):
        moved = _bytes(types[op.operands[1]])
        return 0, 0, moved, moved
    return 0, 0, 0, 0


def _bytes(kind: Type) -> int:
    return kind.elements * kind.item_bytes
