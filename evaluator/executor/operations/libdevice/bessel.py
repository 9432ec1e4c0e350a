"""Bessel functions of float64. Equations are those of the NIST Digital Library of Mathematical Functions (DLMF).

Up to ``_FAR`` functions of both kinds come from the downward recurrence, beyond it from Hankel's expansion; near their
zeros only their absolute error is small, as on the GPU.
"""

import math

import torch

Tensor = torch.Tensor

MAX_ORDER = 4096
"""Largest order of ``jn`` and ``yn``, which are computed order by order."""

_FAR = 25.0
_TERMS = 32
"""Number of terms of Hankel's expansion, whose smallest terms are those around twice the argument."""
_TINY = 1e-8
"""Argument below which the first term of the power series (DLMF 10.2.2) suffices for functions of the first kind."""
_EULER = 0.5772156649015329


def _recurrence(order: Tensor, size: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return J of the given orders, and Y0 and Y1, for arguments in [_TINY, _FAR] or below the order.

    Downward from an order where J is negligible (10.74(iv)), scaled by J0 + 2 J2 + 2 J4 + ... = 1 (10.12.4); the sums
    for Y are Neumann's (Abramowitz & Stegun 9.1.88).
    """
    after, here = torch.zeros_like(size), torch.full_like(size, 1e-300)
    total, found, even, odd, first = (torch.zeros_like(size) for _ in range(5))
    for n in range(start, 0, -1):
        after, here = here, 2 * n / size * here - after
        k = (n - 1) // 2
        found = torch.where(order == n - 1, here, found)
        if n % 2:
            total = total + here * (2 if k else 1)
            even = even + here * ((-1) ** k / k if k else 0)
        elif k:
            odd = odd + here * ((-1) ** k * (2 * k + 1) / (k * (k + 1)))
        else:
            first = here
        large = here.abs() > 1e200
        parts = after, here, total, found, even, odd, first
        after, here, total, found, even, odd, first = (torch.where(large, t * 1e-200, t) for t in parts)
    logarithm = torch.log(size / 2) + _EULER
    second = ((here / total) * logarithm - 2 * even / total) * (2 / math.pi)
    third = ((first / total) * (logarithm - 1) - odd / total - here / total / size) * (2 / math.pi)
    return found / total, second, third


def _expansion(order: int, size: Tensor) -> tuple[Tensor, Tensor]:
    """Return J and Y of order 0 or 1 for large arguments (10.17.3 and .4)."""
    sine, cosine = torch.sin(size), torch.cos(size)
    along, across = (cosine + sine, sine - cosine) if order == 0 else (sine - cosine, -sine - cosine)
    sums = [torch.ones_like(size), torch.zeros_like(size)]
    term = torch.ones_like(size)
    for k in range(1, _TERMS):
        term = term * ((4 * order * order - (2 * k - 1) ** 2) / (8 * k)) / size
        sums[k % 2] = sums[k % 2] + term * (-1) ** (k // 2)
    factor = 1 / torch.sqrt(size * math.pi)
    return factor * (sums[0] * along - sums[1] * across), factor * (sums[0] * across + sums[1] * along)


def _both_kinds(order: int, value: Tensor) -> tuple[Tensor, Tensor]:
    """Return J and Y of order 0 or 1 for absolute values, including the limits."""
    size = value.abs()
    near = size < _FAR
    inside = torch.where(near, size, 1.0).clamp(min=_TINY)
    first, *seconds = _recurrence(torch.full_like(size, order), inside, 100)
    far = _expansion(order, torch.where(near, _FAR, size))
    small = 1.0 if order == 0 else size / 2
    first = torch.where(near, torch.where(size < _TINY, small, first), far[0])
    limit = (torch.log(size / 2) + _EULER) * (2 / math.pi) if order == 0 else -2 / (math.pi * size)
    second = torch.where(near, torch.where(size < _TINY, limit, seconds[order]), far[1])
    infinite = torch.isinf(size)
    first, second = (torch.where(infinite, 0.0, kind) for kind in (first, second))
    return torch.where(torch.isnan(size), size, first), torch.where(value >= 0, second, math.nan)


def j0(value: Tensor) -> Tensor:
    """Return the function of the first kind of order 0."""
    return _both_kinds(0, value)[0]


def j1(value: Tensor) -> Tensor:
    """Return the function of the first kind of order 1."""
    return _both_kinds(1, value)[0] * torch.where(torch.signbit(value), -1.0, 1.0)


def y0(value: Tensor) -> Tensor:
    """Return the function of the second kind of order 0; NaN below 0."""
    return _both_kinds(0, value)[1]


def y1(value: Tensor) -> Tensor:
    """Return the function of the second kind of order 1; NaN below 0."""
    return _both_kinds(1, value)[1]


def _upward(order: Tensor, value: Tensor, before: Tensor, here: Tensor) -> Tensor:
    """Return the function of a higher order, by the recurrence from orders 0 and 1 (10.6.1)."""
    result = torch.where(order == 0, before, here)
    for n in range(1, _highest(order)):
        before, here = here, 2 * n / value * here - before
        result = torch.where(order == n + 1, here, result)
    return result


def _highest(order: Tensor) -> int:
    highest = int(order.max())
    if highest > MAX_ORDER:
        raise ValueError(f"Bessel functions are computed up to order {MAX_ORDER}, not {highest}")
    return highest


def yn(order: Tensor, value: Tensor) -> Tensor:
    """Return the function of the second kind of int32 order; NaN for negative orders."""
    order, value = torch.broadcast_tensors(order, value)
    result = _upward(order, value, y0(value), y1(value))
    # Once minus infinity is reached the recurrence subtracts it from itself.
    result = torch.where((value >= 0) & torch.isnan(result), -math.inf, result)
    return torch.where(order < 0, math.nan, torch.where(torch.isinf(value) & (value > 0), 0.0, result))


def jn(order: Tensor, value: Tensor) -> Tensor:
    """Return the function of the first kind of int32 order; NaN for negative orders."""
    order, value = torch.broadcast_tensors(order, value)
    size, highest = value.abs(), max(_highest(order), 1)
    # Where the order is above the argument the upward recurrence is unstable.
    beyond = order > size
    inside = torch.where(beyond, size, 1.0).clamp(min=_TINY)
    downward = _recurrence(order, inside, 2 * (highest + int(math.sqrt(100 * highest)) + 10))[0]
    result = torch.where(beyond, downward, _upward(order, size, j0(size), j1(size)))
    first_term = torch.exp(order * torch.log(size / 2) - torch.lgamma(order + 1.0))
    result = torch.where((size < _TINY) & (order > 0), first_term, result)
    result = torch.where((value < 0) & (order % 2 == 1), -result, result)
    result = torch.where(torch.isinf(value), 0.0, result)
    return torch.where((order < 0) | torch.isnan(value), math.nan, result)


def _modified(order: int, value: Tensor) -> Tensor:
    """Return I of order 0 or 1 for absolute values: the power series (10.25.2) where that is short."""
    size = value.abs()
    quarter = torch.where(size < 12, size * size / 4, 0.0)
    term = torch.ones_like(size) if order == 0 else size / 2
    result = term
    for k in range(1, 50):
        term = term * quarter / (k * (k + order))
        result = result + term
    scaled = torch.special.i0e(size) if order == 0 else torch.special.i1e(size)
    half = torch.exp(size / 2)  # Its square overflows before the product does.
    return torch.where(size < 12, result, torch.where(torch.isinf(size), size, scaled * half * half))


def i0(value: Tensor) -> Tensor:
    """Return the modified function of the first kind of order 0."""
    return _modified(0, value)


def i1(value: Tensor) -> Tensor:
    """Return the modified function of the first kind of order 1."""
    return torch.copysign(_modified(1, value), value)
