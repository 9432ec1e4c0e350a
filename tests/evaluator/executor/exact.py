"""Exact rationals rounded to binary formats: what hardware arithmetic is held to."""

import math
import random
from fractions import Fraction

import torch

FORMATS = {
    torch.float64: (53, -1074, 1023),
    torch.float32: (24, -149, 127),
    torch.float16: (11, -24, 15),
    torch.bfloat16: (8, -133, 127),
    torch.float8_e5m2: (3, -16, 15),
    torch.float8_e4m3fn: (4, -9, 8),
}
"""Significant bits, exponent of the smallest subnormal number, exponent of the largest number."""


def largest(dtype):
    if dtype == torch.float8_e4m3fn:
        return Fraction(448)  # The significand of all ones is NaN.
    bits, _, top = FORMATS[dtype]
    return (2**bits - 1) * Fraction(2) ** (top - bits + 1)


def rounded(value, dtype, mode="rn"):
    """Round a Fraction; a zero has the sign of what was rounded to it. Beyond the largest number comes infinity."""
    bits, bottom, _ = FORMATS[dtype]
    if value == 0:
        return 0.0
    size, negative = abs(value), value < 0
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= Fraction(2) ** exponent > size
    unit = Fraction(2) ** max(exponent - bits + 1, bottom)
    whole = size // unit
    rest = size / unit - whole
    outward = mode == ("rd" if negative else "ru")
    if mode == "rn":
        outward = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2 == 1)
    result = (whole + (outward and rest > 0)) * unit
    if result > largest(dtype):
        result = math.inf if mode == "rn" or outward else largest(dtype)
    return -float(result) if negative else float(result)


def edges(dtype):
    """Zeros, infinities, NaN, the ends of the normal and the subnormal numbers, and values that cancel or tie."""
    bits, bottom, _ = FORMATS[dtype]
    smallest_normal, top = 2.0 ** (bottom + bits - 1), float(largest(dtype))
    positive = [0.0, 2.0**bottom, smallest_normal - 2.0**bottom, smallest_normal, 1.0, 1 + 2.0 ** (1 - bits), 3.0]
    positive += [2 - 2.0 ** (1 - bits), 2.0 ** (bits - 1) + 1, 0.1, top, math.inf]
    return torch.tensor([sign * value for value in positive for sign in (1, -1)] + [math.nan]).double().to(dtype)


def numbers(dtype, count, seed):
    """Return finite numbers of all magnitudes, a part of them near 1 with few bits set."""
    source = random.Random(seed)
    bits, bottom, top = FORMATS[dtype]
    made = []
    for _ in range(count):
        near = source.random() < 0.4
        exponent = source.randint(-3, 3) if near else source.randint(bottom, top - 1)
        significand = 1 + source.getrandbits(3) * 2.0 ** -source.randint(1, bits - 1) if near else source.uniform(1, 2)
        made.append(math.ldexp(source.choice((1, -1)) * significand, exponent))
    return torch.tensor(made, dtype=torch.float64).to(dtype)


def same(got, expected):
    """Whether tensors hold the same bits; one NaN is as good as another."""
    width = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[got.element_size()]
    equal = got.view(width) == expected.view(width)
    return equal | (torch.isnan(got.double()) & torch.isnan(expected.double()))
