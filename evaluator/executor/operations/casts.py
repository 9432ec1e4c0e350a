"""Conversions between types, with the hardware's rounding and saturation, and constants."""

import re

import torch

from evaluator.executor.errors import IRError, UnsupportedOperation
from evaluator.executor.frame import Frame, Step
from evaluator.executor.ir import BITS, Op, Type
from evaluator.executor.operations.integers import signed, unsigned
from evaluator.executor.operations.registry import Elementwise, Types, check_variant, elementwise, step
from evaluator.executor.values import DTYPES, RAW

Tensor = torch.Tensor


def to_float(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Round to nearest even; to 8 bits with saturation of all but NaN, as ``cvt.rn.satfinite`` does."""
    if dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        limit = torch.finfo(dtype).max
        return value.to(torch.float32).clamp(-limit, limit).to(dtype)
    return value.to(dtype)


def toward_zero(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Round toward zero: step back by one unit where rounding to nearest went past the value."""
    nearest = to_float(value, dtype)
    past = nearest.to(value.dtype).abs() > value.abs()
    raw = RAW[nearest.element_size()]
    return (nearest.view(raw) - past.to(raw)).view(dtype)


def round_tf32(value: Tensor) -> Tensor:
    """Round float32 to the 10 mantissa bits of tf32, to nearest with ties away from zero (``cvt.rna.tf32``)."""
    bits = (value.view(torch.int32) + 0x1000) & ~0x1FFF
    return torch.where(torch.isfinite(value), bits.view(torch.float32), value)


@elementwise("arith.extf", "arith.truncf", "tt.fp_to_fp")
def _float_to_float(op: Op, types: Types) -> Elementwise:
    check_variant(op, ["to_nearest_even"], ["rounding"])
    dtype = DTYPES[types[op.results[0]].element]
    rounding = op.attributes.get("rounding", "rtne")
    if rounding == "rtz":
        return lambda x: toward_zero(x, dtype)
    if rounding != "rtne":
        raise UnsupportedOperation(f"{op.name} with rounding {rounding}", op.location)
    return lambda x: to_float(x, dtype)


@elementwise("arith.extsi", "arith.sitofp")
def _from_signed(op: Op, types: Types) -> Elementwise:
    check_variant(op)
    dtype = DTYPES[types[op.results[0]].element]
    if types[op.operands[0]].element == "i1":
        return lambda x: signed(x).to(dtype)
    return lambda x: x.to(dtype)


@elementwise("arith.extui", "arith.uitofp")
def _from_unsigned(op: Op, types: Types) -> Elementwise:
    check_variant(op)
    dtype = DTYPES[types[op.results[0]].element]
    source = types[op.operands[0]].element
    if source == "i64":
        # Halve with the lost bit kept sticky, so that the one rounding is that of the full value.
        return lambda x: torch.where(x >= 0, x.to(dtype), ((x >> 1 & (1 << 63) - 1) | x & 1).to(dtype) * 2)
    if source == "i1":
        return lambda x: x.to(dtype)
    return lambda x: unsigned(x).to(dtype)


@elementwise("arith.trunci")
def _truncate(op: Op, types: Types) -> Elementwise:
    check_variant(op)
    element = types[op.results[0]].element
    if element == "i1":
        return lambda x: (x & 1) != 0
    return lambda x: x.to(DTYPES[element])


@elementwise("arith.fptosi", "arith.fptoui")
def _float_to_integer(op: Op, types: Types) -> Elementwise:
    """Toward zero; beyond the range saturates and NaN gives 0, as PTX's ``cvt.rzi`` does."""
    check_variant(op)
    element = types[op.results[0]].element
    bits = BITS[element]
    is_signed = op.name == "arith.fptosi"
    dtype = DTYPES[element]
    if element == "i1":
        return lambda x: x.trunc() != 0
    if bits == 64 and not is_signed:
        two63 = 2.0**63

        def convert(x: Tensor) -> Tensor:
            value = torch.nan_to_num(x.double(), nan=0.0, posinf=2.0**64, neginf=0.0)
            low = value.clamp(0, two63).where(value < two63, 0.0).to(torch.int64)
            high = (value - two63).clamp(0, two63 - 1024).to(torch.int64) ^ torch.iinfo(torch.int64).min
            result = torch.where(value < two63, low, high)
            return torch.where(value >= 2.0**64, -1, result)

        return convert
    least = -(2 ** (bits - 1)) if is_signed else 0
    most = 2 ** (bits - 1) - 1 if is_signed else 2**bits - 1

    def saturate(x: Tensor) -> Tensor:
        value = torch.nan_to_num(x.double(), nan=0.0, posinf=float(most), neginf=float(least))
        if bits == 64:
            return torch.where(value >= 2.0**63, most, value.clamp(-(2.0**63), 2.0**63 - 1024).to(torch.int64))
        return value.clamp(least, most).to(torch.int64).to(dtype)

    return saturate


@elementwise("tt.bitcast", "arith.bitcast")
def _bitcast(op: Op, types: Types) -> Elementwise:
    check_variant(op)
    source, target = types[op.operands[0]], types[op.results[0]]
    if BITS[source.element] != BITS[target.element] or "i1" in (source.element, target.element):
        if source.element == target.element:
            return lambda x: x
        raise UnsupportedOperation(f"{op.name} from {source} to {target}", op.location)
    return lambda x: x.view(DTYPES[target.element])


@elementwise("tt.ptr_to_int", "tt.int_to_ptr", "arith.index_cast")
def _reinterpret(op: Op, types: Types) -> Elementwise:
    check_variant(op)
    dtype = DTYPES[types[op.results[0]].element]
    return lambda x: x.to(dtype)


_HEX = re.compile(r"-?0x[0-9A-Fa-f]+")


def literal(text: str, kind: Type) -> Tensor:
    """Return a number as printed in the IR, e.g. ``-1``, ``true``, ``1.5e+00`` or ``0xFF800000``, as a tensor [1]."""
    dtype = DTYPES[kind.element]
    try:
        if kind.element == "i1":
            return torch.tensor([{"true": True, "false": False, "1": True, "-1": True, "0": False}[text]])
        if not kind.floating:
            value = int(text, 0)
            bits = BITS[kind.element]
            return torch.tensor([(value + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)], dtype=dtype)
        if _HEX.fullmatch(text):
            bits = BITS[kind.element]
            value = int(text, 16)
            value -= 2**bits if value >= 2 ** (bits - 1) else 0
            return torch.tensor([value], dtype=RAW[bits // 8]).view(dtype)
        return torch.tensor([float(text)], dtype=torch.float64).to(dtype)
    except (ValueError, KeyError, OverflowError, RuntimeError):
        raise IRError(f"cannot read the constant {text[:60]!r} of type {kind}") from None


def constant(op: Op, types: Types) -> Tensor:
    """Return the value of an ``arith.constant``: [1] for a scalar, [1, 1, ...] for a block of equal elements."""
    check_variant(op, words=op.words)
    kind = types[op.results[0]]
    if len(op.words) != 1 or kind.element in ("ptr", "descriptor"):
        raise UnsupportedOperation(f"arith.constant {' '.join(op.words)[:60]}", op.location)
    text = op.words[0]
    if not kind.shape:
        return literal(text, kind)
    text = text.removeprefix("dense<").removesuffix(">")
    if text.startswith(("[", '"')):
        raise UnsupportedOperation("arith.constant with different elements", op.location)
    return literal(text, Type(kind.element)).view((1,) * (1 + len(kind.shape)))


@step("arith.constant")
def _constant(op: Op, types: Types) -> Step:
    value = constant(op, types)
    result = op.results[0]

    def run(frame: Frame) -> None:
        frame.slots[result] = value

    return run
