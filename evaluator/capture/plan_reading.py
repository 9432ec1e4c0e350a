"""Builds launch plans from untrusted data: types, counts, indices and ranges are checked before use."""

import math
from collections.abc import Mapping, Sequence

from evaluator.errors import InvalidPlan
from evaluator.plan import (
    DEFAULT_LIMITS,
    ITEM_BYTES,
    Argument,
    Buffer,
    Configuration,
    Descriptor,
    Fill,
    KernelIR,
    Launch,
    LaunchPlan,
    Level,
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
_OPTION_CHARS = 200
_CONFIGURATION_CHARS = 2000


def plan_from_json(data: object, limits: PlanLimits = DEFAULT_LIMITS) -> LaunchPlan:
    """Build a plan from untrusted data; raise ``InvalidPlan`` naming the first field that is off."""
    plan = _mapping(data, "plan", {"case", "buffers", "kernels", "steps", "configurations"})
    buffers = tuple(_buffer(item, f"buffers[{i}]") for i, item in enumerate(_list(plan["buffers"], "buffers", 256)))
    scratch = sum(buffer.nbytes for buffer in buffers if buffer.role is Role.SCRATCH)
    names = [buffer.name for buffer in buffers if buffer.role is not Role.SCRATCH]
    if len(set(names)) < len(names):
        raise InvalidPlan("buffers: an input or output is listed twice")
    if scratch > limits.scratch_bytes:
        raise InvalidPlan(f"scratch buffers take {scratch} bytes, the limit is {limits.scratch_bytes}")
    kernels = tuple(
        _kernel(item, f"kernels[{i}]") for i, item in enumerate(_list(plan["kernels"], "kernels", limits.launches))
    )
    if sum(len(kernel.ttir) for kernel in kernels) > limits.ttir_chars:
        raise InvalidPlan(f"kernels have more than {limits.ttir_chars} characters of IR")
    raw_steps = _list(plan["steps"], "steps", limits.launches + limits.fills)
    steps = tuple(_step(item, f"steps[{i}]", buffers, kernels, limits) for i, item in enumerate(raw_steps))
    raw_configurations = _list(plan["configurations"], "configurations", limits.configurations)
    configurations = tuple(_configuration(item, f"configurations[{i}]") for i, item in enumerate(raw_configurations))
    return LaunchPlan(_text(plan["case"], "case", 200), buffers, kernels, steps, configurations)


def _mapping(data: object, where: str, keys: set[str]) -> Mapping[str, object]:
    if not isinstance(data, dict) or set(data) != keys:
        raise InvalidPlan(f"{where} must be an object with the keys {', '.join(sorted(keys))}")
    return data


def _list(data: object, where: str, most: int) -> Sequence[object]:
    if not isinstance(data, list):
        raise InvalidPlan(f"{where} must be a list")
    if len(data) > most:
        raise InvalidPlan(f"{where} has {len(data)} items, the limit is {most}")
    return data


def _text(data: object, where: str, most: int) -> str:
    if not isinstance(data, str) or len(data) > most:
        raise InvalidPlan(f"{where} must be text of at most {most} characters")
    return data


def _integer(data: object, where: str, low: int, high: int) -> int:
    if not isinstance(data, int) or isinstance(data, bool) or not low <= data <= high:
        raise InvalidPlan(f"{where} must be an integer from {low} to {high}")
    return data


def _integers(data: object, where: str, low: int, high: int, most: int = 8) -> tuple[int, ...]:
    return tuple(_integer(item, f"{where}[{i}]", low, high) for i, item in enumerate(_list(data, where, most)))


def _number(data: object, where: str) -> int | float | bool:
    if isinstance(data, bool | float):
        return data
    return _integer(data, where, -(2**63), 2**64 - 1)


def _buffer(data: object, where: str) -> Buffer:
    item = _mapping(data, where, {"name", "dtype", "size", "role"})
    dtype = _text(item["dtype"], f"{where}.dtype", 20)
    if dtype not in ITEM_BYTES:
        raise InvalidPlan(f"{where}.dtype {dtype!r} is not one of {', '.join(ITEM_BYTES)}")
    role = _text(item["role"], f"{where}.role", 20)
    if role not in set(Role):
        raise InvalidPlan(f"{where}.role must be one of {', '.join(Role)}")
    return Buffer(
        _text(item["name"], f"{where}.name", 200), dtype, _integer(item["size"], f"{where}.size", 0, 2**40), Role(role)
    )


def _kernel(data: object, where: str) -> KernelIR:
    item = _mapping(data, where, {"name", "ttir", "options", "level"})
    level = _text(item["level"], f"{where}.level", 20)
    if level not in set(Level):
        raise InvalidPlan(f"{where}.level must be one of {', '.join(Level)}")
    options = item["options"]
    if not isinstance(options, dict) or len(options) > 64:
        raise InvalidPlan(f"{where}.options must be an object of at most 64 entries")
    for key, value in options.items():
        _text(key, f"{where}.options: a name", _OPTION_CHARS)
        if isinstance(value, str):
            _text(value, f"{where}.options[{key!r}]", _OPTION_CHARS)
        elif value is not None and not isinstance(value, bool | float):
            _integer(value, f"{where}.options[{key!r}], if no text, true, false or null,", -(2**63), 2**63 - 1)
    return KernelIR(
        _text(item["name"], f"{where}.name", 400),
        _text(item["ttir"], f"{where}.ttir", 2**31),
        tuple(sorted(options.items())),
        Level(level),
    )


def _configuration(data: object, where: str) -> Configuration:
    item = _mapping(data, where, {"kernel", "key", "choice"})
    return Configuration(
        *(_text(item[name], f"{where}.{name}", _CONFIGURATION_CHARS) for name in ("kernel", "key", "choice"))
    )


def _step(
    data: object, where: str, buffers: tuple[Buffer, ...], kernels: tuple[KernelIR, ...], limits: PlanLimits
) -> Fill | Launch:
    if not isinstance(data, dict) or len(data) != 1 or next(iter(data)) not in ("fill", "launch"):
        raise InvalidPlan(f"{where} must be an object with one key, fill or launch")
    if "fill" in data:
        return _fill(data["fill"], f"{where}.fill", buffers)
    item = _mapping(data["launch"], f"{where}.launch", {"kernel", "grid", "args"})
    kernel = _integer(item["kernel"], f"{where}.launch.kernel", 0, len(kernels) - 1)
    grid = _integers(item["grid"], f"{where}.launch.grid", 1, 2**31 - 1, most=3)
    if len(grid) != 3 or math.prod(grid) > limits.programs:
        raise InvalidPlan(
            f"{where}.launch.grid must be three positive integers with a product of at most {limits.programs}"
        )
    raw = _list(item["args"], f"{where}.launch.args", 256)
    args = tuple(_argument(arg, f"{where}.launch.args[{i}]", buffers) for i, arg in enumerate(raw))
    return Launch(kernel, (grid[0], grid[1], grid[2]), args)


def _fill(data: object, where: str, buffers: tuple[Buffer, ...]) -> Fill:
    item = _mapping(data, where, {"buffer", "offset", "shape", "strides", "value"})
    index = _integer(item["buffer"], f"{where}.buffer", 0, len(buffers) - 1)
    shape = _integers(item["shape"], f"{where}.shape", 0, 2**40)
    strides = _integers(item["strides"], f"{where}.strides", 0, 2**40)
    if len(shape) != len(strides):
        raise InvalidPlan(f"{where}.shape and strides must have the same length")
    fill = Fill(
        index,
        _integer(item["offset"], f"{where}.offset", 0, 2**40),
        shape,
        strides,
        _number(item["value"], f"{where}.value"),
    )
    last = fill.offset + sum((extent - 1) * stride for extent, stride in zip(shape, strides, strict=True))
    if 0 not in shape and last >= buffers[index].size:
        raise InvalidPlan(f"{where} reaches element {last} of a buffer of {buffers[index].size}")
    if math.prod(shape) > buffers[index].size:
        raise InvalidPlan(f"{where} sets {math.prod(shape)} elements of a buffer of {buffers[index].size}")
    if buffers[index].role is Role.INPUT:
        raise InvalidPlan(f"{where} writes to the input {buffers[index].name!r}")
    if not _holds(buffers[index].dtype, fill.value):
        raise InvalidPlan(f"{where}.value {fill.value} is none that {buffers[index].dtype} holds")
    return fill


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


def _argument(data: object, where: str, buffers: tuple[Buffer, ...]) -> Argument:
    if not isinstance(data, dict) or len(data) != 1:
        raise InvalidPlan(f"{where} must be an object with one key: pointer, scalar or descriptor")
    kind, value = next(iter(data.items()))
    if kind == "scalar":
        return Scalar(_number(_mapping(value, where, {"value"})["value"], f"{where}.value"))
    if kind == "pointer":
        item = _mapping(value, where, {"buffer", "byte_offset"})
        index = _integer(item["buffer"], f"{where}.buffer", 0, len(buffers) - 1)
        return Pointer(index, _integer(item["byte_offset"], f"{where}.byte_offset", 0, buffers[index].nbytes))
    if kind == "descriptor":
        item = _mapping(value, where, {"buffer", "byte_offset", "shape", "strides", "block_shape", "padding"})
        index = _integer(item["buffer"], f"{where}.buffer", 0, len(buffers) - 1)
        padding = _text(item["padding"], f"{where}.padding", 8)
        shape = _integers(item["shape"], f"{where}.shape", 1, 2**40)
        strides = _integers(item["strides"], f"{where}.strides", 0, 2**40)
        block = _integers(item["block_shape"], f"{where}.block_shape", 1, 2**20)
        if padding not in ("zero", "nan") or not len(shape) == len(strides) == len(block):
            raise InvalidPlan(f"{where} must have shape, strides and block_shape of one length and padding zero or nan")
        offset = _integer(item["byte_offset"], f"{where}.byte_offset", 0, buffers[index].nbytes)
        return Descriptor(index, offset, shape, strides, block, padding)
    raise InvalidPlan(f"{where} has the unknown kind {kind!r:.80}")
