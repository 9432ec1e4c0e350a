"""On-chip buffers: allocation, views, loads, stores, and what steps of other operations on the chip have in common."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from avo.evaluator.executor.chip.accesses import Access, Peers
from avo.evaluator.executor.chip.buffers import INSIDE, BufferView, stepped
from avo.evaluator.executor.chip.chip import Chip
from avo.evaluator.executor.chip.cluster import alike, bases, boxes, copies, lies, of_registers
from avo.evaluator.executor.chip.layouts import UnknownLayout, reinterpreted
from avo.evaluator.executor.chip.places import place_of_scratch
from avo.evaluator.executor.errors import IRError, UnsupportedOperation
from avo.evaluator.executor.frame import Frame, Step
from avo.evaluator.executor.ir import Op, Type
from avo.evaluator.executor.operations.memory import site
from avo.evaluator.executor.operations.reductions import WHOLE
from avo.evaluator.executor.operations.registry import Types, check_variant, integer, step

Tensor = torch.Tensor


def on_chip(body: Callable[[Frame, Chip], None]) -> Step:
    """Return a step of what a program does on its chip. A slice of a kernel is executed without chips."""

    def run(frame: Frame) -> None:
        if frame.run.chip is not None:
            body(frame, frame.run.chip)

    return run


_OF_A_SLICE = re.compile(r", (?:\d+x)*\d+$")
"""The end of the layout of a view of a part: the shape of the whole."""


def values(op: Op, types: Types) -> tuple[int, ...]:
    """Return the operands of an operation but its tokens, which only order what is in order already."""
    return tuple(slot for slot in op.operands if types[slot].element != "token")


def view_of(frame: Frame, slot: int) -> BufferView:
    """Return the view in a slot."""
    view = frame.slots[slot]
    if not isinstance(view, BufferView):
        raise IRError("an operand is no on-chip buffer")
    return view


def block_of(op: Op, types: Types, slot: int) -> Type:
    """Return the type of what a buffer holds; raise ``UnsupportedOperation`` if a slot holds no buffer."""
    kind = types[slot]
    if kind.element != "memdesc":
        raise UnsupportedOperation(f"{op.name} on {kind}", op.location)
    return kind.block


def where(frame: Frame, slot: int | None) -> Tensor | None:
    """Return the predicate in a slot [P], None where it is true for all programs."""
    if slot is None:
        return None
    active = frame.tensor(slot)
    return None if bool(active.all()) else active.expand(frame.programs)


def give_tokens(op: Op, types: Types, frame: Frame) -> None:
    """Set the results that are tokens."""
    for slot in op.results:
        if types[slot].element == "token":
            frame.slots[slot] = torch.zeros(1, dtype=torch.bool)


def load(
    frame: Frame,
    chip: Chip,
    op: Op,
    slot: int,
    accesses: Sequence[Access] | None = None,
    active: Tensor | None = None,
    *,
    copy: bool = True,
) -> Tensor:
    """Return what a buffer holds [P, ...], after checking the accesses, by default plain ones, of the programs that are
    ``active`` [P]. Without ``copy`` it is only good until the buffer is written.
    """
    view = view_of(frame, slot)
    chip.access(site(frame, op), view, accesses or chip.plain("reads"), active)
    return view.buffer.read(view, chip.rows(frame.positions), copy=copy)


def store(
    frame: Frame,
    chip: Chip,
    op: Op,
    slot: int,
    value: Tensor,
    accesses: Sequence[Access] | None = None,
    active: Tensor | None = None,
) -> None:
    """Store a block [P or 1, ...] into a buffer, after checking the accesses, by default plain ones."""
    view = view_of(frame, slot)
    chip.access(site(frame, op), view, accesses or chip.plain("writes"), active)
    view.buffer.write(view, value, chip.rows(frame.positions), active)


def check_own_parts(op: Op, types: Types, slot: int) -> None:
    """Raise ``UnsupportedOperation`` where a CTA reads from a buffer, or writes to it, what another CTA holds."""
    if peers_used(op, types, slot) is not None:
        raise UnsupportedOperation(f"{op.name} of what other CTAs hold", op.location)


def is_slice(kind: Type) -> bool:
    """Whether a view is one of a part of a buffer."""
    return _OF_A_SLICE.search(kind.layout) is not None


def peers_used(op: Op, types: Types, slot: int, axis: int | None = None) -> Peers | None:
    """Return which CTAs' memory each CTA uses for its part of a block, None where it keeps to what it holds itself.

    Elements may lie anywhere along an ``axis``, if given. Raises ``UnsupportedOperation`` where that is not followed.
    """
    divided, shape = bases(types[slot].layout), block_of(op, types, slot).shape
    if not divided:
        return None
    asked = of_registers(op.attributes.get("registers", ""), shape)
    held = lies(divided, shape)
    along = axis is not None and any(basis[axis - len(shape)] for basis in divided)
    sliced = is_slice(types[slot]) and not types[slot].in_tensor_memory  # there CTAs divide rows, slices columns
    if (asked is None or asked == held) and not (along or sliced):
        return None
    found = boxes(held if asked is None else asked, shape)
    if found is None or types[slot].in_tensor_memory:
        raise UnsupportedOperation(f"{op.name} of what other CTAs hold", op.location)
    if axis is not None:
        found = tuple((*box[:axis], (0, shape[axis]), *box[axis + 1 :]) for box in found)
    of_each = ~copies(divided)
    return tuple((own, cta, box) for own, box in enumerate(found) for cta in alike(own, of_each, len(found)))


@step("ttg.local_alloc", "ttng.tmem_alloc")
def _allocate(op: Op, types: Types) -> Step:
    check_variant(op, attributes=["called", "alignment"])
    result, kind = op.results[0], types[op.results[0]]
    block = block_of(op, types, result)
    name = f"{op.attributes.get('called', '').lstrip('%') or 'a buffer'} of {op.location}"
    check_own_parts(op, types, result)
    if len(op.operands) > 1 or any(types[slot].of("i1") != block.of("i1") for slot in op.operands):
        raise UnsupportedOperation(f"{op.name} of {types[op.operands[0]]}", op.location)

    def run(frame: Frame, chip: Chip) -> None:
        frame.slots[result] = chip.allocate(frame.positions, result, name, kind)
        for source in op.operands:
            store(frame, chip, op, result, frame.tensor(source))
        give_tokens(op, types, frame)

    return on_chip(run)


def using_scratch(op: Op, unplaced: Step) -> Step:
    """Return the step of an operation, which checks first that it may use its scratch memory, if it has any."""
    if (place := place_of_scratch(op)) is None:
        return unplaced

    def run(frame: Frame) -> None:
        if (chip := frame.run.chip) is not None:
            chip.exchange(site(frame, op), op.name, place)
        unplaced(frame)

    return run


@step("ttg.local_dealloc")
def _deallocate(op: Op, types: Types) -> Step:
    check_variant(op)
    return lambda frame: None


@step("ttg.memdesc_index")
def _index(op: Op, types: Types) -> Step:
    check_variant(op)
    source, index = op.operands
    block, result = block_of(op, types, source), block_of(op, types, op.results[0])
    if block.shape[1:] != result.shape and (len(block.shape) > 1 or result.shape != (1,)):
        raise UnsupportedOperation(f"{op.name} of {block} to {result}", op.location)

    def run(frame: Frame, chip: Chip) -> None:
        view = view_of(frame, source)
        number = frame.tensor(index).to(torch.int64)
        buffers, *each = view.shape
        inside = number.clamp(0, buffers - 1)
        if not torch.equal(number, inside):  # which matters to those that use it: an index may be computed in vain
            stray = torch.where(number == inside, INSIDE if view.stray is None else view.stray, number)
            view = replace(view, stray=stray, among=buffers)
        if view.steps is not None:
            step = view.steps[0]
        else:
            step = int(view.places[(1, *[0] * len(each))]) if buffers > 1 else 0
            starts = step * torch.arange(buffers).view(-1, *[1] * len(each))
            if not torch.equal(view.places, view.places[:1] + starts):
                raise UnsupportedOperation(f"{op.name} of buffers that lie unlike each other", op.location)
        one = view.places[0] if each else view.places[:1]
        frame.slots[op.results[0]] = view.lying(view.offset + inside * step, one)

    return on_chip(run)


def _numbers(texts: Sequence[str]) -> tuple[int, ...]:
    return tuple(int(text) for text in texts if text.isdecimal())


@step("ttg.memdesc_subslice", "ttng.tmem_subslice")
def _subslice(op: Op, types: Types) -> Step:
    check_variant(op, words=op.words, attributes=["N", "offset", "dim"])
    (source,) = op.operands
    block, result = block_of(op, types, source), block_of(op, types, op.results[0])
    if op.name == "ttg.memdesc_subslice":
        starts = _numbers(op.words)
    else:
        axis = integer(op, "dim") if "dim" in op.attributes else 1
        start = integer(op, "N" if "N" in op.attributes else "offset")
        starts = tuple(start if i == axis else 0 for i in range(len(block.shape)))
    fits = len(starts) == len(block.shape) == len(result.shape) and all(
        start + part <= whole for start, part, whole in zip(starts, result.shape, block.shape, strict=True)
    )
    if not fits:
        raise UnsupportedOperation(f"{op.name} of {block} to {result}", op.location)

    def run(frame: Frame, chip: Chip) -> None:
        view = view_of(frame, source)
        part = tuple(slice(start, start + extent) for start, extent in zip(starts, result.shape, strict=True))
        first = int(view.places[starts])
        places = view.places[part]
        places = places - first if view.steps is None else stepped(places.shape, places.stride())
        frame.slots[op.results[0]] = view.lying(view.offset + first, places)

    return on_chip(run)


@step("ttg.memdesc_trans")
def _transpose(op: Op, types: Types) -> Step:
    check_variant(op, attributes=["order"])
    (source,) = op.operands
    block = block_of(op, types, source)
    order = _numbers(re.findall(r"\d+", op.attributes.get("order", "").partition(":")[2]))
    if sorted(order) != list(range(len(block.shape))):
        raise UnsupportedOperation(f"{op.name} without a readable order", op.location)

    def run(frame: Frame, chip: Chip) -> None:
        view = view_of(frame, source)
        frame.slots[op.results[0]] = view.lying(view.offset, view.places.permute(order))

    return on_chip(run)


@step("ttg.memdesc_reshape")
def _reshape(op: Op, types: Types) -> Step:
    check_variant(op)
    (source,) = op.operands
    result = block_of(op, types, op.results[0])
    if block_of(op, types, source).elements != result.elements:
        raise UnsupportedOperation(f"{op.name} of {types[source].block} to {result}", op.location)

    def run(frame: Frame, chip: Chip) -> None:
        view = view_of(frame, source)
        frame.slots[op.results[0]] = view.lying(view.offset, view.places.reshape(result.shape))

    return on_chip(run)


@step("ttg.memdesc_reinterpret")
def _reinterpret(op: Op, types: Types) -> Step:
    check_variant(op)
    (source,) = op.operands
    before, after = types[source], types[op.results[0]]
    block, result = block_of(op, types, source), block_of(op, types, op.results[0])
    same = (block.shape, block.item_bytes) == (result.shape, result.item_bytes) and before.layout == after.layout

    def run(frame: Frame, chip: Chip) -> None:
        view = view_of(frame, source)
        if same:
            frame.slots[op.results[0]] = replace(view, element=result.element)
            return
        bytes_ = view.offset * block.item_bytes
        try:
            if view.steps is None or bool((bytes_ % result.item_bytes).any()):
                raise UnknownLayout("it is a view that was reinterpreted before")
            places = reinterpreted(before, view.steps, after)
        except UnknownLayout as unknown:
            raise UnsupportedOperation(f"{op.name} of {block} as {result}: {unknown}", op.location) from None
        offset = torch.div(bytes_, result.item_bytes, rounding_mode="floor")
        frame.slots[op.results[0]] = replace(view, offset=offset, places=places, element=result.element)

    return on_chip(run)


_EXTREMES = {
    ("#ttng.redOp<max>", False): "arith.maxnumf",
    ("#ttng.redOp<max>", True): "arith.maximumf",
    ("#ttng.redOp<min>", False): "arith.minnumf",
    ("#ttng.redOp<min>", True): "arith.minimumf",
}
"""What combines two elements, by a load's ``redOp`` and whether it propagates NaN."""


