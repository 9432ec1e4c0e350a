"""``tt.reduce`` and ``tt.scan`` with any combining function."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch

from avo.evaluator.executor.errors import IRError, UnsupportedOperation
from avo.evaluator.executor.frame import Frame, Step
from avo.evaluator.executor.ir import Op, captured
from avo.evaluator.executor.operations.constants import constant
from avo.evaluator.executor.operations.regions import scalar_function
from avo.evaluator.executor.operations.registry import (
    ELEMENTWISE,
    VALUE_HINTS,
    Elementwise,
    RegionBuilder,
    Types,
    check_variant,
    integer,
    region_step,
)
from avo.evaluator.executor.values import full

Tensor = torch.Tensor
Combine: TypeAlias = Callable[[Frame, Sequence[Tensor], Sequence[Tensor]], list[Tensor]]


def _combine(op: Op, types: Types, build: RegionBuilder) -> Combine:
    """Return the combining function, which takes and returns one tensor, of any shape, per operand of the reduction.

    A chain of elementwise operations is applied to whole tensors, any other region element by element.
    """
    (region,) = op.regions
    elements = [types[operand].element for operand in op.operands]
    if [types[slot].element for slot in region.args] != elements * 2 or any(types[slot].shape for slot in region.args):
        raise IRError(f"{op.name} at {op.location} combines other values than it reduces")
    if [types[slot].element for slot in region.terminator.operands] != elements or len(op.results) != len(elements):
        raise IRError(f"{op.name} at {op.location} combines to other values than it reduces")
    constants: dict[int, Tensor] = {}
    calls: list[tuple[int, Elementwise, tuple[int, ...]]] = []
    for inner in region.blocks[0].ops[:-1]:
        if inner.name == "arith.constant":
            constants[inner.results[0]] = constant(inner, types)
        elif inner.name in ELEMENTWISE and not any(hint in inner.attributes for hint in VALUE_HINTS):
            calls.append((inner.results[0], ELEMENTWISE[inner.name](inner, types), inner.operands))
        else:
            function = scalar_function(op, types, build)
            return lambda frame, left, right: function(frame, [*left, *right])
    outer = captured(region)
    returned = region.terminator.operands

    def combine(frame: Frame, left: Sequence[Tensor], right: Sequence[Tensor]) -> list[Tensor]:
        values: dict[int, Tensor] = dict(zip(region.args, [*left, *right], strict=True))
        values.update(constants)
        for slot in outer:
            value = frame.tensor(slot)
            values[slot] = value.view(-1, *(1,) * (left[0].dim() - 1))
        for result, function, operands in calls:
            values[result] = function(*[values[operand] for operand in operands])
        return [values[slot] for slot in returned]

    return combine


def _sum(value: Tensor, axis: int) -> Tensor:
    return value.sum(axis, dtype=value.dtype)


def _nan_free(reduce: Callable[[Tensor, int], Tensor], identity: float) -> Callable[[Tensor, int], Tensor]:
    """Return a reduction that ignores NaN, made of one that propagates it and so shows whether there was any."""

    def apply(value: Tensor, axis: int) -> Tensor:
        result = reduce(value, axis)
        if not bool(torch.isnan(result).any()):
            return result
        missing = torch.isnan(value)
        return torch.where(missing.all(axis), result, reduce(value.masked_fill(missing, identity), axis))

    return apply


WHOLE: dict[str, Callable[[Tensor, int], Tensor]] = {
    "arith.addf": _sum,
    "arith.addi": _sum,
    "arith.maxnumf": _nan_free(torch.amax, float("-inf")),
    "arith.minnumf": _nan_free(torch.amin, float("inf")),
    "arith.maximumf": torch.amax,
    "arith.minimumf": torch.amin,
    "arith.maxsi": torch.amax,
    "arith.minsi": torch.amin,
}
"""What torch has of its own for a whole axis, by the operation that combines two elements."""


def _fast(op: Op, types: Types) -> Callable[[Tensor, int], Tensor] | None:
    """Return torch's own reduction if the region is a single operation that has one."""
    (region,) = op.regions
    ops = region.blocks[0].ops
    if len(ops) != 2 or ops[0].operands not in (region.args, region.args[::-1]) or ops[1].operands != ops[0].results:
        return None
    # Short floats are summed pairwise, so that partial sums are rounded as on the hardware.
    element = types[op.operands[0]].element
    if element == "i1" or (ops[0].name == "arith.addf" and element not in ("f32", "f64")):
        return None
    return WHOLE.get(ops[0].name)


