"""Operations that make blocks or rearrange them. None of them computes; most are views."""

import re

import torch

from evaluator.executor.errors import UnsupportedOperation
from evaluator.executor.frame import Frame, Step
from evaluator.executor.ir import FREE_TEXT, Op
from evaluator.executor.operations.registry import Elementwise, Types, check_variant, elementwise_step, integer, step
from evaluator.executor.values import full

Tensor = torch.Tensor

_AXES = {"x": 0, "y": 1, "z": 2}


def _axis_word(op: Op) -> int:
    check_variant(op, words=op.words)
    if len(op.words) != 1 or op.words[0] not in _AXES:
        raise UnsupportedOperation(f"{op.name} of axis {' '.join(op.words)[:60]}", op.location)
    return _AXES[op.words[0]]


@step("tt.get_program_id")
def _program_id(op: Op, types: Types) -> Step:
    axis, result = _axis_word(op), op.results[0]

    def run(frame: Frame) -> None:
        x, y, z = frame.run.grid
        if (x, y, z)[axis] == 1:
            frame.slots[result] = torch.zeros(1, dtype=torch.int32)
            return
        ids = frame.ids()
        index = (ids % x, ids // x % y, ids // (x * y))[axis]
        frame.slots[result] = index.to(torch.int32)

    return run


@step("tt.get_num_programs")
def _num_programs(op: Op, types: Types) -> Step:
    axis, result = _axis_word(op), op.results[0]

    def run(frame: Frame) -> None:
        frame.slots[result] = torch.tensor([frame.run.grid[axis]], dtype=torch.int32)

    return run


@step("tt.make_range")
def _make_range(op: Op, types: Types) -> Step:
    check_variant(op, attributes=["start", "end"])
    value = torch.arange(integer(op, "start"), integer(op, "end"), dtype=torch.int32)[None]
    result = op.results[0]

    def run(frame: Frame) -> None:
        frame.slots[result] = value

    return run


def _structural(op: Op, types: Types) -> Elementwise:
    source = types[op.operands[0]]
    target = types[op.results[0]]
    if op.name == "tt.splat":
        dims = (1,) * len(target.shape)
        return lambda x: x.reshape(-1, *dims)
    if op.name == "tt.unsplat":
        return lambda x: x.reshape(-1)
    if op.name == "tt.broadcast":
        return lambda x: x
    if op.name == "tt.expand_dims":
        axis = integer(op, "axis") + 1
        return lambda x: x.unsqueeze(axis)
    if op.name == "tt.trans":
        order = [int(i) for i in re.findall(r"\d+", op.attributes.get("order", "").partition(":")[2])]
        if sorted(order) != list(range(len(source.shape))):
            raise UnsupportedOperation("tt.trans without a readable order", op.location)
        permutation = [0, *(i + 1 for i in order)]
        return lambda x: x.permute(permutation)
    if op.name == "tt.reshape":
        return lambda x: full(x, source).reshape(x.shape[0], *target.shape)
    if op.name == "tt.cat":

        def concatenate(a: Tensor, b: Tensor) -> Tensor:
            programs = max(a.shape[0], b.shape[0])
            return torch.cat([full(a, source, programs), full(b, source, programs)], 1)

        return concatenate
    return lambda a, b: torch.stack(torch.broadcast_tensors(a, b), -1)


@step("tt.splat", "tt.unsplat", "tt.broadcast", "tt.expand_dims", "tt.trans", "tt.reshape", "tt.cat", "tt.join")
def _rearrange(op: Op, types: Types) -> Step:
    check_variant(op, attributes=["axis", "order"])
    return elementwise_step(op, _structural(op, types))


@step("tt.split")
def _split(op: Op, types: Types) -> Step:
    check_variant(op)
    (source,), (first, second) = op.operands, op.results

    def run(frame: Frame) -> None:
        value = frame.tensor(source)
        frame.slots[first] = value[..., 0]
        frame.slots[second] = value[..., -1]

    return run


@step("tt.gather")
def _gather(op: Op, types: Types) -> Step:
    check_variant(op, attributes=["axis"])
    axis = integer(op, "axis") + 1
    source, index = op.operands
    kind = types[source]

    def run(frame: Frame) -> None:
        values, where = frame.tensor(source), frame.tensor(index)
        programs = max(values.shape[0], where.shape[0])
        where = full(where, types[index], programs).to(torch.int64)
        # An index outside the axis is undefined; any element will do.
        where = where.clamp(0, kind.shape[axis - 1] - 1)
        frame.slots[op.results[0]] = torch.gather(full(values, kind, programs), axis, where)

    return run


@step("tt.histogram")
def _histogram(op: Op, types: Types) -> Step:
    check_variant(op)
    source = types[op.operands[0]]
    bins = types[op.results[0]].shape[0]

    def run(frame: Frame) -> None:
        values = full(frame.tensor(op.operands[0]), source).to(torch.int64)
        weight = torch.ones_like(values)
        if len(op.operands) == 2:
            mask = frame.tensor(op.operands[1])
            programs = max(values.shape[0], mask.shape[0])
            values = values.expand(programs, -1)
            weight = full(mask, source, programs).to(torch.int64)
        weight = weight * ((values >= 0) & (values < bins))
        counts = torch.zeros(values.shape[0], bins, dtype=torch.int64)
        counts.scatter_add_(1, values.clamp(0, bins - 1), weight)
        frame.slots[op.results[0]] = counts.to(torch.int32)

    return run


@step(*FREE_TEXT)
def _nothing(op: Op, types: Types) -> Step:
    return lambda frame: None
