"""Copies between global and shared memory that a program does not wait for: cp.async and TMA."""

from dataclasses import replace

import torch

from avo.evaluator.executor.chip.accesses import Access
from avo.evaluator.executor.chip.chip import Chip
from avo.evaluator.executor.chip.clocks import Queue
from avo.evaluator.executor.chip.cluster import bases, copies, held_in, parts
from avo.evaluator.executor.errors import UnsupportedOperation
from avo.evaluator.executor.frame import Frame, Step
from avo.evaluator.executor.ir import IM2COL, Op, Type
from avo.evaluator.executor.operations.atomics import reduce_block, reduction
from avo.evaluator.executor.operations.barriers import barrier, completes
from avo.evaluator.executor.operations.memory import (
    block_addresses,
    described_block,
    descriptor,
    descriptor_block,
    read_described,
    site,
)
from avo.evaluator.executor.operations.on_chip import (
    block_of,
    give_tokens,
    is_slice,
    load,
    on_chip,
    peers_used,
    store,
    view_of,
    where,
)
from avo.evaluator.executor.operations.registry import Types, check_variant, integer, step
from avo.evaluator.executor.values import AddressSum, DescriptorValue, full

Tensor = torch.Tensor
Place = tuple[DescriptorValue, AddressSum, Tensor | None]
"""A descriptor, the addresses of a block, and which of its elements lie in the tensor (None: all)."""


@step("ttg.async_copy_global_to_local")
def _copy(op: Op, types: Types) -> Step:
    check_variant(op, words=["mask", "other"], attributes=["contiguity"])
    address, target, *optional = op.operands
    block, pointer = block_of(op, types, target), types[address]
    mask = optional.pop(0) if "mask" in op.words else None
    other = optional.pop(0) if "other" in op.words else None
    if pointer.target is None or block != Type(pointer.target.element, pointer.shape):
        raise UnsupportedOperation(f"{op.name} of {pointer} into {block}", op.location)

    def run(frame: Frame) -> None:
        taken = None if mask is None else frame.tensor(mask)
        given = None if other is None else frame.tensor(other)
        value = frame.run.memory.read(frame.address(address), taken, given, block, site(frame, op))
        give_tokens(op, types, frame)
        if (chip := frame.run.chip) is None:
            return
        rows, clocks = chip.rows(frame.positions), chip.clocks
        accesses = [
            # Part of the group that is open.
            Access(
                "writes",
                agent,
                cta,
                clocks.actor(agent, Queue.COPY),
                clocks.issued[rows, agent, Queue.COPY] + 1,
                ordinary=True,  # PTX ISA: cp.async is of the generic proxy
            )
            for cta, agent in enumerate(chip.agents)
        ]
        store(frame, chip, op, target, value, accesses)

    return run


@step("ttg.async_commit_group")
def _commit_group(op: Op, types: Types) -> Step:
    check_variant(op, words=["tokens"])

    def run(frame: Frame, chip: Chip) -> None:
        for agent in chip.agents:
            chip.clocks.issue(chip.rows(frame.positions), agent, Queue.COPY)
        give_tokens(op, types, frame)

    return on_chip(run)


@step("ttg.async_wait", "ttng.async_tma_store_wait")
def _wait(op: Op, types: Types) -> Step:
    copies = op.name == "ttg.async_wait"
    check_variant(op, attributes=["num"] if copies else ["pendings", "read_only"])
    queue, pending = (Queue.COPY, integer(op, "num")) if copies else (Queue.STORE, integer(op, "pendings"))
    arrives = not copies and not pending and "read_only" not in op.attributes

    def run(frame: Frame, chip: Chip) -> None:
        for agent in chip.agents:
            chip.clocks.finish(chip.rows(frame.positions), agent, queue, pending)
        if arrives:
            frame.run.memory.observe_arrival(frame.positions)
        give_tokens(op, types, frame)

    return on_chip(run)


_BY_ROW = ("ttng.async_tma_gather", "ttng.async_tma_scatter")
"""Operations that move rows of a tensor, each by its own index."""


def _place(frame: Frame, op: Op, block: Type, types: Types) -> Place:
    """Return where in global memory an operation copies from or to."""
    if types[op.operands[0]].layout == IM2COL:
        return _pixels_of(frame, op, block)
    if op.name not in _BY_ROW:
        return descriptor_block(frame, op, block)
    described = descriptor(frame, op, len(described_block(op, types).shape))
    x = full(frame.tensor(op.operands[1]), types[op.operands[1]]).to(torch.int64).unsqueeze(2)
    y = frame.tensor(op.operands[2]).to(torch.int64).view(-1, 1, 1) + torch.arange(block.shape[-1])
    return (described, *block_addresses(described, [x, y], block.item_bytes))


def _pixels_of(frame: Frame, op: Op, block: Type) -> Place:
    """Return where the pixels of a block [pixels, channels] lie that begins at the coordinates of an operation.

    They follow each other inside the box of the descriptor, axis by axis, then image by image; the offsets of the
    operation are added to the place of each.
    """
    described = frame.value(op.operands[0])
    assert isinstance(described, DescriptorValue)
    assert described.pixels is not None
    box, axes = described.pixels, len(described.pixels.lower)
    given = [frame.tensor(slot).to(torch.int64).view(-1, 1, 1) for slot in op.operands[1:-3]]
    (image, *start, channel), offsets = given[: axes + 2], given[axes + 2 :]
    counts, left = [], image
    for axis, (place, apart) in enumerate(zip(start, box.steps, strict=True)):
        reach = described.shape[1 + axis].view(-1, 1, 1) - 1 + box.upper[axis] - box.lower[axis]
        counts.append(torch.div(reach, apart, rounding_mode="floor") + 1)
        left = left * counts[-1] + torch.div(place - box.lower[axis], apart, rounding_mode="floor")
    left = left + torch.arange(block.shape[0]).view(1, -1, 1)
    places = []
    for axis in reversed(range(axes)):
        turn = left % counts[axis]
        first = box.lower[axis] + (start[axis] - box.lower[axis]) % box.steps[axis]
        places.append(first + turn * box.steps[axis] + offsets[axis])
        left = torch.div(left, counts[axis], rounding_mode="floor")
    coordinates = [left, *reversed(places), channel + torch.arange(block.shape[1])]
    return (described, *block_addresses(described, coordinates, block.item_bytes))


