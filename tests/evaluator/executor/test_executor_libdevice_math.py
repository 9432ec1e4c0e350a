"""libdevice's elementary and special functions, run in kernels, against 200 bits of mpmath's."""

import math

import mpmath
import pytest
import torch

from avo.evaluator.executor.operations.libdevice import FUNCTIONS
from tests.corpus import sample
from tests.evaluator.executor.approximations import APPROXIMATIONS
from tests.evaluator.executor.exact import FORMATS
from tests.evaluator.executor.libdevice_kernels import run_all

ORACLE = "mpmath"


def normal(x):
    return mpmath.erfc(-x / mpmath.sqrt(2)) / 2


def inverse_erfc(y):
    """Compute by Newton's method on the logarithm in the tail, where 1 - y would lose everything."""
    if not 0 < y < 2:
        return mpmath.inf * (1 - y) if y in (0, 2) else mpmath.nan
    if y > 1:
        return -inverse_erfc(2 - y)
    if y > 1e-3:
        return mpmath.erfinv(1 - y)
    return mpmath.findroot(lambda t: mpmath.log(mpmath.erfc(t)) - mpmath.log(y), mpmath.sqrt(-mpmath.log(y)))


def length(*values):
    return mpmath.sqrt(sum(value * value for value in values))


SAME_NAMES = (
    "sqrt exp expm1 log log10 log1p sin cos tan sinpi cospi asin acos atan sinh cosh tanh asinh acosh "
    "atanh erf erfc erfinv atan2"
)
FUNCTIONS_OF_MATHEMATICS = {name: getattr(mpmath, name) for name in SAME_NAMES.split()} | {
    "rsqrt": lambda x: 1 / mpmath.sqrt(x),
    "cbrt": lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x)),
    "rcbrt": lambda x: mpmath.sign(x) / mpmath.cbrt(abs(x)),
    "exp2": lambda x: mpmath.mpf(2) ** x,
    "exp10": lambda x: mpmath.mpf(10) ** x,
    "log2": lambda x: mpmath.log(x, 2),
    "erfcinv": inverse_erfc,
    "erfcx": lambda x: mpmath.exp(x * x) * mpmath.erfc(x),
    "normcdf": normal,
    "normcdfinv": lambda p: -mpmath.sqrt(2) * inverse_erfc(2 * p),
    "lgamma": lambda x: mpmath.log(abs(mpmath.gamma(x))),
    "tgamma": mpmath.gamma,
    "j0": lambda x: mpmath.besselj(0, x),
    "j1": lambda x: mpmath.besselj(1, x),
    "y0": lambda x: mpmath.bessely(0, x),
    "y1": lambda x: mpmath.bessely(1, x),
    "jn": lambda n, x: mpmath.besselj(int(n), x) if n >= 0 else mpmath.nan,
    "yn": lambda n, x: mpmath.bessely(int(n), x) if n >= 0 else mpmath.nan,
    "cyl_bessel_i0": lambda x: mpmath.besseli(0, x),
    "cyl_bessel_i1": lambda x: mpmath.besseli(1, x),
    "hypot": length,
    "norm3d": length,
    "norm4d": length,
    "rhypot": lambda *values: 1 / length(*values),
    "rnorm3d": lambda *values: 1 / length(*values),
    "rnorm4d": lambda *values: 1 / length(*values),
    "pow": lambda x, y: x**y,
    "powi": lambda x, n: x**n,
}
SLOW = ("jn", "yn", "y1", "erfcinv", "normcdfinv")


def true_value(function, values):
    """Return the value as an mpf; NaN outside of the domain, None where mpmath does not say."""
    try:
        value = function(*map(mpmath.mpf, values))
    except (ValueError, ZeroDivisionError, OverflowError, mpmath.libmp.NoConvergence):
        return None
    if isinstance(value, mpmath.mpc) or not isinstance(value, mpmath.mpf):
        return None if not isinstance(value, mpmath.mpc) or value.imag == 0 else mpmath.nan
    return value


@pytest.fixture(scope="module")
def results(executor, tmp_path_factory):
    """Return operands and results by symbol."""

    def wanted(symbol):
        return symbol in FUNCTIONS_OF_MATHEMATICS or symbol[:-1] in FUNCTIONS_OF_MATHEMATICS

    return run_all(executor, tmp_path_factory.mktemp("libdevice"), wanted)


