"""Accesses to shared memory by index: gathered, scattered, and scattered atomically."""

import torch

from avo.evaluator.executor.chip.chip import Chip
from avo.evaluator.executor.errors import UnsupportedOperation
from avo.evaluator.executor.frame import Frame, Step
from avo.evaluator.executor.ir import Op, Type
from avo.evaluator.executor.operations.atomics import UPDATES, in_turns
from avo.evaluator.executor.operations.memory import site
from avo.evaluator.executor.operations.on_chip import block_of, load, on_chip, peers_used, values, view_of
from avo.evaluator.executor.operations.registry import Types, check_variant, integer, step
from avo.evaluator.executor.values import full

Tensor = torch.Tensor


def _indices(frame: Frame, op: Op, slot: int, kind: Type, length: int, active: Tensor | None = None) -> Tensor:
    """Return indices [P, ...] into an axis; report those of ``active`` elements that lie outside, and take the ends."""
    here = full(frame.tensor(slot), kind, frame.programs).to(torch.int64)
    wrong = (here < 0) | (here >= length)
    wrong = wrong if active is None else wrong & active
    frame.run.memory.refute(
        "index out of range", wrong, lambda place: f"{int(here[place])} on an axis of {length}", site(frame, op)
    )
    return here.clamp(0, length - 1)


@step("ttg.local_gather", "ttg.local_scatter")
def _gather(op: Op, types: Types) -> Step:
    """Return the step that reads, or writes, the element of each row of an axis that an index names."""
    check_variant(op, words=["token"], attributes=["axis"])
    buffer, index, *source = values(op, types)
    axis, block = integer(op, "axis") + 1, block_of(op, types, buffer)
    length = block.shape[axis - 1]
    peers = peers_used(op, types, buffer, axis - 1)

    def run(frame: Frame, chip: Chip) -> None:
        here = _indices(frame, op, index, types[index], length)
        if op.results:
            held = load(frame, chip, op, buffer, chip.plain("reads", peers))
            frame.slots[op.results[0]] = torch.gather(held, axis, here)
            return
        view = view_of(frame, buffer)
        chip.access(site(frame, op), view, chip.plain("writes", peers))
        held = view.buffer.read(view, chip.rows(frame.positions))
        held.scatter_(axis, here, full(frame.tensor(source[0]), types[source[0]], frame.programs))
        view.buffer.write(view, held, chip.rows(frame.positions))

    return on_chip(run)


@step("ttg.local_atomic_scatter_rmw")
def _update(op: Op, types: Types) -> Step:
    """Return the step that updates the elements that indices name, in any order, and gives what each held before."""
    kind_word = op.words[0] if op.words else ""
    check_variant(op, words=[kind_word], attributes=["axis"])
    buffer, index, value, *masks = op.operands
    axis, block = integer(op, "axis") + 1, block_of(op, types, buffer)
    update, elements = UPDATES.get(kind_word, (None, ()))
    if update is None or block.element not in elements or types[value].element != block.element:
        raise UnsupportedOperation(f"{op.name} {kind_word[:60]} on {block}", op.location)
    peers = peers_used(op, types, buffer, axis - 1)
    if kind_word == "fadd":
        update = torch.add  # in shared memory subnormal numbers are kept: PTX ISA 8.5, atom

    def run(frame: Frame, chip: Chip) -> None:
        programs, kind = frame.programs, types[value]
        active = full(frame.tensor(masks[0]), types[masks[0]], programs) if masks else None
        here = _indices(frame, op, index, types[index], block.shape[axis - 1], active)
        both = [*chip.plain("reads", peers), *chip.plain("writes", peers)]
        held = load(frame, chip, op, buffer, both)
        cells = torch.gather(torch.arange(held.numel()).view(held.shape), axis, here)
        chosen = torch.arange(here.numel()) if active is None else active.flatten().nonzero().flatten()
        added, flat = full(frame.tensor(value), kind, programs).flatten()[chosen], held.flatten()
        before = torch.zeros(here.numel(), dtype=flat.dtype)
        before[chosen] = in_turns(flat, cells.flatten()[chosen], added, update)
        view_of(frame, buffer).buffer.write(view_of(frame, buffer), flat.view(held.shape), chip.rows(frame.positions))
        frame.slots[op.results[0]] = before.view(here.shape)

    return on_chip(run)
