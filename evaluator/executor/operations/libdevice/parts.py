"""Signs, exponents and whole parts: functions whose result is exact."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from avo.evaluator.executor.operations import rounding
from avo.evaluator.executor.operations.casts import to_integer
from avo.evaluator.executor.operations.floats import flush, fmax, fmin
from avo.evaluator.executor.operations.integers import unsigned
from avo.evaluator.executor.operations.libdevice.signature import LibdeviceFunction, both_widths, in_double
from avo.evaluator.executor.operations.registry import Elementwise

Tensor = torch.Tensor


def _round(value: Tensor) -> Tensor:
    """Round to the nearest whole number, halves away from zero."""
    whole = torch.trunc(value)
    away = whole + torch.copysign(torch.ones_like(value), value)
    return torch.copysign(torch.where((value - whole).abs() >= 0.5, away, whole), value)


def _positive_difference(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(a <= b, 0.0, flush(flush(a) - flush(b)))


def _next_after(a: Tensor, b: Tensor) -> Tensor:
    """Return the float next to a in the direction of b; next to zero, the smallest normal float32."""
    a, b = flush(a), flush(b)
    step = torch.nextafter(a, b)
    if a.dtype == torch.float64:
        return step
    smallest = torch.copysign(torch.full_like(step, 2.0**-126), step)
    return torch.where((a == 0) & (step != 0), smallest, flush(step))


def _saturate(value: Tensor) -> Tensor:
    """Clamp to [0, 1]; NaN and -0 become +0."""
    return flush(value).nan_to_num(nan=0.0).clamp(0, 1).abs()


def _exponent(value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the exponent of a number in [1, 2), int32, and where there is none: zeros, and infinities or NaN."""
    value = flush(value)
    exponent = torch.frexp(value)[1] - 1
    return exponent, value == 0, ~torch.isfinite(value)


def _exponent_integer(value: Tensor) -> Tensor:
    exponent, zero, _ = _exponent(value)
    exponent = torch.where(torch.isinf(value), 2**31 - 1, exponent)
    return torch.where(zero | torch.isnan(value), -(2**31), exponent).to(torch.int32)


def _exponent_float(value: Tensor) -> Tensor:
    exponent, zero, special = _exponent(value)
    result = torch.where(zero, float("-inf"), exponent.to(value.dtype))
    return torch.where(special, value * value, result)


def _load_exponent(value: Tensor, exponent: Tensor) -> Tensor:
    """Multiply by a power of two, rounded once."""
    value, exponent = torch.broadcast_tensors(flush(value), exponent)
    with np.errstate(over="ignore"):
        return flush(torch.from_numpy(np.ldexp(value.numpy(), exponent.numpy())))


def each(function: Callable[..., float], *operands: Tensor) -> Tensor:
    """Apply a function of Python floats to every element; it gives NaN outside of its domain."""

    def guarded(*values: float) -> float:
        try:
            return function(*values)
        except ValueError:
            return math.nan
        except OverflowError:
            return math.inf

    with np.errstate(all="ignore"):
        results = np.frompyfunc(guarded, len(operands), 1)(*(operand.numpy() for operand in operands))
    return torch.from_numpy(np.asarray(results, dtype=np.float64))


def _to_long(whole: Elementwise) -> Elementwise:
    return lambda x: to_integer(whole(flush(x)), 64, True)


def _truth(condition: Elementwise) -> Elementwise:
    return lambda x: condition(x).to(torch.int32)


def _of_halves(high: Tensor, low: Tensor) -> Tensor:
    return (high.to(torch.int64) << 32 | unsigned(low)).view(torch.float64)


def _view(dtype: torch.dtype) -> Elementwise:
    return lambda x: x.view(dtype)


