"""Builds launch plans from untrusted data: types, counts, indices and ranges are checked before use.

The bounds of single fields are part of their types, in ``avo.evaluator.plan``; msgspec checks them. What depends on
another field is checked here.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import msgspec

from avo.evaluator.errors import InvalidPlan
from avo.evaluator.plan import (
    DEFAULT_LIMITS,
    ITEM_BYTES,
    Argument,
    Buffer,
    Configuration,
    Descriptor,
    Fill,
    Grid,
    Index,
    KernelIR,
    Launch,
    LaunchPlan,
    Name,
    PlanLimits,
    Pointer,
    Role,
    Scalar,
)

_GREATEST_FLOAT = {
    "float16": 65504.0,
    "bfloat16": float.fromhex("0x1.fep127"),
    "float32": float.fromhex("0x1.fffffep127"),
    "float64": math.inf,
    "float8_e4m3fn": 448.0,
    "float8_e5m2": 57344.0,
}
"""Greatest finite values; IEEE 754 and the OCP 8-bit floating point specification. Only e4m3fn has no infinity."""
_MOST_BUFFERS = 256
_MOST_ARGUMENTS = 256
_ARGUMENTS: dict[object, type[Argument]] = {"pointer": Pointer, "scalar": Scalar, "descriptor": Descriptor}

T = TypeVar("T")


def plan_from_json(data: object, limits: PlanLimits = DEFAULT_LIMITS) -> LaunchPlan:
    """Build a plan from untrusted data; raise ``InvalidPlan`` naming the first field that is off."""
    plan = _object(data, LaunchPlan, "plan")
    buffers = tuple(_buffer(item, f"buffers[{i}]") for i, item in _items(plan, "buffers", _MOST_BUFFERS))
    scratch = sum(buffer.nbytes for buffer in buffers if buffer.role is Role.SCRATCH)
    names = [buffer.name for buffer in buffers if buffer.role is not Role.SCRATCH]
    if len(set(names)) < len(names):
        raise InvalidPlan("buffers: an input or output is listed twice")
    if scratch > limits.scratch_bytes:
        raise InvalidPlan(f"scratch buffers take {scratch} bytes, the limit is {limits.scratch_bytes}")
    kernels = tuple(_kernel(item, f"kernels[{i}]") for i, item in _items(plan, "kernels", limits.launches))
    if sum(len(kernel.ttir) for kernel in kernels) > limits.ttir_chars:
        raise InvalidPlan(f"kernels have more than {limits.ttir_chars} characters of IR")
    steps = tuple(
        _step(item, f"steps[{i}]", buffers, kernels, limits)
        for i, item in _items(plan, "steps", limits.launches + limits.fills)
    )
    configurations = tuple(
        _read(item, Configuration, f"configurations[{i}]")
        for i, item in _items(plan, "configurations", limits.configurations)
    )
    return LaunchPlan(_convert(plan["case"], Name, "case"), buffers, kernels, steps, configurations)


def _convert(data: object, kind: Any, where: str) -> Any:
    try:
        return msgspec.convert(data, kind)
    except ValueError as error:  # also of text that is not Unicode
        raise InvalidPlan(f"{where}: {error}") from None


def _object(data: object, kind: type[Any], where: str) -> Mapping[str, Any]:
    """Return ``data`` if it is an object with the fields of the dataclass ``kind`` and no others."""
    names = {field.name for field in fields(kind)}
    if not isinstance(data, dict) or set(data) != names:
        raise InvalidPlan(f"{where} must be an object with the keys {', '.join(sorted(names))}")
    return data


def _read(data: object, kind: type[T], where: str) -> T:
    found: T = _convert(_object(data, kind, where), kind, where)
    return found


def _items(data: Mapping[str, Any], name: str, most: int, where: str = "") -> Iterable[tuple[int, object]]:
    """Return the items of a list with their indices."""
    items = data[name]
    if not isinstance(items, list):
        raise InvalidPlan(f"{where}{name} must be a list")
    if len(items) > most:
        raise InvalidPlan(f"{where}{name} has {len(items)} items, the limit is {most}")
    return enumerate(items)


def _at(index: int, items: Sequence[T], where: str) -> T:
    if index >= len(items):
        raise InvalidPlan(f"{where} is {index}, of {len(items)}")
    return items[index]


def _tagged(data: object, tags: Collection[object], where: str) -> tuple[Any, Any]:
    """Return the only key of an object, one of ``tags``, and its value."""
    if not isinstance(data, dict) or len(data) != 1:
        raise InvalidPlan(f"{where} must be an object with one key, {' or '.join(map(str, tags))}")
    ((tag, value),) = data.items()
    if tag not in tags:
        raise InvalidPlan(f"{where} has the unknown key {tag!r:.80}, not {' or '.join(map(str, tags))}")
    return tag, value


def _buffer(data: object, where: str) -> Buffer:
    buffer = _read(data, Buffer, where)
    if buffer.dtype not in ITEM_BYTES:
        raise InvalidPlan(f"{where}.dtype {buffer.dtype!r:.80} is not one of {', '.join(ITEM_BYTES)}")
    return buffer


def _kernel(data: object, where: str) -> KernelIR:
    kernel = _object(data, KernelIR, where)
    options = kernel["options"]
    if not isinstance(options, dict):
        raise InvalidPlan(f"{where}.options must be an object")
    return _read({**kernel, "options": sorted(options.items())}, KernelIR, where)


def _step(
    data: object, where: str, buffers: Sequence[Buffer], kernels: Sequence[KernelIR], limits: PlanLimits
) -> Fill | Launch:
    tag, value = _tagged(data, ("fill", "launch"), where)
    if tag == "fill":
        return _fill(value, f"{where}.fill", buffers)
    where += ".launch"
    launch = _object(value, Launch, where)
    kernel = _convert(launch["kernel"], Index, f"{where}.kernel")
    _at(kernel, kernels, f"{where}.kernel")
    grid = _convert(launch["grid"], Grid, f"{where}.grid")
    if math.prod(grid) > limits.programs:
        raise InvalidPlan(f"{where}.grid has {math.prod(grid)} programs, the limit is {limits.programs}")
    arguments = _items(launch, "args", _MOST_ARGUMENTS, f"{where}.")
    return Launch(kernel, grid, tuple(_argument(item, f"{where}.args[{i}]", buffers) for i, item in arguments))


def _fill(data: object, where: str, buffers: Sequence[Buffer]) -> Fill:
    fill = _read(data, Fill, where)
    buffer = _at(fill.buffer, buffers, f"{where}.buffer")
    if len(fill.shape) != len(fill.strides):
        raise InvalidPlan(f"{where}.shape and strides must have the same length")
    last = fill.offset + sum((extent - 1) * stride for extent, stride in zip(fill.shape, fill.strides, strict=True))
    if 0 not in fill.shape and last >= buffer.size:
        raise InvalidPlan(f"{where} reaches element {last} of a buffer of {buffer.size}")
    if math.prod(fill.shape) > buffer.size:
        raise InvalidPlan(f"{where} sets {math.prod(fill.shape)} elements of a buffer of {buffer.size}")
    if buffer.role is Role.INPUT:
        raise InvalidPlan(f"{where} writes to the input {buffer.name!r}")
    if not _holds(buffer.dtype, _number(fill.value, f"{where}.value")):
        raise InvalidPlan(f"{where}.value {fill.value} is not a value of {buffer.dtype}")
    return fill


def _number(value: int | float, where: str) -> int | float:
    if isinstance(value, int) and not -(2**63) <= value < 2**64:  # msgspec has no bounds beyond 64 bits with a sign
        raise InvalidPlan(f"{where} must be an integer from {-(2**63)} to {2**64 - 1}")
    return value


def _holds(dtype: str, value: int | float) -> bool:
    """Return whether torch fills elements of this dtype with ``value``; negative integers wrap in unsigned ones."""
    if dtype == "bool":
        return True
    if dtype in _GREATEST_FLOAT:
        infinite = math.isinf(value) and dtype != "float8_e4m3fn"
        return math.isnan(value) or infinite or abs(value) <= _GREATEST_FLOAT[dtype]
    wraps = dtype.startswith("u")
    most = int(2 ** (8 * ITEM_BYTES[dtype] - (not wraps))) - 1
    least = 0 if wraps and isinstance(value, float) else -most - (not wraps)
    return least <= value <= most


def _argument(data: object, where: str, buffers: Sequence[Buffer]) -> Argument:
    tag, value = _tagged(data, _ARGUMENTS, where)
    found = _read(value, _ARGUMENTS[tag], where)
    if isinstance(found, Scalar):
        return Scalar(_number(found.value, f"{where}.value"))
    buffer = _at(found.buffer, buffers, f"{where}.buffer")
    if found.byte_offset > buffer.nbytes:
        raise InvalidPlan(f"{where}.byte_offset is {found.byte_offset}, of a buffer of {buffer.nbytes} bytes")
    if isinstance(found, Descriptor) and not len(found.shape) == len(found.strides) == len(found.block_shape):
        raise InvalidPlan(f"{where} must have shape, strides and block_shape of one length")
    return found
