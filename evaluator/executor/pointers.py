"""Which buffers operations access: pointers are traced to the parameters that they are computed from."""

from collections.abc import Collection, Iterable, Mapping, Sequence, Set

from avo.evaluator.executor.effects import CONTROL, UPDATES, WRITES, effects
from avo.evaluator.executor.ir import Function, Op
from avo.evaluator.plan import Argument, Scalar


def origins(function: Function) -> dict[int, int]:
    """Map pointers to the parameter that they are computed from. Pointers whose parameter is unknown are left out.

    Parameters that point into one buffer count as the first of them. Where addresses become numbers, differences lead
    from any buffer to any other, so all pointers are unknown.
    """
    if any(op.name == "tt.ptr_to_int" for op in function.body.ops):
        return {}
    found = {slot: function.aliases.get(slot, slot) for slot in function.params}
    for op in function.body.ops:
        passes = effects(op.name).rearranges or op.name in ("tt.addptr", "tt.make_tensor_descriptor")
        if passes and op.operands and op.results and op.operands[0] in found:  # nobody has verified the text yet
            found[op.results[0]] = found[op.operands[0]]
        if op.name == "ttg.warp_specialize":
            inside = (slot for partition in op.regions[1:] for slot in partition.args)
            pairs = zip(inside, op.operands, strict=True)
            found.update((inner, found[outer]) for inner, outer in pairs if outer in found)
    return found


def shows_addresses(function: Function) -> bool:
    """Return whether a kernel may turn addresses into numbers, or numbers into addresses. What it computes then depends
    on where buffers are; without that, as long as it leaves none, only on what they hold.
    """

    def kinds(slots: Iterable[int]) -> list[bool]:
        return [function.types[slot].element == "ptr" for slot in slots]

    def shows(op: Op) -> bool:
        used, made = kinds(op.operands[effects(op.name).accesses :]), kinds(op.results)
        followed = all(made) or all(function.types[slot].element == "descriptor" for slot in op.results)
        followed = followed and op.name != "tt.elementwise_inline_asm"
        return (any(used) and not (made and followed)) or (any(made) and not any(used))

    return any(shows(op) for op in function.body.ops if op.name not in CONTROL)


def touched(function: Function, names: Collection[str]) -> frozenset[int | None]:
    """Return the parameters through which operations of the given names access memory, None for one that is unclear."""
    found = origins(function)
    return frozenset(found.get(op.operands[0]) for op in function.body.ops if op.name in names)


def behind(function: Function, params: Set[int | None], args: Sequence[Argument]) -> frozenset[int]:
    """Return the buffers behind parameters; all buffers of the launch if a parameter is unknown (None)."""
    return frozenset(
        argument.buffer
        for slot, argument in zip(function.params, args, strict=False)
        if not isinstance(argument, Scalar) and (slot in params or None in params)
    )


def item_sizes(function: Function) -> dict[int | None, int]:
    """Return the bytes of the smallest item accessed through each parameter, None for one that is unclear."""
    found = origins(function)
    sizes: dict[int | None, int] = {}
    for op in function.body.ops:
        target = function.types[op.operands[0]].target if effects(op.name).accesses else None
        if target is not None:
            origin = found.get(op.operands[0])
            sizes[origin] = min(sizes.get(origin, target.item_bytes), target.item_bytes)
    return sizes


def granules(function: Function, args: Sequence[Argument], buffers: Set[int]) -> dict[int, int]:
    """Return the bytes of the smallest access to each of some buffers that a launch with arguments may access."""
    sizes = item_sizes(function)
    params = dict(zip(function.params, args, strict=False))

    def may_reach(slot: int | None, buffer: int) -> bool:
        return slot is None or (not isinstance(argument := params[slot], Scalar) and argument.buffer == buffer)

    return {buffer: min(size for slot, size in sizes.items() if may_reach(slot, buffer)) for buffer in buffers}


def overwritten(function: Function, args: Sequence[Argument], item_bytes: Sequence[int]) -> frozenset[int]:
    """Return the buffers, with elements of ``item_bytes``, that a launch writes to by plain stores of whole elements
    alone.
    """
    written, updated = (behind(function, touched(function, names), args) for names in (WRITES, UPDATES))
    smallest = granules(function, args, written - updated)
    return frozenset(buffer for buffer, size in smallest.items() if size >= item_bytes[buffer])


def may_overlap(reads: Iterable[Op], writes: Iterable[Op], params: Mapping[int, int]) -> bool:
    """Whether reads may see what writes leave; ``params`` are the ``origins`` of the function that they are in."""
    read = {params.get(op.operands[0]) for op in reads}
    written = {params.get(op.operands[0]) for op in writes}
    return bool(written) and (None in read | written or bool(read & written))