@pytest.mark.parametrize("name", sample(FUNCTIONS_OF_MATHEMATICS, 4))
def test_functions_of_mathematics_are_within_the_bounds_of_the_gpus_own(results, name):
    bounds = {entry.operation: entry for entry in APPROXIMATIONS}
    for symbol in (name, name + "f"):
        operands, out = results[symbol]
        bits, bottom, _ = FORMATS[out.dtype]
        bound = bounds.get(f"__nv_{symbol}")
        ulps, absolute = max(bound.ulps, 1.5) if bound else 2, bound.absolute if bound else 0
        compared = 0
        rows = list(zip(zip(*(o.tolist() for o in operands), strict=True), out.tolist(), strict=True))
        with mpmath.workprec(200):
            for values, got in rows[:: 5 if name in SLOW else 1]:
                # Far out mpmath takes long, subnormal float32 is flushed or not, and mpmath has no negative zero.
                if not all(1e-30 < abs(value) < 600 for value in values if isinstance(value, float)):
                    continue
                expected = true_value(FUNCTIONS_OF_MATHEMATICS[name], values)
                if expected is None:
                    continue
                if mpmath.isnan(expected):
                    assert math.isnan(got), (symbol, values, got)
                    continue
                if mpmath.isinf(expected) or abs(expected) > mpmath.mpf(2) ** (127 if bits == 24 else 1023) * (
                    2 - 2.0 ** (1 - bits)
                ):
                    assert math.isinf(got), (symbol, values, got)
                    continue
                top = mpmath.floor(mpmath.log(abs(expected), 2)) if expected else bottom
                unit = mpmath.mpf(2) ** max(top - bits + 1, bottom)
                error, steps = abs(got - expected), 2.5 * values[0] if name == "yn" else 0
                assert error <= max((ulps + steps) * unit, absolute), (symbol, values, got, float(error / unit))
                compared += 1
        assert compared > (5 if name in SLOW else 30)


LIMITS = {
    "exp": [(-math.inf, 0), (math.inf, math.inf)],
    "log": [(0.0, -math.inf), (math.inf, math.inf), (-1.0, math.nan)],
    "sqrt": [(-1.0, math.nan), (math.inf, math.inf)],
    "rsqrt": [(0.0, math.inf), (-0.0, -math.inf), (math.inf, 0), (1e-40, math.inf)],
    "tgamma": [
        (0.0, math.inf),
        (-0.0, -math.inf),
        (math.inf, math.inf),
        (-math.inf, math.nan),
        (1e-320, math.inf),
        (-1e-320, -math.inf),
    ],
    "lgamma": [(0.0, math.inf), (-math.inf, math.inf), (math.inf, math.inf)],
    "erfinv": [(1.0, math.inf), (-1.0, -math.inf), (2.0, math.nan)],
    "erfcinv": [(0.0, math.inf), (2.0, -math.inf), (3.0, math.nan)],
    "normcdfinv": [(0.0, -math.inf), (1.0, math.inf), (-1.0, math.nan)],
    "erfcx": [(-math.inf, math.inf), (math.inf, 0)],
    "normcdf": [(-math.inf, 0), (math.inf, 1)],
    "j0": [(math.inf, 0), (-math.inf, 0), (0.0, 1)],
    "j1": [(math.inf, 0), (0.0, 0)],
    "y0": [(0.0, -math.inf), (math.inf, 0), (-1.0, math.nan)],
    "y1": [(0.0, -math.inf), (math.inf, 0), (-1.0, math.nan)],
    "cyl_bessel_i0": [(math.inf, math.inf), (-math.inf, math.inf), (0.0, 1)],
    "cyl_bessel_i1": [(math.inf, math.inf), (-math.inf, -math.inf)],
    "cospi": [(1e30, 1), (3.0, -1), (math.inf, math.nan)],
    "sinpi": [(1e30, 0), (0.5, 1), (-0.5, -1), (math.inf, math.nan)],
    "cbrt": [(math.inf, math.inf), (-math.inf, -math.inf), (-27.0, -3)],
}


def test_functions_have_their_limits():
    for name, points in LIMITS.items():
        for dtype, suffix in ((torch.float32, "f"), (torch.float64, "")):
            for x, expected in points:
                if 0 < abs(x) < 1e-38 and (dtype == torch.float32) != (x == 1e-40):
                    continue
                got = FUNCTIONS[name + suffix].apply(torch.tensor([x], dtype=dtype)).item()
                assert got == expected or (math.isnan(got) and math.isnan(expected)), (name, dtype, x, got)
    lengths = FUNCTIONS["hypot"].apply, FUNCTIONS["rhypot"].apply
    huge, nan = torch.tensor([[1e308, 5e-324, math.inf], [1e308, 0, math.nan]], dtype=torch.float64)
    assert lengths[0](huge, nan).tolist() == [math.hypot(1e308, 1e308), 5e-324, math.inf]
    assert lengths[1](huge, nan).tolist()[2] == 0