def _moved(op: Op, types: Types, slot: int) -> Type:
    """Return the block that a TMA copy moves between a buffer and global memory."""
    block, held = described_block(op, types), block_of(op, types, slot)
    if op.name in _BY_ROW:
        block = Type(block.element, (types[op.operands[1]].elements, block.shape[-1]))
    if (held.element, held.elements) != (block.element, block.elements):
        raise UnsupportedOperation(f"{op.name} of {block} and {held}", op.location)
    return block


@step("ttng.async_tma_copy_global_to_local", "ttng.async_tma_gather")
def _bring(op: Op, types: Types) -> Step:
    images = types[op.operands[0]].layout == IM2COL
    check_variant(op, attributes=["offsets"] if images else [])
    target, signal, predicate = op.operands[-3:]
    block = _moved(op, types, target)
    divided = bases(types[target].layout)
    size = block.elements * block.item_bytes // parts(divided)
    copied = copies(divided) if "multicast" in op.attributes else 0

    def run(frame: Frame) -> None:
        active, chip = where(frame, predicate), frame.run.chip
        if data := chip is None or chip.holds_data:
            descriptor, address, mask = _place(frame, op, block, types)
            if active is not None:
                shown = active.view(-1, *[1] * len(block.shape))
                mask = shown if mask is None else mask & shown
            value = read_described(frame, op, descriptor, address, mask, block)
        if chip is None:
            return
        if data:
            value = full(value, block).reshape(value.shape[0], *view_of(frame, target).shape)
        for cta, number in enumerate(barrier(frame, op, signal, active)):
            agent = chip.agents[cta & ~copied]  # which sends to all CTAs that hold a copy
            actors, time = completes(frame, chip, op, number, active, agent, size)
            for actor, here in actors if data else ():
                store(frame, chip, op, target, value, [Access("writes", agent, cta, actor, time)], here)
        chip.give_way()

    return run


def _sends(frame: Frame, chip: Chip, copied: int) -> list[Access]:
    """Count one more TMA copy to global memory, by each CTA, or by the first of those that hold copies of what is sent
    (``copied`` as in ``commit``). Return what they are to shared memory.
    """
    accesses, rows, clocks = [], chip.rows(frame.positions), chip.clocks
    for cta, agent in enumerate(chip.agents):
        if not cta & copied:
            time = clocks.issue(rows, agent, Queue.STORE)
            accesses.append(Access("reads", agent, cta, clocks.actor(agent, Queue.STORE), time, fences=True))
    return accesses


@step("ttng.async_tma_copy_local_to_global", "ttng.async_tma_scatter")
def _send(op: Op, types: Types) -> Step:
    check_variant(op)
    source = op.operands[-1]
    block, copied = _moved(op, types, source), copies(bases(types[source].layout))

    def run(frame: Frame, chip: Chip) -> None:
        _, address, mask = _place(frame, op, block, types)
        value = load(frame, chip, op, source, _sends(frame, chip, copied))
        sent = replace(site(frame, op), sent=True)
        frame.run.memory.write(address, mask, value.reshape(-1, *block.shape), block, sent)

    return on_chip(run)


@step("ttng.async_shared_store")
def _store_to_cluster(op: Op, types: Types) -> Step:
    """Return the step of stores that signal a barrier once they are done (PTX ISA, st.async).

    They are no copies: TMA and the tensor core see them only after a fence.
    """
    check_variant(op)
    source, target, signal = op.operands
    block = block_of(op, types, target)
    peers, divided = peers_used(op, types, target), bases(types[target].layout)
    if types[source] != block:
        raise UnsupportedOperation(f"{op.name} of {types[source]} into {block}", op.location)
    if divided and is_slice(types[target]):
        raise UnsupportedOperation(f"{op.name} to a part of a buffer of several CTAs", op.location)

    def run(frame: Frame, chip: Chip) -> None:
        numbers = barrier(frame, op, signal, None)
        for each in chip.plain("writes", peers):
            amount = held_in(block.shape, divided, each.cta, each.box) * block.item_bytes
            if not amount:
                continue
            actors, time = completes(frame, chip, op, numbers[each.cta], None, each.agent, amount)
            for actor, here in actors if chip.holds_data else ():
                access = replace(each, actor=actor, time=time, ordinary=True)
                store(frame, chip, op, target, frame.tensor(source), [access], here)
        chip.give_way()

    return on_chip(run)


@step("ttng.async_tma_reduce")
def _reduce(op: Op, types: Types) -> Step:
    block, update = reduction(op, types)
    source = op.operands[-1]
    if block_of(op, types, source).elements != block.elements:
        raise UnsupportedOperation(f"{op.name} of {types[source].block} for {block}", op.location)
    copied = copies(bases(types[source].layout))

    def run(frame: Frame, chip: Chip) -> None:
        value = load(frame, chip, op, source, _sends(frame, chip, copied))
        reduce_block(frame, op, block, value.reshape(frame.programs, *block.shape), update, sent=True)

    return on_chip(run)
