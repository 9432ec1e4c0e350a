"""Elementary and special functions.

In float32, common functions are torch's own; others are computed in float64 and rounded. Error bounds of the GPU's are
in tests/evaluator/executor/approximations.py.
"""

import math
from functools import partial

import numpy as np
import torch

from avo.evaluator.executor.operations.floats import LOG2_E, alike, divide_approximately, exp2, flush, power, rsqrt
from avo.evaluator.executor.operations.libdevice import bessel
from avo.evaluator.executor.operations.libdevice.parts import each
from avo.evaluator.executor.operations.libdevice.signature import LibdeviceFunction, both_widths, in_double
from avo.evaluator.executor.operations.registry import Elementwise
from avo.evaluator.executor.operations.rounding import scale, square_root, two_product

Tensor = torch.Tensor

_ROOT_HALF = math.sqrt(0.5)
_ROOT_HALF_REST = -4.833646656726457e-17
"""sqrt(1/2) minus the float64 nearest to it."""


def _numpy(function: Elementwise | np.ufunc) -> Elementwise:
    def apply(*operands: Tensor) -> Tensor:
        with np.errstate(all="ignore"):
            return torch.from_numpy(np.asarray(function(*(operand.numpy() for operand in operands))))

    return apply


def _sine_of_pi(value: Tensor, quarter: int) -> Tensor:
    """Return sin(pi * (value + quarter / 2)), from an angle of at most pi/4."""
    halves = torch.round(value * 2)
    angle = (value - halves / 2) * math.pi
    turn = torch.remainder(torch.remainder(halves, 4) + quarter, 4)
    result = torch.where(torch.remainder(turn, 2) == 0, torch.sin(angle), torch.cos(angle))
    result = torch.where(turn >= 2, -result, result)
    if quarter:
        return result + 0.0  # No negative zero.
    return torch.where(result == 0, torch.copysign(result, value), result)


def _norm(*operands: Tensor) -> tuple[Tensor, Tensor]:
    """Return the norm of float64 as a number of moderate size and a power of two."""
    greatest = torch.stack(torch.broadcast_tensors(*(operand.abs() for operand in operands))).amax(0)
    exponent = torch.frexp(greatest)[1]
    parts = [scale(operand, -exponent) for operand in torch.broadcast_tensors(*operands)]
    return square_root(torch.stack([part * part for part in parts]).sum(0)), exponent


def _any_infinite(*operands: Tensor) -> Tensor:
    return torch.stack(torch.broadcast_tensors(*(torch.isinf(operand) for operand in operands))).any(0)


def _length(*operands: Tensor) -> Tensor:
    return torch.where(_any_infinite(*operands), math.inf, scale(*_norm(*operands)))


def _reciprocal_length(*operands: Tensor) -> Tensor:
    size, exponent = _norm(*operands)
    return torch.where(_any_infinite(*operands), 0.0, scale(1 / size, -exponent))


def _gamma(value: Tensor) -> Tensor:
    result = each(math.gamma, value)
    pole = torch.copysign(torch.full_like(value, math.inf), value)
    return torch.where((value == 0) | torch.isinf(result), pole, result)


def _normal_distribution(value: Tensor) -> Tensor:
    """Return half of erfc(-x / sqrt(2)), corrected for the rounding of the argument, as the derivative is steep."""
    argument = -value * _ROOT_HALF
    error = -two_product(value, torch.full_like(value, _ROOT_HALF))[1] - value * _ROOT_HALF_REST
    slope = torch.exp(-argument * argument) * (2 / math.sqrt(math.pi))
    mended = torch.erfc(argument) - torch.where(value.abs() < 40, slope * error, 0.0)
    return 0.5 * mended


def _inverse_erfc(value: Tensor) -> Tensor:
    near = torch.erfinv(1 - value)
    tail = torch.where(value > 1, 2 - value, value)  # Exact where it is used.
    rough = -torch.special.ndtri(tail / 2) * _ROOT_HALF
    # One step of Newton's, where erfc is a normal number.
    step = (torch.erfc(rough) - tail) * torch.exp(rough * rough) * (math.sqrt(math.pi) / 2)
    far = torch.where((tail > 1e-300) & (tail < 0.5), rough + step, rough)
    return torch.where((value - 1).abs() <= 0.5, near, torch.where(value > 1, -far, far))


def _inverse_normal(probability: Tensor) -> Tensor:
    return -_inverse_erfc(2 * probability) * math.sqrt(2)


def _scaled_erfc(value: Tensor) -> Tensor:
    """Return erfcx. Below 0 it is about twice e to the square, whose rounding error the exponential magnifies."""
    square, rest = two_product(value, value)
    raised = torch.exp(square)
    below = 2 * (raised + torch.where(value > -26, raised * rest, 0.0)) - torch.special.erfcx(-value)
    result = torch.where((value <= -1) & (value > -27), below, torch.special.erfcx(value))
    return torch.where(value.abs() < 1, raised * torch.erfc(value), result)


def _cube_root(value: Tensor) -> Tensor:
    """Return the cube root after a step of Newton's method: C libraries may be off by more than one unit in the last
    place (glibc 2.41 at -27).
    """
    third = torch.div(torch.frexp(value)[1], 3, rounding_mode="floor")
    part = scale(value, -3 * third)
    root = _numpy(np.cbrt)(part)
    square, rest = two_product(root, root)
    cube, last = two_product(square, root)
    root = root - (cube - part + (last + rest * root)) / (3 * square)
    return torch.where(torch.isfinite(value) & (value != 0), scale(root, third), value)


