"""Sums, products, quotients, roots and multiply-adds are rounded once, in every direction."""

import math
from fractions import Fraction

import pytest
import torch

from avo.evaluator.executor.operations import rounding
from tests.corpus import sample
from tests.evaluator.executor.exact import edges, numbers, rounded

ORACLE = "exact rationals"

MODES = ("rn", "rz", "rd", "ru")
WIDTHS = (torch.float32, torch.float64)


def finite_edges(dtype):
    values = edges(dtype)
    return values[torch.isfinite(values)]


def operands(dtype, count=1500):
    special = finite_edges(dtype)
    a = torch.cat([special.repeat_interleave(len(special)), numbers(dtype, count, 1)])
    b = torch.cat([special.repeat(len(special)), numbers(dtype, count, 2)])
    return a, b


def check(got, exact, dtype, mode):
    """Compare with Fractions; None is left out, a zero may have either sign."""
    for i, (value, expected) in enumerate(zip(got.tolist(), exact, strict=True)):
        assert expected is None or value == rounded(expected, dtype, mode), (i, value, expected)


@pytest.mark.parametrize("mode", sample(MODES, 4))
@pytest.mark.parametrize("dtype", WIDTHS, ids=str)
def test_sums_products_and_quotients_are_rounded_once(dtype, mode):
    a, b = operands(dtype)
    pairs = [(Fraction(x), Fraction(y)) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    check(rounding.add(a, b, mode), [x + y for x, y in pairs], dtype, mode)
    check(rounding.multiply(a, b, mode), [x * y for x, y in pairs], dtype, mode)
    check(rounding.divide(a, b, mode), [x / y if y else None for x, y in pairs], dtype, mode)


@pytest.mark.parametrize("mode", sample(MODES, 4))
@pytest.mark.parametrize("dtype", WIDTHS, ids=str)
def test_roots_are_rounded_once(dtype, mode):
    a = torch.cat([finite_edges(dtype), numbers(dtype, 1500, 3)]).abs()
    for value, root in zip(a.tolist(), rounding.root(a, mode).tolist(), strict=True):
        # Enough bits of the true root for it to lie on the right side of everything, in any rounding.
        scale = 4 ** (1200 + 60)
        low = Fraction(math.isqrt(int(Fraction(value) * scale * 4**120)), 2 ** (1260 + 120))
        exact = low if low * low == Fraction(value) else low + Fraction(1, 2 ** (1260 + 121))
        assert root == rounded(exact, dtype, mode), value


@pytest.mark.parametrize("mode", sample(MODES, 4))
@pytest.mark.parametrize("dtype", WIDTHS, ids=str)
def test_multiply_adds_are_rounded_once_also_where_they_cancel_or_become_subnormal(dtype, mode):
    a, b = operands(dtype)
    c = numbers(dtype, len(a), 4)
    product = (a.double() * b.double()).to(dtype)
    c[::3] = torch.where(torch.isfinite(product), -product, 1.0)[::3]
    exact = [Fraction(x) * Fraction(y) + Fraction(z) for x, y, z in zip(*(t.tolist() for t in (a, b, c)), strict=True)]
    check(rounding.fused(a, b, c, mode), exact, dtype, mode)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_short_multiply_adds_are_rounded_once(dtype):
    a, b, c = (numbers(dtype, 3000, seed) for seed in (1, 2, 3))
    exact = [Fraction(x) * Fraction(y) + Fraction(z) for x, y, z in zip(*(t.tolist() for t in (a, b, c)), strict=True)]
    check(rounding.fused(a, b, c), exact, dtype, "rn")


def test_zero_sums_are_negative_only_when_rounding_down():
    for dtype in WIDTHS:
        one, zero = torch.tensor([1.0], dtype=dtype), torch.tensor([0.0], dtype=dtype)
        for mode in MODES:
            sums = rounding.add(one, -one, mode), rounding.fused(one, one, -one, mode), rounding.add(zero, -zero, mode)
            assert [math.copysign(1, total) for total in sums] == [-1 if mode == "rd" else 1] * 3
            assert math.copysign(1, rounding.add(-zero, -zero, mode)) == -1


def test_infinities_and_nan_go_through_a_multiply_add():
    inf, nan, big = math.inf, math.nan, 1e308
    cases = [
        (inf, 1, 1, inf),
        (inf, 0, 1, nan),
        (inf, 1, -inf, nan),
        (big, 10, -inf, -inf),
        (big, 10, 1, inf),
        (1, nan, 1, nan),
    ]
    a, b, c, expected = torch.tensor(cases, dtype=torch.float64).T
    for dtype, top in ((torch.float64, 1), (torch.float32, 1e-270)):
        scale = torch.where(a == big, top, 1.0)
        got = rounding.fused((a * scale).to(dtype), b.to(dtype), c.to(dtype)).double()
        assert torch.equal(
            got.nan_to_num(7), expected.where(torch.isfinite(got) == torch.isfinite(expected), got).nan_to_num(7)
        )