def _reciprocal_of_high(value: Tensor) -> Tensor:
    """Return ``rcp.approx.ftz.f64``, from upper word to upper word; here the exact reciprocal, truncated."""
    high = (value.view(torch.int64) & -(2**32)).view(torch.float64)
    tiny = 2.0**-1022
    high = torch.where(high.abs() < tiny, high * 0, high)
    result = 1 / high
    result = torch.where(result.abs() < tiny, result * 0, result)
    return (result.view(torch.int64) & -(2**32)).view(torch.float64)


_UNARY: dict[str, Elementwise] = {
    "fabs": lambda x: flush(x).abs(),
    "floor": lambda x: torch.floor(flush(x)),
    "ceil": lambda x: torch.ceil(flush(x)),
    "trunc": torch.trunc,
    "rint": torch.round,
    "nearbyint": torch.round,
    "round": _round,
    "logb": _exponent_float,
}
_BINARY: dict[str, Elementwise] = {
    "copysign": torch.copysign,
    "fmax": lambda a, b: fmax(flush(a), flush(b)),
    "fmin": lambda a, b: fmin(flush(a), flush(b)),
    "fdim": _positive_difference,
    "nextafter": _next_after,
    "fmod": lambda a, b: flush(in_double(partial(each, math.fmod))(flush(a), flush(b))),
    "remainder": lambda a, b: flush(in_double(partial(each, math.remainder))(flush(a), flush(b))),
}
_OF_EITHER: dict[str, tuple[str, str, Elementwise]] = {
    # float32 symbol, float64 symbol, function to i32
    "isnan": ("isnanf", "isnand", _truth(torch.isnan)),
    "isinf": ("isinff", "isinfd", _truth(torch.isinf)),
    "isfinite": ("finitef", "isfinited", _truth(torch.isfinite)),
    "signbit": ("signbitf", "signbitd", _truth(torch.signbit)),
    "ilogb": ("ilogbf", "ilogb", _exponent_integer),
}
_SCALED = ("ldexp", "scalbn")
_CASTS: dict[str, tuple[str, str, Elementwise]] = {
    "int_as_float": ("i32", "f32", _view(torch.float32)),
    "uint_as_float": ("i32", "f32", _view(torch.float32)),
    "float_as_int": ("f32", "i32", _view(torch.int32)),
    "float_as_uint": ("f32", "i32", _view(torch.int32)),
    "longlong_as_double": ("i64", "f64", _view(torch.float64)),
    "double_as_longlong": ("f64", "i64", _view(torch.int64)),
    "double2loint": ("f64", "i32", lambda x: x.view(torch.int64).to(torch.int32)),
    "double2hiint": ("f64", "i32", lambda x: (x.view(torch.int64) >> 32).to(torch.int32)),
    "llrintf": ("f32", "i64", _to_long(torch.round)),
    "llrint": ("f64", "i64", _to_long(torch.round)),
    "llroundf": ("f32", "i64", _to_long(_round)),
    "llround": ("f64", "i64", _to_long(_round)),
    "saturatef": ("f32", "f32", _saturate),
    "rcp64h": ("f64", "f64", _reciprocal_of_high),
}
PART_FUNCTIONS: dict[str, LibdeviceFunction] = (
    both_widths(_UNARY, 1)
    | both_widths(_BINARY, 2)
    | both_widths({"fma": lambda a, b, c: flush(rounding.fused(flush(a), flush(b), flush(c)))}, 3)
    | {single: LibdeviceFunction(("f32",), "i32", function) for single, _, function in _OF_EITHER.values()}
    | {double: LibdeviceFunction(("f64",), "i32", function) for _, double, function in _OF_EITHER.values()}
    | {name + "f": LibdeviceFunction(("f32", "i32"), "f32", _load_exponent) for name in _SCALED}
    | {name: LibdeviceFunction(("f64", "i32"), "f64", _load_exponent) for name in _SCALED}
    | {name: LibdeviceFunction((source,), target, function) for name, (source, target, function) in _CASTS.items()}
    | {"hiloint2double": LibdeviceFunction(("i32", "i32"), "f64", _of_halves)}
)
