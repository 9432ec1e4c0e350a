"""Tensor descriptors as the compiler makes them in a kernel: written to scratch memory, where TMA copies read them."""

import torch

from avo.evaluator.executor.chip.chip import Chip
from avo.evaluator.executor.errors import UnsupportedOperation
from avo.evaluator.executor.frame import Frame, Step
from avo.evaluator.executor.ir import Op
from avo.evaluator.executor.operations.memory import site
from avo.evaluator.executor.operations.on_chip import on_chip
from avo.evaluator.executor.operations.registry import Types, check_variant, integer, step
from avo.evaluator.executor.values import DescriptorValue

Tensor = torch.Tensor

_FIRST_ADDRESS, _APART = 2**60, 2**32
"""Where scratch memory lies: far from all tensors, and each allocation far from the others."""
_PACKED_TYPES = 13
"""The first number of an element type of less than a byte (CUtensorMapDataType of the CUDA driver)."""


@step("ttg.global_scratch_alloc")
def _allocate(op: Op, types: Types) -> Step:
    check_variant(op, attributes=["alignment", "nbytes", "third_party_allocation"])
    address = torch.tensor([_FIRST_ADDRESS + op.results[0] * _APART])

    def run(frame: Frame, chip: Chip) -> None:
        frame.slots[op.results[0]] = address

    return on_chip(run)


def _wide(frame: Frame, slot: int) -> Tensor:
    return frame.tensor(slot).to(torch.int64)


@step("ttng.tensormap_create")
def _make(op: Op, types: Types) -> Step:
    """Write a descriptor. Extents and strides begin with those of the last axis, whose stride is left out."""
    check_variant(op, attributes=["elem_type", "fill_mode", "interleave_layout", "swizzle_mode"])
    where, base, *fields = op.operands
    rank, rest = divmod(len(fields) + 1, 4)
    target = types[base].target
    if rest or not rank or target is None or integer(op, "interleave_layout"):
        raise UnsupportedOperation(f"{op.name} of {len(op.operands)} operands", op.location)
    if integer(op, "elem_type") >= _PACKED_TYPES:
        raise UnsupportedOperation(f"{op.name} of items of less than a byte", op.location)
    boxes, extents = fields[:rank], fields[rank : 2 * rank]
    strides, steps = fields[2 * rank : 3 * rank - 1], fields[3 * rank - 1 :]
    nan, item = integer(op, "fill_mode"), target.item_bytes

    def run(frame: Frame, chip: Chip) -> None:
        if any(bool((frame.tensor(slot) != 1).any()) for slot in steps):
            raise UnsupportedOperation(f"{op.name} with steps between elements", op.location)
        shape = [_wide(frame, slot) for slot in reversed(extents)]
        apart = [torch.div(_wide(frame, slot), item, rounding_mode="floor") for slot in reversed(strides)]
        made = DescriptorValue(
            frame.tensor(base),
            tuple(shape),
            (*apart, torch.ones(1, dtype=torch.int64)),
            tuple(int(frame.tensor(slot).max()) for slot in reversed(boxes)),
            bool(nan),
        )
        frame.run.memory.observe_descriptor(made, item, site(frame, op))
        address = frame.tensor(where).expand(frame.programs)
        chip.tensormaps.make(
            chip.rows(frame.positions), address, [torch.tensor([nan]), made.base, *shape, *made.strides]
        )

    return on_chip(run)


@step("ttng.tensormap_fenceproxy_acquire")
def _fence(op: Op, types: Types) -> Step:
    check_variant(op)
    (where,) = op.operands

    def run(frame: Frame, chip: Chip) -> None:
        chip.tensormaps.fence(chip.rows(frame.positions), frame.tensor(where).expand(frame.programs))

    return on_chip(run)


@step("ttng.reinterpret_tensor_descriptor")
def _reinterpret(op: Op, types: Types) -> Step:
    check_variant(op)
    (where,) = op.operands
    if types[op.results[0]].element != "descriptor":
        raise UnsupportedOperation(f"{op.name} as {types[op.results[0]]}", op.location)

    def run(frame: Frame, chip: Chip) -> None:
        frame.slots[op.results[0]] = frame.slots[where]

    return on_chip(run)
