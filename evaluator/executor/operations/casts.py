"""Conversions between types, each rounded once, with the hardware's saturation.

They follow PTX for sm_90 and later; older targets convert between 16-bit floats and from integers to bfloat16 through
float32. Conversions that NVIDIA's back end does not compile, such as float64 to 8 bits, are unsupported.
"""

import torch

from avo.evaluator.executor.dtypes import DTYPES, RAW
from avo.evaluator.executor.errors import UnsupportedOperation
from avo.evaluator.executor.ir import BITS, Op
from avo.evaluator.executor.operations.integers import signed, unsigned
from avo.evaluator.executor.operations.operands import FLOATS, INTEGERS, SHORT_FLOATS, one_element
from avo.evaluator.executor.operations.registry import Elementwise, Types, check_variant, elementwise
from avo.evaluator.executor.operations.rounding import narrow, to_odd

Tensor = torch.Tensor

_TOWARD_ZERO = frozenset((("f32", "f16"), ("f32", "bf16"), ("f32", "f8E5M2")))
"""The conversions that the back end supports with ``rtz``."""


def to_float(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Round to nearest even; to 8 bits with saturation of all but NaN, as ``cvt.rn.satfinite`` does."""
    if dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        limit = torch.finfo(dtype).max
        return value.to(torch.float32).clamp(-limit, limit).to(dtype)
    return narrow(value, dtype) if value.dtype == torch.float64 and dtype != torch.float64 else value.to(dtype)


def toward_zero(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Round float32 toward zero: step back by one unit where rounding to nearest went past the value."""
    nearest = to_float(value, dtype)
    past = nearest.to(value.dtype).abs() > value.abs()
    raw = RAW[nearest.element_size()]
    result = (nearest.view(raw) - past.to(raw)).view(dtype)
    if dtype == torch.float8_e5m2:
        # Truncates float16, which keeps infinities.
        infinity = torch.copysign(torch.full_like(value, float("inf")), value).to(torch.float16).view(torch.int16) >> 8
        return torch.where(torch.isinf(value), infinity.to(torch.int8), result.view(torch.int8)).view(dtype)
    return result


def round_tf32(value: Tensor) -> Tensor:
    """Round float32 to the 10 mantissa bits of tf32, to nearest with ties away from zero (``cvt.rna.tf32``)."""
    bits = (value.view(torch.int32) + 0x1000) & ~0x1FFF
    return torch.where(torch.isfinite(value), bits.view(torch.float32), value)


def nearest_tf32(value: Tensor) -> Tensor:
    """Round float32 to the 10 mantissa bits of tf32, to nearest with ties to even."""
    bits = value.view(torch.int32)
    rounded = (bits + (0xFFF + ((bits >> 13) & 1))) & ~0x1FFF
    return torch.where(torch.isfinite(value), rounded.view(torch.float32), value)


@elementwise("arith.extf", "arith.truncf", "tt.fp_to_fp")
def _float_to_float(op: Op, types: Types) -> Elementwise:
    check_variant(op, ["to_nearest_even"], ["rounding"])
    source, target = types[op.operands[0]].element, types[op.results[0]].element
    dtype = DTYPES.get(target)
    short = {source, target} & SHORT_FLOATS
    if (
        dtype is None
        or source == target
        or not {source, target} <= FLOATS | SHORT_FLOATS
        or (short and (op.name != "tt.fp_to_fp" or "f64" in (source, target) or len(short) == 2))
    ):
        raise UnsupportedOperation(f"{op.name} from {source} to {target}", op.location)
    rounding = op.attributes.get("rounding", "rtne")
    if rounding == "rtz" and (source, target) in _TOWARD_ZERO:
        return lambda x: toward_zero(x, dtype)
    if rounding != "rtne":
        raise UnsupportedOperation(f"{op.name} from {source} to {target} with rounding {rounding}", op.location)
    return lambda x: to_float(x, dtype)


def from_integer(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Round signed integers to a float."""
    if value.dtype == torch.bool:
        return signed(value).to(dtype)
    if dtype in (torch.float32, torch.float64) or value.element_size() < 4:
        return value.to(dtype)
    return narrow(integer_to_odd(value), dtype)


def from_unsigned(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Round unsigned integers to a float."""
    if value.dtype == torch.int64:
        # Halve with the lost bit kept, so that the one rounding is that of the full value.
        half = from_integer((value >> 1 & (1 << 63) - 1) | value & 1, dtype) * 2
        return torch.where(value >= 0, from_integer(value, dtype), half)
    return from_integer(unsigned(value), dtype)


def integer_to_odd(value: Tensor) -> Tensor:
    """Round integers to float64, to odd."""
    nearest = value.to(torch.float64)
    back = nearest.clamp(max=2.0**63 - 1024).to(torch.int64)
    error = torch.where(nearest >= 2.0**63, -1, value.to(torch.int64) - back)
    return to_odd(nearest, error.to(torch.float64))


@elementwise("arith.sitofp", "arith.uitofp")
def _integer_to_float(op: Op, types: Types) -> Elementwise:
    check_variant(op)
    one_element(op, types, INTEGERS, op.operands)
    dtype = DTYPES[one_element(op, types, FLOATS, op.results)]
    if op.name == "arith.sitofp":
        return lambda x: from_integer(x, dtype)
    return lambda x: from_unsigned(x, dtype)


@elementwise("arith.extsi", "arith.extui", "arith.trunci", "arith.index_cast")
def _integer_to_integer(op: Op, types: Types) -> Elementwise:
    check_variant(op)
    one_element(op, types, INTEGERS, op.operands)
    element = one_element(op, types, INTEGERS, op.results)
    dtype = DTYPES[element]
    if element == "i1":
        return lambda x: (x & 1) != 0
    read = unsigned if op.name == "arith.extui" else signed
    return lambda x: read(x).to(dtype)


def to_integer(value: Tensor, bits: int, is_signed: bool) -> Tensor:
    """Convert floats that are whole numbers as ``cvt`` does: values beyond the range become the nearest in it.

    NaN becomes 0; from float64, or to 64 bits, the integer whose uppermost bit alone is set (PTX ISA, cvt).
    Returns int64, wrapped if the number is greater than that.
    """
    least = -(2 ** (bits - 1)) if is_signed else 0
    most = 2 ** (bits - 1) - 1 if is_signed else 2**bits - 1
    nan = -(2 ** (bits - 1)) if value.dtype == torch.float64 or bits == 64 else 0
    missing, wide = torch.isnan(value), value.to(torch.float64)
    if bits < 64:
        result = wide.nan_to_num(0.0).clamp(least, most).to(torch.int64)
    else:
        half = 2.0**63
        low = wide.nan_to_num(0.0).clamp(least, half - 1024).to(torch.int64)
        beyond = torch.full_like(low, 2**63 - 1)
        if not is_signed:
            beyond = (wide - half).nan_to_num(0.0).clamp(0, half - 1024).to(torch.int64) ^ -(2**63)
            beyond = torch.where(wide >= 2 * half, -1, beyond)
        result = torch.where(wide >= half, beyond, low)
    return torch.where(missing, nan, result)


@elementwise("arith.fptosi", "arith.fptoui")
def _float_to_integer(op: Op, types: Types) -> Elementwise:
    """Round toward zero. Conversions to 8 bits go through 16, whose upper half is dropped, as LLVM lowers them."""
    check_variant(op)
    one_element(op, types, FLOATS, op.operands)
    element = one_element(op, types, INTEGERS - {"i1"}, op.results)
    bits, dtype = max(BITS[element], 16), DTYPES[element]
    return lambda x: to_integer(x.trunc(), bits, op.name == "arith.fptosi").to(dtype)


@elementwise("tt.bitcast", "arith.bitcast")
def _bitcast(op: Op, types: Types) -> Elementwise:
    check_variant(op)
    source, target = types[op.operands[0]].element, types[op.results[0]].element
    if source == target and source in DTYPES:
        return lambda x: x
    if BITS[source] != BITS[target] or not {source, target} <= DTYPES.keys() - {"i1"} or "ptr" in (source, target):
        raise UnsupportedOperation(f"{op.name} from {source} to {target}", op.location)
    return lambda x: x.view(DTYPES[target])


@elementwise("tt.ptr_to_int", "tt.int_to_ptr")
def _pointer(op: Op, types: Types) -> Elementwise:
    check_variant(op)
    elements = types[op.operands[0]].element, types[op.results[0]].element
    if elements != (("ptr", "i64") if op.name == "tt.ptr_to_int" else ("i64", "ptr")):
        raise UnsupportedOperation(f"{op.name} from {elements[0]} to {elements[1]}", op.location)
    return lambda x: x