def _axis(op: Op, types: Types) -> int:
    axis = integer(op, "axis")
    kinds = [types[operand] for operand in op.operands]
    shape = kinds[0].shape
    # Extents are powers of two; halving and doubling rely on it.
    if any(kind.shape != shape for kind in kinds) or not 0 <= axis < len(shape) or shape[axis] & (shape[axis] - 1):
        raise UnsupportedOperation(f"{op.name} with axis {axis} of {kinds[0]}", op.location)
    reduced = shape if op.name == "tt.scan" else (*shape[:axis], *shape[axis + 1 :])
    if [(types[slot].element, types[slot].shape) for slot in op.results] != [(kind.element, reduced) for kind in kinds]:
        raise IRError(f"{op.name} at {op.location} gives {types[op.results[0]]} for {kinds[0]}")
    return axis + 1


def _expand_axis(value: Tensor, axis: int, length: int) -> Tensor:
    return value if value.shape[axis] == length else value.expand(*value.shape[:axis], length, *value.shape[axis + 1 :])


def _with_nan(values: Sequence[Tensor], axis: int) -> Tensor | None:
    """Return where there is a NaN along an axis, bool [..., 1, ...]; None if there is none.

    Of NaN the comparisons of argmax and argmin make functions that do not commute. They are combined as in a warp whose
    lanes hold one element each, where a lane has its own on the left (warpReduce in Triton's ReduceOpToLLVM.cpp).
    """
    found = [value.isnan().any(axis, keepdim=True) for value in values if value.is_floating_point()]
    anywhere = torch.stack(torch.broadcast_tensors(*found)).any(0) if found else None
    return anywhere if anywhere is not None and bool(anywhere.any()) else None


@region_step("tt.reduce")
def _reduce(op: Op, types: Types, build: RegionBuilder) -> Step:
    check_variant(op, attributes=["axis"])
    axis = _axis(op, types)
    length = types[op.operands[0]].shape[axis - 1]
    combine = _combine(op, types, build)
    fast = _fast(op, types)
    if fast is not None and len(op.operands) == 1:
        operand, result = op.operands[0], op.results[0]

        def at_once(frame: Frame) -> None:
            frame.slots[result] = fast(_expand_axis(frame.tensor(operand), axis, length), axis)

        return at_once

    def pairwise(frame: Frame) -> None:
        values = [_expand_axis(frame.tensor(operand), axis, length) for operand in op.operands]
        nan, count = _with_nan(values, axis), length
        while count > 1:
            count //= 2
            halves = [[value.narrow(axis, start, count) for value in values] for start in (0, count)]
            # A GPU combines in an order of its own: what relies on one must not come out as its author meant it.
            turned = count.bit_length() % 2 == 0
            values = combine(frame, *(halves[::-1] if turned else halves))
            if turned and nan is not None:
                values = [torch.where(nan, *each) for each in zip(combine(frame, *halves), values, strict=True)]
        for slot, value in zip(op.results, values, strict=True):
            frame.slots[slot] = value.squeeze(axis)

    return pairwise


@region_step("tt.scan")
def _scan(op: Op, types: Types, build: RegionBuilder) -> Step:
    check_variant(op, attributes=["axis", "reverse"])
    axis = _axis(op, types)
    reverse = op.attributes.get("reverse", "false") == "true"
    kinds = [types[operand] for operand in op.operands]
    length = kinds[0].shape[axis - 1]
    combine = _combine(op, types, build)

    def run(frame: Frame) -> None:
        values = [full(frame.tensor(operand), kind) for operand, kind in zip(op.operands, kinds, strict=True)]
        if reverse:
            values = [value.flip(axis) for value in values]
        distance = 1
        while distance < length:
            combined = combine(
                frame,
                [value.narrow(axis, 0, length - distance) for value in values],
                [value.narrow(axis, distance, length - distance) for value in values],
            )
            values = [
                torch.cat([value.narrow(axis, 0, distance).expand(new.shape[0], *[-1] * (new.dim() - 1)), new], axis)
                for value, new in zip(values, combined, strict=True)
            ]
            distance *= 2
        for slot, value in zip(op.results, values, strict=True):
            frame.slots[slot] = value.flip(axis) if reverse else value

    return run
