"""Cluster launch control: a program that is done takes over one that has not started (PTX ISA, clusterlaunchcontrol).

A response is 16 bytes in shared memory that only these operations read: here 1 + the linear id of the program that was
taken over, or 0 where all had started, and 0. A slice of a kernel has no response: each of its programs takes over none
and does its own work.
"""

import torch

from avo.evaluator.executor.chip.accesses import Access
from avo.evaluator.executor.chip.chip import Chip
from avo.evaluator.executor.errors import UnsupportedOperation
from avo.evaluator.executor.frame import Frame, Step
from avo.evaluator.executor.ir import Op, Type
from avo.evaluator.executor.operations.barriers import barrier, completes
from avo.evaluator.executor.operations.on_chip import block_of, load, on_chip, store
from avo.evaluator.executor.operations.registry import Types, check_variant, step

Tensor = torch.Tensor

_RESPONSE = Type("i64", (2,))
_BYTES = 16
_DIMENSIONS = ("x", "y", "z")


def _check_response(op: Op, types: Types, slot: int) -> None:
    if block_of(op, types, slot) != _RESPONSE:
        raise UnsupportedOperation(f"{op.name} on {types[slot].block}", op.location)


@step("ttng.clc_try_cancel")
def _try_cancel(op: Op, types: Types) -> Step:
    check_variant(op)
    target, signal = op.operands
    _check_response(op, types, target)

    def run(frame: Frame, chip: Chip) -> None:
        response = torch.zeros(frame.programs, 2, dtype=torch.int64)
        taken = frame.run.starts.take(frame.programs)
        response[: taken.numel(), 0] = taken + 1
        for cta, number in enumerate(barrier(frame, op, signal, None)):
            actors, time = completes(frame, chip, op, number, None, chip.agents[0], _BYTES)
            for actor, here in actors:
                access = Access("writes", chip.agents[0], cta, actor, time, in_order=True)
                store(frame, chip, op, target, response, [access], here)
        chip.give_way()

    return on_chip(run)


@step("ttng.clc_load_result")
def _load_response(op: Op, types: Types) -> Step:
    check_variant(op)
    (source,) = op.operands
    _check_response(op, types, source)

    def run(frame: Frame) -> None:
        chip = frame.run.chip
        if chip is None or frame.slots[source] is None:
            frame.slots[op.results[0]] = torch.zeros(frame.programs, dtype=torch.int64)
        else:
            frame.slots[op.results[0]] = load(frame, chip, op, source)[:, 0]

    return run


@step("ttng.clc_is_canceled")
def _is_canceled(op: Op, types: Types) -> Step:
    check_variant(op)
    (response,) = op.operands

    def run(frame: Frame) -> None:
        frame.slots[op.results[0]] = frame.tensor(response) > 0

    return run


@step("ttng.clc_get_program_id")
def _program_id(op: Op, types: Types) -> Step:
    check_variant(op, _DIMENSIONS)
    (response,), (dimension,) = op.operands, op.words
    axis = _DIMENSIONS.index(dimension)

    def run(frame: Frame) -> None:
        linear, grid = frame.tensor(response) - 1, frame.run.grid
        for extent in grid[:axis]:
            linear = torch.div(linear, extent, rounding_mode="floor")
        frame.slots[op.results[0]] = (linear % grid[axis]).to(torch.int32)

    return run