@step("ttg.local_load", "ttng.tmem_load")
def _load(op: Op, types: Types) -> Step:
    asked = op.attributes.get("redOp")
    check_variant(op, words=["token"], attributes=() if asked is None else ("redOp", "abs", "NaN"))
    (source,) = values(op, types)
    result, peers = types[op.results[0]], peers_used(op, types, source)
    if block_of(op, types, source) != result:
        raise UnsupportedOperation(f"{op.name} of {types[source].block} as {result}", op.location)
    extreme = None
    if asked is not None:
        name = _EXTREMES.get((asked, op.attributes.get("NaN") == "true"))
        if name is None or len(result.shape) != 2 or result.element != "f32":
            raise UnsupportedOperation(f"{op.name} of {result} with redOp = {asked[:60]}", op.location)
        extreme = WHOLE[name]
    of_sizes = op.attributes.get("abs") == "true"

    def run(frame: Frame, chip: Chip) -> None:
        loaded = load(frame, chip, op, source, chip.plain("reads", peers))
        frame.slots[op.results[0]] = loaded
        if extreme is not None:
            frame.slots[op.results[-1]] = extreme(loaded.abs() if of_sizes else loaded, -1)
        give_tokens(op, types, frame)

    return on_chip(run)


@step("ttg.local_store", "ttng.tmem_store")
def _store(op: Op, types: Types) -> Step:
    check_variant(op)
    source, target, *predicate = values(op, types)
    peers = peers_used(op, types, target)
    if block_of(op, types, target) != types[source] or len(predicate) > 1:
        raise UnsupportedOperation(f"{op.name} of {types[source]} into {types[target].block}", op.location)

    def run(frame: Frame, chip: Chip) -> None:
        active = where(frame, predicate[0] if predicate else None)
        store(frame, chip, op, target, frame.tensor(source), chip.plain("writes", peers), active)
        give_tokens(op, types, frame)

    return on_chip(run)
