"""How values pass through control flow, and which branches can be followed without the kernel's actual work."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice

from avo.evaluator.executor.effects import CONTROL, effects
from avo.evaluator.executor.ir import COMBINING, Function, Op, Region

Slots = tuple[int, ...]
_NO_ARRIVAL = ("ttng.init_barrier", "ttng.wait_barrier", "ttng.inval_barrier", "ttg.local_dealloc")
"""Operations on a barrier that do not help to complete its phase."""


def links(op: Op, arguments: Mapping[str, Slots]) -> Iterator[tuple[Slots, Slots]]:
    """Yield (targets, sources): an operation of control flow may set each target to the source at the same place.

    ``arguments`` has the arguments of the surrounding blocks by label.
    """
    results = op.results
    if op.name == "scf.for":
        (body,) = op.regions
        carried = body.args[1:]
        yield results, carried
        yield carried, body.terminator.operands
        yield carried, op.operands[3:]
    elif op.name == "scf.while":
        before, after = op.regions
        forwarded = before.terminator.operands[1:]
        yield results, forwarded
        yield after.args, forwarded
        yield before.args, op.operands
        yield before.args, after.terminator.operands
    elif op.name == "scf.if":
        for region in op.regions:
            yield results, region.terminator.operands
    elif op.name == "tt.call":
        (body,) = op.regions
        for block in body.blocks:
            if block.ops[-1].name == "tt.return":
                yield results, block.ops[-1].operands
        yield body.args, op.operands
    elif op.name == "ttg.warp_specialize":
        default, *partitions = op.regions
        yield results, default.terminator.operands
        sources = iter(op.operands)
        for region in partitions:
            yield region.args, tuple(islice(sources, len(region.args)))
    elif op.name in CONTROL and (op.regions or op.results):
        raise NotImplementedError(f"evaluator/executor/flow.py does not say how values pass through {op.name}")
    for label, values in op.successors:
        yield arguments.get(label, ()), values


def conditions(op: Op) -> Slots:
    """Return the slots that decide where an operation of control flow continues, or how often it repeats."""
    if op.name == "scf.for":
        return op.operands[:3]
    if op.name == "scf.while":
        return op.regions[0].terminator.operands[:1]
    return op.operands[:1] if op.name in ("scf.if", "cf.cond_br") else ()


def followed(function: Function) -> frozenset[int]:
    """Return the branches and calls whose work should be counted, by the index of their first block.

    None of their conditions depends on memory or on a product, and none is taken for single elements.
    """
    costly = _costly(function)
    of_elements = {id(inner) for op in function.body.ops if op.name in COMBINING for inner in op.regions[0].ops}
    return frozenset(
        op.regions[0].blocks[0].index
        for op in function.body.ops
        if op.name in ("scf.if", "tt.call")
        and id(op) not in of_elements
        and costly.isdisjoint(slot for inner in (op, *_branching(op)) for slot in conditions(inner))
    )


def reached(function: Function, names: Collection[str]) -> frozenset[int]:
    """Return the parameters through which operations of the given names access memory, as far as pointers can be
    followed: through arithmetic, branches and loops, but not through memory.

    For estimates; ``pointers.touched`` says which parameters are certain to be all.
    """
    found = sources(function, function.params)
    asked = (op.operands[0] for op in function.body.ops if op.name in names)
    return frozenset().union(*(found.get(slot, frozenset()) for slot in asked))


def arrivals(function: Function, allocation: int) -> list[tuple[int, str]]:
    """Return the operations that may arrive at, or bring bytes to, the barriers of an allocation, by its slot: the
    partition of each, 0 for the default one, and its location.
    """
    found = sources(function, [allocation])
    return [
        (partition, op.location)
        for partition, op in _with_partitions(function.body, 0)
        if op.name not in (*CONTROL, *_NO_ARRIVAL)
        and not any(function.types[slot].element == "memdesc" for slot in op.results)
        and any(slot in found for slot in op.operands)
    ]


def _with_partitions(region: Region, partition: int) -> Iterator[tuple[int, Op]]:
    for block in region.blocks:
        for op in block.ops:
            yield partition, op
            for place, inner in enumerate(op.regions):
                yield from _with_partitions(inner, place if op.name == "ttg.warp_specialize" else partition)


def sources(function: Function, slots: Iterable[int]) -> dict[int, frozenset[int]]:
    """Return from which of some ``slots`` the value of each slot is made, as far as it is known: not through memory."""
    found: dict[int, frozenset[int]] = {slot: frozenset((slot,)) for slot in slots}
    nothing: frozenset[int] = frozenset()
    grew = True

    def add(targets: Slots, sources: frozenset[int]) -> None:
        nonlocal grew
        for target in targets:
            if not sources <= found.get(target, nothing):
                found[target] = found.get(target, nothing) | sources
                grew = True

    def visit(region: Region) -> None:
        arguments = {block.label: block.args for block in region.blocks}
        for block in region.blocks:
            for op in block.ops:
                for targets, sources in links(op, arguments):
                    for target, source in zip(targets, sources, strict=True):
                        add((target,), found.get(source, nothing))
                if op.name not in CONTROL and not (effects(op.name).reads or effects(op.name).reads_chip):
                    add(op.results, nothing.union(*(found.get(slot, nothing) for slot in op.operands)))
                for inner in op.regions if op.name not in COMBINING else ():
                    visit(inner)

    while grew:
        grew = False
        visit(function.body)
    return found


def _branching(op: Op) -> Iterator[Op]:
    return (inner for inner in op.nested if inner.name == "cf.cond_br")


def _costly(function: Function) -> set[int]:
    """Return the slots that depend on the contents of memory or on a product."""
    costly: set[int] = set()
    grew = True

    def visit(region: Region) -> None:
        arguments = {block.label: block.args for block in region.blocks}
        for block in region.blocks:
            for op in block.ops:
                for targets, sources in links(op, arguments):
                    costly.update(t for t, s in zip(targets, sources, strict=True) if s in costly)
                if not op.regions or op.name in COMBINING:
                    row = effects(op.name)
                    if row.reads or row.reads_chip or row.work == "dot" or not costly.isdisjoint(op.operands):
                        costly.update(op.results)
                else:
                    for inner in op.regions:
                        visit(inner)

    while grew:
        before = len(costly)
        visit(function.body)
        grew = len(costly) > before
    return costly