def _exponentiate(value: Tensor, exponent: Tensor) -> Tensor:
    """Return a float to the power of an int32."""
    result = _numpy(np.power)(value.to(torch.float64), exponent.to(torch.float64))
    return result.to(value.dtype)


def _scaled_fast(function: Elementwise, factor: float) -> Elementwise:
    return lambda x: function(flush(x)) * torch.tensor(factor, dtype=torch.float32)


_COMMON: dict[str, tuple[Elementwise, Elementwise]] = {
    # For float32, and for float64.
    "sqrt": (lambda x: square_root(flush(x)), square_root),
    "rsqrt": (rsqrt, rsqrt),
    "exp": (torch.exp, torch.exp),
    "exp2": (exp2, exp2),
    "expm1": (torch.expm1, torch.expm1),
    "log": (torch.log, torch.log),
    "log2": (torch.log2, torch.log2),
    "log10": (torch.log10, torch.log10),
    "log1p": (torch.log1p, torch.log1p),
    "sin": (torch.sin, torch.sin),
    "cos": (torch.cos, torch.cos),
    "tan": (torch.tan, torch.tan),
    "asin": (torch.asin, torch.asin),
    "acos": (torch.acos, torch.acos),
    "atan": (torch.atan, torch.atan),
    "tanh": (torch.tanh, torch.tanh),
    "erf": (torch.erf, torch.erf),
    "erfc": (torch.erfc, torch.erfc),
}
_UNARY: dict[str, Elementwise] = {
    "exp10": _numpy(partial(np.power, 10.0)),
    "sinh": _numpy(np.sinh),
    "cosh": _numpy(np.cosh),
    "asinh": _numpy(np.arcsinh),
    "acosh": _numpy(np.arccosh),
    "atanh": _numpy(np.arctanh),
    "sinpi": lambda x: _sine_of_pi(x, 0),
    "cospi": lambda x: _sine_of_pi(x, 1),
    "cbrt": _cube_root,
    "rcbrt": lambda x: 1 / _cube_root(x),
    "erfinv": torch.erfinv,
    "erfcinv": _inverse_erfc,
    "erfcx": _scaled_erfc,
    "normcdf": _normal_distribution,
    "normcdfinv": _inverse_normal,
    "lgamma": torch.lgamma,
    "tgamma": _gamma,
    "j0": bessel.j0,
    "j1": bessel.j1,
    "y0": bessel.y0,
    "y1": bessel.y1,
    "cyl_bessel_i0": bessel.i0,
    "cyl_bessel_i1": bessel.i1,
}
_BINARY: dict[str, Elementwise] = {
    "atan2": _numpy(np.arctan2),
    "hypot": _length,
    "rhypot": _reciprocal_length,
}
_NORMS: dict[str, tuple[int, Elementwise]] = {
    "norm3d": (3, _length),
    "rnorm3d": (3, _reciprocal_length),
    "norm4d": (4, _length),
    "rnorm4d": (4, _reciprocal_length),
}
_FAST: dict[str, Elementwise] = {
    # Composed like the GPU's, of approximate instructions.
    "sin": lambda x: torch.sin(flush(x)),
    "cos": lambda x: torch.cos(flush(x)),
    "tan": lambda x: torch.tan(flush(x)),
    "log2": lambda x: torch.log2(flush(x)),
    "log": _scaled_fast(torch.log2, 1 / LOG2_E),
    "log10": _scaled_fast(torch.log2, math.log10(2)),
    "exp": lambda x: exp2(x * LOG2_E),
    "exp10": lambda x: exp2(x * math.log2(10)),
}


def _in_order(function: Elementwise) -> Elementwise:
    """Return the function with the order first, computed in float64 for float32 and float64 arguments."""
    return lambda order, x: function(order, x.to(torch.float64)).to(x.dtype)


def _functions() -> dict[str, LibdeviceFunction]:
    functions: dict[str, LibdeviceFunction] = {}
    for name, (single, double) in _COMMON.items():
        functions[name + "f"] = LibdeviceFunction(("f32",), "f32", single)
        functions[name] = LibdeviceFunction(("f64",), "f64", double)
    functions |= both_widths({name: alike(in_double(function)) for name, function in _UNARY.items()}, 1)
    functions |= both_widths({name: alike(in_double(function)) for name, function in _BINARY.items()}, 2)
    for name, (arity, function) in _NORMS.items():
        functions |= both_widths({name: alike(in_double(function))}, arity)
    functions |= both_widths({"pow": power}, 2)
    for suffix, element in (("f", "f32"), ("", "f64")):
        functions["powi" + suffix] = LibdeviceFunction((element, "i32"), element, _exponentiate)
        functions["jn" + suffix] = LibdeviceFunction(("i32", element), element, _in_order(bessel.jn))
        functions["yn" + suffix] = LibdeviceFunction(("i32", element), element, _in_order(bessel.yn))
    for name, function in _FAST.items():
        functions[f"fast_{name}f"] = LibdeviceFunction(("f32",), "f32", function)
    functions["fast_powf"] = LibdeviceFunction(("f32", "f32"), "f32", lambda x, y: exp2(torch.log2(flush(x)) * y))
    functions["fast_fdividef"] = LibdeviceFunction(
        ("f32", "f32"), "f32", lambda x, y: divide_approximately(flush(x), flush(y))
    )
    functions["frsqrt_rn"] = LibdeviceFunction(("f32",), "f32", lambda x: in_double(rsqrt)(flush(x)))
    return functions


MATH_FUNCTIONS: dict[str, LibdeviceFunction] = _functions()
