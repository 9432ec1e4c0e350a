"""Integer arithmetic wraps around; operations, not types, are signed or unsigned, and say which way they round."""

import math
from collections.abc import Callable

import numpy as np
import torch

from avo.evaluator.executor.errors import UnsupportedOperation
from avo.evaluator.executor.ir import BITS, Op
from avo.evaluator.executor.operations.operands import INTEGERS, one_element
from avo.evaluator.executor.operations.registry import COMPARE, Elementwise, Types, check_variant, elementwise
from avo.evaluator.executor.space import all_true

Tensor = torch.Tensor


def unsigned(value: Tensor) -> Tensor:
    """Return integers of up to 32 bits, read as unsigned, as int64."""
    if value.dtype == torch.bool:
        return value.to(torch.int64)
    bits = value.element_size() * 8
    return value.to(torch.int64) & ((1 << bits) - 1)


def signed(value: Tensor) -> Tensor:
    """Return integers as int64; a set ``i1`` is -1."""
    return -value.to(torch.int64) if value.dtype == torch.bool else value.to(torch.int64)


def _on_uint64(function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Elementwise:
    def apply(a: Tensor, b: Tensor) -> Tensor:
        result = function(a.contiguous().numpy().view(np.uint64), b.contiguous().numpy().view(np.uint64))
        return torch.from_numpy(np.ascontiguousarray(result).view(np.int64))

    return apply


def truncated_division(a: Tensor, b: Tensor) -> Tensor:
    """Divide int64 toward zero. Division by zero gives -1, the hardware's all ones; the least integer over -1 wraps."""
    if bool((b > 0).all()):
        return torch.div(a, b, rounding_mode="trunc")
    simple = torch.where((b == 0) | (b == -1), 1, b)
    quotient = torch.div(a, simple, rounding_mode="trunc")
    return torch.where(b == 0, -1, torch.where(b == -1, -a, quotient))


def _division(kind: str, bits: int) -> Elementwise:
    if kind.endswith("ui") and bits == 64:
        nonzero = {
            "divui": lambda a, b: np.where(b == 0, np.uint64(2**64 - 1), a // np.where(b == 0, np.uint64(1), b)),
            "remui": lambda a, b: np.where(b == 0, a, a % np.where(b == 0, np.uint64(1), b)),
        }
        return _on_uint64(nonzero[kind])
    read = unsigned if kind.endswith("ui") else signed

    def divide(a: Tensor, b: Tensor) -> Tensor:
        x, y = read(a), read(b)
        quotient = truncated_division(x, y)
        return (quotient if kind.startswith("div") else x - quotient * y).to(a.dtype)

    return divide


@elementwise("arith.divsi", "arith.divui", "arith.remsi", "arith.remui")
def _divide(op: Op, types: Types) -> Elementwise:
    check_variant(op)
    return _division(op.name.removeprefix("arith."), BITS[one_element(op, types, INTEGERS)])


def _up(a: Tensor, b: Tensor) -> Tensor:
    quotient = _division("divsi", a.element_size() * 8)(a, b)
    return quotient + ((quotient * b != a) & ((a < 0) == (b < 0)))


def _up_unsigned(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(a == 0, 0, _division("divui", a.element_size() * 8)(a - 1, b) + 1)


def _down(a: Tensor, b: Tensor) -> Tensor:
    quotient = _division("divsi", a.element_size() * 8)(a, b)
    return quotient - ((quotient * b != a) & ((a < 0) != (b < 0))).to(a.dtype)


_ROUNDED: dict[str, Elementwise] = {"arith.ceildivsi": _up, "arith.ceildivui": _up_unsigned, "arith.floordivsi": _down}
"""Divisions that do not round toward zero, made of those that do as in MLIR (populateCeilFloorDivExpandOpsPatterns)."""


@elementwise(*_ROUNDED)
def _divide_rounded(op: Op, types: Types) -> Elementwise:
    check_variant(op)
    one_element(op, types, INTEGERS - {"i1"})
    return _ROUNDED[op.name]


@elementwise("arith.shrui", "arith.shrsi", "arith.shli")
def _shift(op: Op, types: Types) -> Elementwise:
    check_variant(op)
    bits = BITS[one_element(op, types, INTEGERS)]

    def shift(a: Tensor, b: Tensor) -> Tensor:
        amount = unsigned(b) if bits < 64 else b
        amount = torch.where((amount < 0) | (amount >= bits), bits, amount)
        if op.name == "arith.shrsi":
            return (signed(a) >> amount.clamp(max=63)).to(a.dtype)
        value = unsigned(a) if bits < 64 else a
        inside = amount.clamp(max=63)
        if op.name == "arith.shli":
            return torch.where(amount >= bits, 0, value << inside).to(a.dtype)
        shifted = value >> inside
        if bits == 64:
            keep = torch.where(inside == 0, -1, (1 << (64 - inside).clamp(max=63)) - 1)
            shifted = shifted & keep
        return torch.where(amount >= bits, 0, shifted).to(a.dtype)

    return shift


_MANY, _FEWER = 2**16, 64


def _and(a: Tensor, b: Tensor) -> Tensor:
    """Return a & b. If two masks broadcast to a large one, the smaller is often true everywhere; then the other is
    returned unexpanded.
    """
    if a.dtype == torch.bool:
        elements = math.prod(map(max, a.shape, b.shape))
        for one, other in ((a, b), (b, a)):
            if elements >= max(_MANY, _FEWER * one.numel()) and all_true(one):
                return other
    return torch.bitwise_and(a, b)


_BIT_OPERATIONS: dict[str, Elementwise] = {
    "arith.andi": _and,
    "arith.ori": torch.bitwise_or,
    "arith.xori": torch.bitwise_xor,
}
_INTEGER: dict[str, tuple[Elementwise, Elementwise]] = {
    "arith.addi": (torch.add, torch.bitwise_xor),
    "arith.subi": (torch.sub, torch.bitwise_xor),
    "arith.muli": (torch.mul, torch.bitwise_and),
    "arith.maxsi": (torch.maximum, torch.bitwise_and),
    "arith.minsi": (torch.minimum, torch.bitwise_or),
}
"""Each operation on integers, and on ``i1``, whose values are 0 and -1."""


@elementwise(*_BIT_OPERATIONS)
def _bits(op: Op, types: Types) -> Elementwise:
    check_variant(op)
    one_element(op, types, INTEGERS)
    return _BIT_OPERATIONS[op.name]


@elementwise(*_INTEGER)
def _integer(op: Op, types: Types) -> Elementwise:
    check_variant(op)
    on_integers, on_bits = _INTEGER[op.name]
    return on_bits if one_element(op, types, INTEGERS) == "i1" else on_integers


@elementwise("math.absi")
def _absi(op: Op, types: Types) -> Elementwise:
    check_variant(op)
    one_element(op, types, INTEGERS - {"i1"})
    return torch.abs


@elementwise("arith.maxui", "arith.minui")
def _unsigned_extreme(op: Op, types: Types) -> Elementwise:
    check_variant(op)
    one_element(op, types, INTEGERS)
    largest = op.name == "arith.maxui"

    def pick(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(_ordered(a) > _ordered(b) if largest else _ordered(a) < _ordered(b), a, b)

    return pick


def _ordered(value: Tensor) -> Tensor:
    """Map unsigned integers to signed ones in the same order."""
    return value.to(torch.int8) if value.dtype == torch.bool else value ^ torch.iinfo(value.dtype).min


@elementwise("arith.cmpi")
def _cmpi(op: Op, types: Types) -> Elementwise:
    predicate = op.words[0] if op.words else ""
    check_variant(op, [predicate])
    element = one_element(op, types, INTEGERS, op.operands)
    if predicate in ("eq", "ne"):
        return COMPARE[predicate]
    compare = COMPARE.get(predicate[1:])
    if compare is None or predicate[0] not in "su":
        raise UnsupportedOperation(f"arith.cmpi with {predicate}", op.location)
    if predicate[0] == "s":
        if element == "i1":
            return lambda a, b: compare(signed(a), signed(b))
        return compare
    return lambda a, b: compare(_ordered(a), _ordered(b))


@elementwise("tt.mulhiui")
def _mulhiui(op: Op, types: Types) -> Elementwise:
    check_variant(op)
    one_element(op, types, ("i32", "i64"))
    return high_product


def high_product(a: Tensor, b: Tensor) -> Tensor:
    """Return the upper half of the products of int32 or int64, read as unsigned."""
    if a.dtype == torch.int64:
        return _on_uint64(_high_product)(a, b)
    return ((unsigned(a) * unsigned(b)) >> 32).to(torch.int32)


def _high_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the high 64 bits of the products of uint64, computed by 32-bit halves."""
    half, low = np.uint64(32), np.uint64(2**32 - 1)
    middle = (a >> half) * (b & low) + ((a & low) * (b & low) >> half)
    other = (a & low) * (b >> half) + (middle & low)
    result: np.ndarray = (a >> half) * (b >> half) + (middle >> half) + (other >> half)
    return result
