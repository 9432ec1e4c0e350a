"""Arithmetic with a single rounding, in any direction.

Sums and products of floats are split into a rounded value and its exact error (Dekker 1971, Knuth TAOCP 4.2.2). A value
rounded to odd - to the neighbour with an odd significand, unless it is exact - may be rounded again to a format two
bits shorter, and the result is as if it had been rounded once (Boldo & Melquiond, Emulation of FMA and correctly
rounded sums, IEEE Trans. Comput. 57(4), 2008).
"""

import math
from fractions import Fraction

import numpy as np
import torch

Tensor = torch.Tensor

_SPLIT = 2.0**27 + 1
_INTEGER = {torch.float64: torch.int64, torch.float32: torch.int32}


def two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rounded sum and its error; the error is NaN where the sum is not finite."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def two_product(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rounded float64 product and its error, for operands whose product neither over- nor underflows."""
    product = a * b
    high_a, high_b = (x * _SPLIT - (x * _SPLIT - x) for x in (a, b))
    low_a, low_b = a - high_a, b - high_b
    return product, low_a * low_b - (((product - high_a * high_b) - low_a * high_b) - high_a * low_b)


def to_odd(nearest: Tensor, error: Tensor) -> Tensor:
    """Round ``value + error`` to odd, for a value rounded to nearest; only the error's sign matters."""
    bits = nearest.view(_INTEGER[nearest.dtype])
    outward = ((error > 0) == (nearest > 0)) | (nearest == 0)
    moved = torch.where(outward, bits + 1, bits - 1).view(nearest.dtype)
    inexact = (error != 0) & torch.isfinite(error) & torch.isfinite(nearest)
    return torch.where(inexact & (bits & 1 == 0), moved, nearest)


