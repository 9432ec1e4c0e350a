"""Bits and integers."""

import torch

from avo.evaluator.executor.operations.integers import high_product, unsigned
from avo.evaluator.executor.operations.libdevice.signature import LibdeviceFunction
from avo.evaluator.executor.operations.registry import Elementwise

Tensor = torch.Tensor


def _bits(value: Tensor) -> int:
    return value.element_size() * 8


def _shift_right(value: Tensor, count: int) -> Tensor:
    """Shift right, filling with zeros."""
    return value >> count & (1 << (_bits(value) - count)) - 1


def count_leading_zeros(value: Tensor) -> Tensor:
    """Return the number of zeros above the uppermost set bit; the number of all bits for 0."""
    below = value
    for count in (1, 2, 4, 8, 16, 32)[: _bits(value).bit_length() - 1]:
        below = below | _shift_right(below, count)
    return _bits(value) - population_count(below)


def population_count(value: Tensor) -> Tensor:
    """Return the number of set bits, as int32."""
    total = torch.zeros_like(value)
    for bit in range(_bits(value)):
        total = total + (value >> bit & 1)
    return total.to(torch.int32)


def _reverse(value: Tensor) -> Tensor:
    result = torch.zeros_like(value)
    for bit in range(_bits(value)):
        result = result << 1 | value >> bit & 1
    return result


def _find_first_set(value: Tensor) -> Tensor:
    """Return the position of the lowest set bit, counted from 1; 0 for 0."""
    return _bits(value) - count_leading_zeros(value & -value)


def byte_permute(low: Tensor, high: Tensor, selector: Tensor) -> Tensor:
    """Return the 4 bytes that the lower 3 bits of the selector's nibbles pick out of 8 (``prmt.b32`` without signs)."""
    pool = unsigned(low) | high.to(torch.int64) << 32
    result = torch.zeros_like(pool)
    for place in range(4):
        chosen = (selector.to(torch.int64) >> 4 * place & 7) * 8
        result = result | (pool >> chosen & 0xFF) << 8 * place
    return result.to(torch.int32)


def _multiply_high(a: Tensor, b: Tensor) -> Tensor:
    """Return the upper half of signed products; the unsigned product takes a negative factor as 2**bits too large."""
    return high_product(a, b) - torch.where(a < 0, b, 0) - torch.where(b < 0, a, 0)


def _low_24(value: Tensor) -> Tensor:
    return value & 0xFFFFFF


def _absolute_difference(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return ((a.to(torch.int64) - b.to(torch.int64)).abs() + c).to(torch.int32)


def _unsigned_absolute_difference(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return ((unsigned(a) - unsigned(b)).abs() + c).to(torch.int32)


def _mean(read: Elementwise, more: int) -> Elementwise:
    return lambda a, b: ((read(a) + read(b) + more) >> 1).to(torch.int32)


def _signed(value: Tensor) -> Tensor:
    return value.to(torch.int64)


_UNARY: dict[str, tuple[str, str, Elementwise]] = {
    "clz": ("i32", "i32", count_leading_zeros),
    "clzll": ("i64", "i32", count_leading_zeros),
    "popc": ("i32", "i32", population_count),
    "popcll": ("i64", "i32", population_count),
    "brev": ("i32", "i32", _reverse),
    "brevll": ("i64", "i64", _reverse),
    "ffs": ("i32", "i32", _find_first_set),
    "ffsll": ("i64", "i32", _find_first_set),
    "abs": ("i32", "i32", torch.abs),
    "llabs": ("i64", "i64", torch.abs),
}
_BINARY: dict[str, tuple[str, Elementwise]] = {
    "mulhi": ("i32", _multiply_high),
    "umulhi": ("i32", high_product),
    "mul64hi": ("i64", _multiply_high),
    "umul64hi": ("i64", high_product),
    "mul24": ("i32", lambda a, b: (_low_24(a) << 8 >> 8) * (_low_24(b) << 8 >> 8)),
    "umul24": ("i32", lambda a, b: _low_24(a) * _low_24(b)),
    "hadd": ("i32", _mean(_signed, 0)),
    "rhadd": ("i32", _mean(_signed, 1)),
    "uhadd": ("i32", _mean(unsigned, 0)),
    "urhadd": ("i32", _mean(unsigned, 1)),
}
INTEGER_FUNCTIONS: dict[str, LibdeviceFunction] = (
    {name: LibdeviceFunction((source,), target, function) for name, (source, target, function) in _UNARY.items()}
    | {name: LibdeviceFunction((element,) * 2, element, function) for name, (element, function) in _BINARY.items()}
    | {
        "byte_perm": LibdeviceFunction(("i32",) * 3, "i32", byte_permute),
        "sad": LibdeviceFunction(("i32",) * 3, "i32", _absolute_difference),
        "usad": LibdeviceFunction(("i32",) * 3, "i32", _unsigned_absolute_difference),
    }
)
