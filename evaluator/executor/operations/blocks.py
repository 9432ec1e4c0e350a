"""Operations that make or rearrange blocks. None of them computes; most are views."""

import re

import torch

from avo.evaluator.executor.chip.registers import order_of
from avo.evaluator.executor.errors import IRError, UnsupportedOperation
from avo.evaluator.executor.frame import Frame, Step
from avo.evaluator.executor.ir import Op, Type
from avo.evaluator.executor.lexer import unquoted
from avo.evaluator.executor.operations.integers import unsigned
from avo.evaluator.executor.operations.memory import site
from avo.evaluator.executor.operations.registry import (
    Elementwise,
    Types,
    check_variant,
    elementwise_step,
    integer,
    step,
)
from avo.evaluator.executor.values import full

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
    start, end = integer(op, "start"), integer(op, "end")
    if types[op.results[0]] != Type("i32", (end - start,)):
        raise IRError(f"{op.name} at {op.location} from {start} to {end} does not make {types[op.results[0]]}")
    value = torch.arange(start, end, dtype=torch.int32)[None]
    result = op.results[0]

    def run(frame: Frame) -> None:
        frame.slots[result] = value

    return run


def _order(op: Op, rank: int) -> list[int]:
    order = [int(i) for i in re.findall(r"\d+", op.attributes.get("order", "").partition(":")[2])]
    if sorted(order) != list(range(rank)):
        raise UnsupportedOperation(f"{op.name} without a readable order", op.location)
    return order


def _structural(op: Op, types: Types) -> tuple[tuple[int, ...], Elementwise]:
    """Return the shape of the result and the function that makes it."""
    kind, target = types[op.operands[0]], types[op.results[0]]
    shape = kind.shape
    if op.name == "tt.splat":
        dims = (1,) * len(target.shape)
        return target.shape, lambda x: x.reshape(-1, *dims)
    if op.name == "tt.unsplat":
        return (), lambda x: x.reshape(-1)
    if op.name == "tt.broadcast":
        fits = len(shape) == len(target.shape) and all(a in (1, b) for a, b in zip(shape, target.shape, strict=True))
        return target.shape if fits else shape, lambda x: x
    if op.name == "ttg.convert_layout":
        return shape, lambda x: x
    if op.name == "tt.expand_dims":
        axis = integer(op, "axis")
        return (*shape[:axis], 1, *shape[axis:]), lambda x: x.unsqueeze(axis + 1)
    if op.name == "tt.trans":
        order = _order(op, len(shape))
        permutation = [0, *(i + 1 for i in order)]
        return tuple(shape[i] for i in order), lambda x: x.permute(permutation)
    if op.name == "tt.reshape":
        fits = kind.elements == target.elements
        if (found := order_of(op, shape, target.shape)) is not None:
            came = torch.from_numpy(found)
            return target.shape, lambda x: full(x, kind).flatten(1)[:, came].view(x.shape[0], *target.shape)
        return target.shape if fits else shape, lambda x: full(x, kind).reshape(x.shape[0], *target.shape)
    if op.name == "tt.cat":

        def concatenate(a: Tensor, b: Tensor) -> Tensor:
            programs = max(a.shape[0], b.shape[0])
            return torch.cat([full(a, kind, programs), full(b, kind, programs)], 1)

        return (2 * shape[0], *shape[1:]), concatenate
    return (*shape, 2), lambda a, b: torch.stack(torch.broadcast_tensors(a, b), -1)


@step(
    "tt.splat",
    "tt.unsplat",
    "tt.broadcast",
    "tt.expand_dims",
    "tt.trans",
    "tt.reshape",
    "tt.cat",
    "tt.join",
    "ttg.convert_layout",
)
def _rearrange(op: Op, types: Types) -> Step:
    check_variant(op, attributes=["axis", "order"])
    kinds = [types[operand] for operand in op.operands]
    target = types[op.results[0]]
    shape, function = _structural(op, types)
    counts = 2 if op.name in ("tt.cat", "tt.join") else 1
    if (
        len(kinds) != counts
        or any((kind.element, kind.shape) != (target.element, kinds[0].shape) for kind in kinds)
        or shape != target.shape
        or (op.name == "tt.splat") != (not kinds[0].shape)
        or (op.name == "tt.unsplat" and kinds[0].elements != 1)
    ):
        raise IRError(f"{op.name} at {op.location} does not make {target} of {kinds[0]}")
    return elementwise_step(op, function)


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
    length = kind.shape[axis - 1]

    def run(frame: Frame) -> None:
        values, where = frame.tensor(source), frame.tensor(index)
        programs = max(values.shape[0], where.shape[0])
        where = full(unsigned(where), types[index], programs)
        wrong = (where < 0) | (where >= length)
        frame.run.memory.refute(
            "index out of range", wrong, lambda place: f"{int(where[place])} on an axis of {length}", site(frame, op)
        )
        where = where.clamp(0, length - 1)
        frame.slots[op.results[0]] = torch.gather(full(values, kind, programs), axis, where)

    return run


@step("tt.histogram")
def _histogram(op: Op, types: Types) -> Step:
    check_variant(op)
    source = types[op.operands[0]]
    bins = types[op.results[0]].shape[0]

    def run(frame: Frame) -> None:
        values = full(unsigned(frame.tensor(op.operands[0])), source)
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


@step("tt.assert")
def _assert(op: Op, types: Types) -> Step:
    """Return the step of an assertion, which front ends emit only for kernels built for debugging."""
    check_variant(op, words=op.words)
    (condition,) = op.operands
    kind = types[condition]
    if len(op.words) != 1 or not op.words[0].startswith('"') or kind.element != "i1":
        raise UnsupportedOperation("tt.assert without a message", op.location)
    message = " ".join(unquoted(op.words[0]).split())

    def run(frame: Frame) -> None:
        def describe(place: tuple[int, ...]) -> str:
            return f"{message!r}, element {list(place[1:])}" if kind.shape else repr(message)

        wrong = ~full(frame.tensor(condition), kind, frame.programs)
        frame.run.memory.refute("assertion failed", wrong, describe, site(frame, op))

    return run


@step("tt.print")
def _print(op: Op, types: Types) -> Step:
    check_variant(op, words=op.words, attributes=["hex", "isSigned"])
    return lambda frame: None


_BARRIERS = ("gpu.barrier", "ttg.barrier", "ttg.local_barrier", "tt.debug_barrier")
_ORDERING = ("tt.grid_dependency_wait", "tt.grid_dependency_launch_dependents")
"""Operations that order threads of a program, and kernels. They do nothing here, where everything runs in order."""


@step(*_BARRIERS, *_ORDERING)
def _nothing(op: Op, types: Types) -> Step:
    check_variant(op, words=["all", "local"])
    if op.operands or op.results:
        raise UnsupportedOperation(f"{op.name} with values", op.location)
    if op.name in _BARRIERS:
        return lambda frame: frame.run.memory.observe_barrier(frame.positions)
    return lambda frame: None
