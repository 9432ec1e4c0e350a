"""Counts the work of each block of a kernel, from the IR alone."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from avo.evaluator.executor.effects import accessed_type, effects
from avo.evaluator.executor.errors import UnsupportedOperation
from avo.evaluator.executor.ir import ALLOCATIONS, BITS, COMBINING, Block, Function, Op, Region, Type
from avo.evaluator.work import ALL_ROLES, Body, Shares


class OpKind(NamedTuple):
    """A kind of scalar operation, on one element type."""

    name: str
    """What it is counted as; ``effects`` has the names."""
    element: str
    """Element type, as the IR spells it: of operands for ``dot``, ``compare`` and ``convert``, else of results."""


Operations = Counter[OpKind]
"""Number of scalar operations of each kind. A multiply-add counts as two, also within a matrix product."""

_ARITHMETIC = {"float": 1, "convert": 4}
"""What an operation of each kind counts as in ``Body.arithmetic``. An SM converts at most 128 numbers a clock, two in
each of 64 instructions (CUDA C++ Programming Guide 12, arithmetic instructions), a quarter of what it adds."""
_LIBDEVICE_EXPONENTIALS = ("__nv_exp", "__nv_fast_exp")
_LIBDEVICE_LOOPS = ("__nv_fmod", "__nv_jn", "__nv_powi", "__nv_remainder", "__nv_remquo", "__nv_yn")
"""Functions with a loop that is passed as often as their arguments say, as far as the PTX of libdevice shows. The loops
of others, such as that of ``sin`` for large numbers, are passed a few times at most."""


@dataclass(frozen=True, slots=True)
class Loop:
    """One loop of a kernel, as the IR shows it."""

    index: int
    parent: int | None
    """Index of the enclosing loop, None at top level."""
    block: int
    """Index of the block of its body."""
    location: str
    """Source line of the loop, as ``FILE:LINE``."""
    lines: range
    """Its lines in the text of the IR, counted from 1."""


def loops(function: Function) -> tuple[Loop, ...]:
    """Return the loops in order of appearance."""
    found: list[Loop] = []

    def visit(region: Region, parent: int | None) -> None:
        for block in region.blocks:
            for op in block.ops:
                if op.loop is not None:
                    # The last region is the body; a ``while`` has its condition before.
                    body = op.regions[-1].blocks[0].index
                    found.append(Loop(op.loop, parent, body, op.location, op.lines))
                for nested in op.regions:
                    visit(nested, parent if op.loop is None else op.loop)

    visit(function.body, None)
    return tuple(found)


def roles(function: Function) -> tuple[int, ...]:
    """Return for each loop the partition that it is in: see ``Counted.roles``."""
    found = dict.fromkeys((loop.index for loop in loops(function)), 0)
    specialised = [op for op in function.body.ops if op.name == "ttg.warp_specialize"]
    for op in function.body.ops:
        if op.loop is not None and any(inner.name == "ttg.warp_specialize" for inner in op.nested):
            found[op.loop] = ALL_ROLES
    for op in specialised:
        for partition, region in enumerate(op.regions[1:], 1):
            found.update((inner.loop, partition) for inner in region.ops if inner.loop is not None)
    return tuple(found.values()) if specialised else ()


def bodies(function: Function, passes: Mapping[int, int], programs: int) -> tuple[tuple[Body, ...], Body]:
    """Return the mean work of a pass through each loop's body, and of a program outside all loops.

    ``passes`` has how often all programs together executed each block. A block that is missing there counts as often as
    the surrounding block, the body of a loop not at all. Raises ``UnsupportedOperation`` for a loop of single elements
    or within a function of libdevice, whose passes are not known.
    """
    found = loops(function)
    entered = _entered(function, passes)
    totals = [[0] * 6 for _ in found]
    outside = [0] * 6

    def visit(region: Region, totals_here: list[int], around: int) -> None:
        for block in region.blocks:
            times = passes.get(block.index, around)
            for op in block.ops:
                if _symbol(op).startswith(_LIBDEVICE_LOOPS):
                    raise UnsupportedOperation(f"{_symbol(op)} with a loop, whose passes are not counted", op.location)
                for i, amount in enumerate(_asked(op, function.types)):
                    totals_here[i] += amount * times
                inner, inner_times = totals_here, times
                if op.loop is not None:
                    inner, inner_times = totals[op.loop], times if found[op.loop].block in passes else 0
                elif op.name in COMBINING:
                    if any(each.name in ("scf.for", "scf.while") for each in op.regions[0].ops):
                        raise UnsupportedOperation(f"{op.name} with a loop, whose passes are not counted", op.location)
                    inner_times = times * _combinations(op, function.types)
                for nested in op.regions:
                    visit(nested, inner, inner_times)

    visit(function.body, outside, programs)
    trips = [max(1, passes.get(loop.block, 0)) for loop in found]
    inside = (_mean(sums, count, share) for sums, count, share in zip(totals, trips, entered, strict=True))
    return tuple(inside), _mean(outside, programs)


def _entered(function: Function, passes: Mapping[int, int]) -> list[float]:
    """Return, for each loop, the share of its passes that enter the most entered branch of its body.

    Branches that hold nothing but scalars do not count: they cost little. What elements branch around on their own
    counts as entered. A mean would let a branch that is never entered lower the price of one that always is.
    """
    shares: list[list[float]] = [[] for _ in loops(function)]
    trips = {loop.index: passes.get(loop.block, 0) for loop in loops(function)}

    def visit(region: Region, loop: int | None) -> None:
        for op in (op for block in region.blocks for op in block.ops):
            if op.name == "scf.if" and loop is not None:
                for side in op.regions:
                    used = (slot for inner in side.ops if inner.name != "scf.yield" for slot in inner.operands)
                    if any(function.types[slot].elements > 1 for slot in used):
                        times = passes.get(side.blocks[0].index, trips[loop])
                        shares[loop].append(min(1.0, times / max(1, trips[loop])))
            if op.name in COMBINING:
                if loop is not None and any(inner.regions for inner in op.regions[0].ops):
                    shares[loop].append(1.0)
                continue
            for nested in op.regions:
                visit(nested, loop if op.loop is None else op.loop)

    visit(function.body, None)
    return [max(each, default=1.0) for each in shares]


def shares(function: Function, passes: Mapping[int, int], programs: int) -> Shares:
    """Return which lines are passed by, given how often all programs together executed each block.

    What lies within a combining operation is not followed, nor is a block that is missing in ``passes``.
    """
    found: dict[range, float] = {}

    def visit(region: Region, times: int, around: int) -> None:
        for block in region.blocks:
            here = passes.get(block.index, times)
            lines = [op.lines for op in block.ops if op.lines]
            if here < around and lines:
                place = range(min(each.start for each in lines), max(each.stop for each in lines))
                found[place] = max(found.get(place, 0.0), here / around)  # a function is there at each of its calls
            for op in block.ops:
                for nested in op.regions if op.name not in COMBINING else ():
                    inner = here if op.loop is None else passes.get(nested.blocks[0].index, 0)
                    visit(nested, inner, around if op.loop is None else inner)

    visit(function.body, programs, programs)
    return tuple(found.items())


def _mean(sums: Sequence[int], count: int, entered: float = 1.0) -> Body:
    flops, exponentials, loaded, stored, arithmetic, shared = (amount / count for amount in sums)
    return Body(flops, exponentials, loaded, stored, entered, arithmetic, shared)


def block_work(block: Block, types: Sequence[Type]) -> Operations:
    """Return the work of one pass of one program through a block, without nested blocks; masked elements count."""
    work: Operations = Counter()
    for op in block.ops:
        if op.name in COMBINING:
            body = Counter[OpKind]()
            for inner in op.regions[0].ops:
                body.update(_arithmetic(inner, types))
            for kind, amount in body.items():
                work[kind] += amount * _combinations(op, types)
        else:
            work.update(_arithmetic(op, types))
    return work


def _combinations(op: Op, types: Sequence[Type]) -> int:
    """Return how often at least an operation applies its region."""
    elements = types[op.operands[0]].elements
    if op.name == "tt.map_elementwise":
        return elements // (len(op.regions[0].args) // len(op.operands))
    if op.name == "tt.reduce":
        return elements - types[op.results[0]].elements
    return elements - elements // types[op.operands[0]].shape[int(op.attributes["axis"].split(":")[0])]


def _arithmetic(op: Op, types: Sequence[Type]) -> Operations:
    name = _kind(op)
    if name == "dot":
        return Counter({OpKind(name, types[op.operands[0]].block.element): product_flops(op, types)})
    if name is None or not op.results:
        return Counter()
    element = types[(op.operands if name in ("compare", "convert") else op.results)[0]].element
    per_element = 2 if op.name == "math.fma" or "fma" in op.words else 1
    return Counter({OpKind(name, element): types[op.results[0]].elements * per_element})


def _kind(op: Op) -> str | None:
    """Return what the scalar operations of an operation are counted as, None where they are not counted."""
    if _symbol(op).startswith(_LIBDEVICE_EXPONENTIALS):
        return "exponential"
    return effects(op.name).work


def _symbol(op: Op) -> str:
    """Return the name of the function of libdevice that an operation calls, else nothing."""
    return op.attributes.get("symbol", "").strip('"')


def product_flops(op: Op, types: Sequence[Type]) -> int:
    """Return the floating-point operations of a matrix product [..., M, K] x [..., K, N]: 2 M N K."""
    # tcgen05 products add to their third operand and give nothing but a token.
    in_place = op.name.startswith("ttng.tc_gen5_mma")
    a, result = types[op.operands[0]].block, types[op.operands[2] if in_place else op.results[0]]
    per_item = 2 if op.attributes.get("lhs") == "e2m1" else 1  # 4-bit elements lie two in a byte
    return 2 * a.elements * per_item * result.block.shape[-1]


def _asked(op: Op, types: Sequence[Type]) -> tuple[int, int, int, int, int, int]:
    """Return what one operation adds to each field of ``Body`` but ``entered``, in order."""
    row, name = effects(op.name), _kind(op)
    moved = _bytes(accessed_type(op, types)) if row.accesses else 0
    return (
        product_flops(op, types) if name == "dot" else 0,
        types[op.results[0]].elements if name == "exponential" else 0,
        moved if row.reads else 0,
        moved if row.writes else 0,
        types[op.results[0]].elements * _ARITHMETIC[name] if name in _ARITHMETIC and _floating(op, types) else 0,
        sum(_bytes(types[slot].block) for slot in _through_shared(op, types)),
    )


def _through_shared(op: Op, types: Sequence[Type]) -> list[int]:
    """Return the slots of what an operation reads from or writes to shared memory: a product, its operands there.

    Copies from and to global memory are left out: L2 bounds them.
    """
    if effects(op.name).work == "dot":
        buffers = (slot for slot in op.operands[:2] if types[slot].element == "memdesc")
        return [slot for slot in buffers if not types[slot].in_tensor_memory]
    if effects(op.name).shared == "load":
        return list(op.results)
    return list(op.operands[:1]) if effects(op.name).shared == "store" else []


def _floating(op: Op, types: Sequence[Type]) -> bool:
    """Whether an operation takes or gives floating-point numbers."""
    return any("f" in types[slot].element for slot in (*op.operands, *op.results))


def _bytes(kind: Type) -> int:
    return kind.elements * kind.item_bytes


def temporary_bytes(function: Function) -> int:
    """Return the most bytes that one program takes: all its values at full size, twice to allow for temporaries."""

    def size(kind: Type) -> int:
        return kind.elements * (max(BITS[kind.element] // 8, 1))

    kinds = ((op, function.types[slot]) for op in function.body.ops for slot in op.results)
    return 2 * sum(size(kind.block if op.name in ALLOCATIONS else kind) for op, kind in kinds) + 4096
