"""Regions that are a function of single elements: each element runs as a program with its own branches."""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch

from avo.evaluator.executor.chip.buffers import BufferView
from avo.evaluator.executor.effects import effects
from avo.evaluator.executor.errors import IRError, UnsupportedOperation
from avo.evaluator.executor.frame import Frame, Step
from avo.evaluator.executor.ir import Op, captured
from avo.evaluator.executor.operations.packing import in_packs
from avo.evaluator.executor.operations.registry import RegionBuilder, Types, check_variant, integer, region_step
from avo.evaluator.executor.values import Value, full, select

Tensor = torch.Tensor
ScalarFunction: TypeAlias = Callable[[Frame, Sequence[Tensor]], list[Tensor]]
"""Maps one tensor [P or 1, ...] per argument of a region to one [P or 1, ...] per returned value."""

ELEMENTS_AT_ONCE = 2**18
"""Number of elements whose intermediate values are held at once."""


def scalar_function(op: Op, types: Types, build: RegionBuilder) -> ScalarFunction:
    """Return a combining operation's region as a function of whole blocks."""
    (region,) = op.regions
    for inner in region.ops:
        if effects(inner.name).accesses:
            raise UnsupportedOperation(f"{inner.name} in {op.name}", inner.location)
    body, outer, returned = build(region), captured(region), region.terminator.operands
    own = any(inner.name == "tt.get_program_id" for inner in region.ops)

    def apply(frame: Frame, values: Sequence[Tensor]) -> list[Tensor]:
        shape = np.broadcast_shapes(*(value.shape for value in values))[1:]
        from_outside = {slot: frame.value(slot) for slot in outer}
        differ = own or any(value.shape[0] != 1 for value in (*values, *map(_leading, from_outside.values())))
        programs = frame.programs if differ else 1
        flat = [value.expand(programs, *shape).reshape(-1) for value in values]
        owner = torch.arange(programs).repeat_interleave(math.prod(shape))
        pieces = []
        for start in range(0, owner.shape[0], ELEMENTS_AT_ONCE):
            here = slice(start, start + ELEMENTS_AT_ONCE)
            inner = Frame(frame.run, frame.positions[owner[here]], [None] * len(frame.slots))
            for slot, value in zip(region.args, flat, strict=True):
                inner.slots[slot] = value[here]
            for slot, held in from_outside.items():
                inner.slots[slot] = select(held, owner[here])
            body(inner)
            pieces.append([inner.tensor(slot).expand(inner.programs) for slot in returned])
        return [torch.cat(column).view(programs, *shape) for column in zip(*pieces, strict=True)]

    return apply


def _leading(value: Value) -> Tensor:
    if isinstance(value, BufferView):
        return value.offset
    return value if isinstance(value, Tensor) else value.base


@region_step("tt.map_elementwise")
def _map_elementwise(op: Op, types: Types, build: RegionBuilder) -> Step:
    """Return the step."""
    check_variant(op, attributes=["pack"])
    (region,) = op.regions
    pack, kinds = integer(op, "pack"), [types[slot] for slot in op.operands]
    shape = kinds[0].shape
    arguments = [kind.element for kind in kinds for _ in range(pack)]
    results = [types[slot].element for slot in op.results for _ in range(pack)]
    if (
        pack < 1
        or not shape
        or kinds[0].elements % pack
        or any(types[slot].shape != shape for slot in (*op.operands, *op.results))
        or [types[slot].element for slot in region.args] != arguments
        or [types[slot].element for slot in region.terminator.operands] != results
        or any(types[slot].shape for slot in (*region.args, *region.terminator.operands))
    ):
        raise IRError(f"{op.name} at {op.location} has a region that does not fit its operands")
    function = scalar_function(op, types, build)
    packed = in_packs(op, shape, pack, op.name)

    def run(frame: Frame) -> None:
        def apply(values: Sequence[Tensor]) -> list[Tensor]:
            arguments = [lane for value in values for lane in value.view(value.shape[0], -1, pack).unbind(2)]
            returned = function(frame, arguments)
            results = (returned[i * pack : (i + 1) * pack] for i in range(len(op.results)))
            return [torch.stack(lanes, 2).flatten(1) for lanes in results]

        blocks = [full(frame.tensor(slot), kind) for slot, kind in zip(op.operands, kinds, strict=True)]
        results = packed(apply, [block.reshape(block.shape[0], -1) for block in blocks])
        for slot, result in zip(op.results, results, strict=True):
            frame.slots[slot] = result.view(result.shape[0], *shape)

    return run
