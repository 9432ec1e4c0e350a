"""Arithmetic and conversions with a rounding mode: to nearest (``rn``), toward zero, down or up."""

from collections.abc import Callable
from functools import partial

import torch

from avo.evaluator.executor.operations import rounding
from avo.evaluator.executor.operations.casts import from_integer, from_unsigned, integer_to_odd, to_integer
from avo.evaluator.executor.operations.floats import flush
from avo.evaluator.executor.operations.integers import unsigned
from avo.evaluator.executor.operations.libdevice.signature import LibdeviceFunction
from avo.evaluator.executor.operations.registry import Elementwise

Tensor = torch.Tensor

MODES = ("rn", "rz", "rd", "ru")

_WHOLE: dict[str, Elementwise] = {"rn": torch.round, "rz": torch.trunc, "rd": torch.floor, "ru": torch.ceil}
"""Functions that round to whole numbers, by rounding mode."""

_ARITHMETIC: dict[str, tuple[int, Callable[..., Tensor]]] = {
    "add": (2, rounding.add),
    "sub": (2, lambda a, b, mode: rounding.add(a, -b, mode)),
    "mul": (2, rounding.multiply),
    "div": (2, rounding.divide),
    "rcp": (1, lambda a, mode: rounding.divide(torch.ones_like(a), a, mode)),
    "sqrt": (1, rounding.root),
}
"""Number of operands, and the function of the operands and a mode."""


def _flushed(function: Callable[..., Tensor], mode: str) -> Elementwise:
    """Return a function that flushes operands and result if they are float32."""
    return lambda *operands: flush(function(*map(flush, operands), mode))


def _arithmetic(mode: str) -> dict[str, LibdeviceFunction]:
    functions: dict[str, LibdeviceFunction] = {}
    for prefix, element in (("f", "f32"), ("d", "f64")):
        for name, (arity, function) in _ARITHMETIC.items():
            functions[f"{prefix}{name}_{mode}"] = LibdeviceFunction(
                (element,) * arity, element, _flushed(function, mode)
            )
    functions[f"fmaf_{mode}"] = LibdeviceFunction(("f32",) * 3, "f32", _flushed(rounding.fused, mode))
    functions[f"fma_{mode}"] = LibdeviceFunction(("f64",) * 3, "f64", _flushed(rounding.fused, mode))
    return functions


def _to_integer(value: Tensor, bits: int, is_signed: bool, mode: str) -> Tensor:
    result = to_integer(_WHOLE[mode](flush(value)), bits, is_signed)
    return result.to(torch.int32) if bits == 32 else result


def _from_integer(value: Tensor, dtype: torch.dtype, is_signed: bool, mode: str) -> Tensor:
    """Round integers to float through a float64 that is exact or rounded to odd, and its error."""
    if mode == "rn":
        return from_integer(value, dtype) if is_signed else from_unsigned(value, dtype)
    if value.dtype == torch.int32:
        exact = (value if is_signed else unsigned(value)).to(torch.float64)
        return _round(exact, dtype, mode)
    if is_signed:
        return _from_long(value, dtype, mode)
    half = _from_long((value >> 1 & (1 << 63) - 1) | value & 1, dtype, mode) * 2
    return torch.where(value >= 0, _from_long(value, dtype, mode), half)


def _from_long(value: Tensor, dtype: torch.dtype, mode: str) -> Tensor:
    if dtype == torch.float32:
        return _round(integer_to_odd(value), dtype, mode)
    nearest = value.to(torch.float64)
    back = nearest.clamp(max=2.0**63 - 1024).to(torch.int64)
    error = torch.where(nearest >= 2.0**63, -1, value - back)
    return rounding.directed(nearest, error.to(torch.float64), mode)


def _round(exact: Tensor, dtype: torch.dtype, mode: str) -> Tensor:
    nearest = exact.to(dtype)
    return rounding.directed(nearest, exact - nearest.double(), mode)


_FLOATS = {"float": "f32", "double": "f64"}
_INTEGERS = {"int": (32, True), "uint": (32, False), "ll": (64, True), "ull": (64, False)}
_DTYPES = {"f32": torch.float32, "f64": torch.float64}


def _conversions(mode: str) -> dict[str, LibdeviceFunction]:
    functions = {f"double2float_{mode}": LibdeviceFunction(("f64",), "f32", lambda x: _round(x, torch.float32, mode))}
    for float_name, element in _FLOATS.items():
        for name, (bits, is_signed) in _INTEGERS.items():
            to = partial(_to_integer, bits=bits, is_signed=is_signed, mode=mode)
            functions[f"{float_name}2{name}_{mode}"] = LibdeviceFunction((element,), f"i{bits}", to)
            if (float_name, bits) != ("double", 32) or mode == "rn":
                of = partial(_from_integer, dtype=_DTYPES[element], is_signed=is_signed, mode=mode)
                functions[f"{name}2{float_name}_{mode}"] = LibdeviceFunction((f"i{bits}",), element, of)
    return functions


ROUNDED_FUNCTIONS: dict[str, LibdeviceFunction] = {
    name: function for mode in MODES for name, function in (_arithmetic(mode) | _conversions(mode)).items()
}