def narrow(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Round float64 to nearest even in one step; torch rounds to float32 first."""
    single = value.to(torch.float32)
    if dtype == torch.float32:
        return single
    return to_odd(single, value - single.double()).to(dtype)


def directed(nearest: Tensor, error: Tensor, mode: str) -> Tensor:
    """Round ``value + error`` by ``mode`` (``rn``, ``rz``, ``rd`` or ``ru``), for a value rounded to nearest."""
    if mode == "rn":
        return nearest
    infinity = torch.full_like(nearest, float("inf"))
    if mode == "ru":
        return torch.where(error > 0, torch.nextafter(nearest, infinity), nearest)
    if mode == "rd":
        return torch.where(error < 0, torch.nextafter(nearest, -infinity), nearest)
    past = ((error < 0) & (nearest > 0)) | ((error > 0) & (nearest < 0))
    return torch.where(past, torch.nextafter(nearest, torch.zeros_like(nearest)), nearest)


def add(a: Tensor, b: Tensor, mode: str) -> Tensor:
    """Return the sum of float32 or float64."""
    if mode == "rd":
        return -add(-a, -b, "ru")  # Rounding down, a sum of exactly zero is -0.
    if a.dtype == torch.float32:
        return _single(to_odd(*two_sum(a.double(), b.double())), mode)
    nearest, error = two_sum(a, b)
    return directed(nearest, _overflow(nearest, error, a, b), mode)


def multiply(a: Tensor, b: Tensor, mode: str) -> Tensor:
    """Return the product of float32 or float64."""
    if a.dtype == torch.float32:
        return _single(a.double() * b.double(), mode)
    (x, p), (y, q) = torch.frexp(a), torch.frexp(b)
    nearest, (high, low) = a * b, two_product(x, y)
    error = (high - scale(nearest, -(p + q))) + low
    return directed(nearest, _overflow(nearest, error, a, b), mode)


def divide(a: Tensor, b: Tensor, mode: str) -> Tensor:
    """Return the quotient of float32 or float64."""
    if a.dtype == torch.float32:
        wide_a, wide_b = a.double(), b.double()
        quotient = wide_a / wide_b
        high, low = two_product(quotient, wide_b)
        return _single(to_odd(quotient, ((wide_a - high) - low) * wide_b.sign()), mode)
    (x, p), (y, q) = torch.frexp(a), torch.frexp(b)
    nearest = a / b
    high, low = two_product(scale(nearest, q - p), y)
    error = ((x - high) - low) * y.sign()
    return directed(nearest, torch.where(b == 0, 0.0, _overflow(nearest, error, a, b)), mode)


def root(a: Tensor, mode: str) -> Tensor:
    """Return the square root of float32 or float64."""
    if a.dtype == torch.float32:
        wide = a.double()
        value = square_root(wide)
        high, low = two_product(value, value)
        return _single(to_odd(value, (wide - high) - low), mode)
    x, p = torch.frexp(a)
    even = p + (p & 1)
    nearest = square_root(a)
    part = scale(nearest, -(even // 2))
    high, low = two_product(part, part)
    return directed(nearest, (scale(x, p - even) - high) - low, mode)


def fused(a: Tensor, b: Tensor, c: Tensor, mode: str = "rn") -> Tensor:
    """Return ``a * b + c``, rounded once; float16 and bfloat16 only to nearest."""
    if mode == "rd":
        return -fused(-a, b, -c, "ru")
    if a.dtype != torch.float64:
        exact = to_odd(*two_sum(a.double() * b.double(), c.double()))
        return _single(exact, mode) if a.dtype == torch.float32 else narrow(exact, a.dtype)
    a, b, c = torch.broadcast_tensors(a, b, c)
    finite = torch.isfinite(a) & torch.isfinite(b)
    plain = torch.where(finite & ~torch.isfinite(c), c, a * b + c)
    result, nearest = _fused_double(a, b, c, mode)
    nonzero = (a != 0) & (b != 0)
    result = torch.where(finite & torch.isfinite(c) & (nonzero | (c != 0)), result, plain)
    # A subnormal result is not short enough for a second rounding.
    for place in (finite & nonzero & (nearest.abs() < 2.0**-1021)).nonzero().tolist():
        index = tuple(place)
        result[index] = _rational(a[index].item(), b[index].item(), c[index].item(), mode)
    return result


def _fused_double(a: Tensor, b: Tensor, c: Tensor, mode: str) -> tuple[Tensor, Tensor]:
    """Return the result, and rounded to nearest, for finite operands where that is a normal number or c alone."""
    (x, p), (y, q), (z, r) = (torch.frexp(value) for value in (a, b, c))
    product_exponent = torch.where((a == 0) | (b == 0), r, p + q)
    sum_exponent = torch.where(c == 0, product_exponent, r)
    # A term 2**200 times smaller only breaks ties, however small it is.
    unit = torch.maximum(product_exponent, sum_exponent - 200)
    high, low = two_product(x, y)
    middle, rest = two_sum(scale(z, (sum_exponent - unit).clamp(min=-200)), low)
    top, left = two_sum(high, middle)
    small, smallest = two_sum(rest, left)
    value = top + to_odd(small, smallest)
    difference, lost = two_sum(top - value, small)
    nearest = scale(value, unit)
    return directed(nearest, _overflow(nearest, difference + (lost + smallest), a, b, c), mode), nearest


def _rational(a: float, b: float, c: float, mode: str) -> Tensor:
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    nearest = float(exact)
    error = (exact > Fraction(nearest)) - (exact < Fraction(nearest))
    signed = math.copysign(nearest, exact.numerator) if exact else 0.0
    return directed(torch.tensor(signed, dtype=torch.float64), torch.tensor(float(error)), mode)


def scale(value: Tensor, exponent: Tensor) -> Tensor:
    """Return a float64 times a power of two, rounded once; torch.ldexp computes the power, which may overflow."""
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.ldexp(value.numpy(), exponent.to(torch.int32).numpy()))


def square_root(value: Tensor) -> Tensor:
    """Return the root rounded to nearest; torch.sqrt may be off by one unit."""
    with np.errstate(invalid="ignore"):
        return torch.from_numpy(np.sqrt(value.numpy()))


def _single(exact: Tensor, mode: str) -> Tensor:
    """Round float64, exact or rounded to odd, to float32."""
    nearest = exact.to(torch.float32)
    return directed(nearest, exact - nearest.double(), mode)


def _overflow(nearest: Tensor, error: Tensor, *operands: Tensor) -> Tensor:
    """Return the error, towards zero where finite operands gave an infinity."""
    finite = torch.isinf(nearest)
    for operand in operands:
        finite = finite & torch.isfinite(operand)
    return torch.where(finite, -nearest, error)
