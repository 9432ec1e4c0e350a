"""Floating-point arithmetic: IEEE, with the GPU's treatment of NaN, zeros, remainders and exponentials.

Where PTX has an approximation, the exact value is computed; its error bounds are in
tests/evaluator/executor/approximations.py. Subnormal operands are treated as the instruction treats them, as far as
that affects normal results.
"""

import numpy as np
import torch

from avo.evaluator.executor.dtypes import RAW
from avo.evaluator.executor.errors import UnsupportedOperation
from avo.evaluator.executor.ir import Op
from avo.evaluator.executor.operations.operands import FLOATS, SHORT_FLOATS, one_element
from avo.evaluator.executor.operations.registry import COMPARE, Elementwise, Types, check_variant, elementwise
from avo.evaluator.executor.operations.rounding import fused, square_root

Tensor = torch.Tensor

LOG2_E = 1.4426950408889634
"""log2(e); the GPU computes exp(x) as exp2(x * log2(e))."""

SMALLEST_NORMAL = 2.0**-126
"""Smallest normal float32."""


def alike(function: Elementwise) -> Elementwise:
    """Return a function whose result for an element does not depend on its neighbours.

    Some of torch's functions differ in the last bit between their vector loop, which takes 64 elements at most, and
    the rest at the end; padding leaves no rest.
    """

    def apply(*operands: Tensor) -> Tensor:
        shape = np.broadcast_shapes(*(operand.shape for operand in operands))
        flat = [operand.expand(shape).reshape(-1) for operand in operands]
        count = flat[0].numel()
        if count % 64:
            flat = [torch.nn.functional.pad(operand, (0, -count % 64)) for operand in flat]
        return function(*flat)[:count].view(shape)

    return apply


exp2, power = alike(torch.exp2), alike(torch.pow)


def flush(value: Tensor) -> Tensor:
    """Replace subnormal float32 by zeros of their sign, as PTX's ``.ftz`` does; other types are left alone."""
    if value.dtype != torch.float32:
        return value
    return torch.where(value.abs() < SMALLEST_NORMAL, value * 0, value)


def exp(value: Tensor) -> Tensor:
    """Return e to the value; in float32 through base 2, as on the GPU."""
    return exp2(value * LOG2_E) if value.dtype == torch.float32 else torch.exp(value)


def rsqrt(value: Tensor) -> Tensor:
    """Return the reciprocal square root; subnormal float32 count as zero (``rsqrt.approx.ftz.f32``)."""
    return 1 / square_root(flush(value))


def remainder(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a - trunc(a / b) * b``, with a rounded quotient and one rounding at the end, as LLVM expands it."""
    result = fused(-torch.trunc(a / b), b, a)
    return torch.where(torch.isinf(b), a, result)


def divide_approximately(a: Tensor, b: Tensor) -> Tensor:
    """Return a times the reciprocal of b, which is zero where b is beyond 2**126 (``div.approx.f32``; PTX ISA, div)."""
    return torch.where(b.abs() > 2.0**126, a * torch.copysign(torch.zeros_like(b), b), a / b)


def _in_order(value: Tensor) -> Tensor:
    """Map floats other than NaN to integers in the same order, with -0 before +0; on the bits, its own inverse."""
    bits = value.view(RAW[value.element_size()]) if value.is_floating_point() else value
    return bits ^ (bits >> (bits.element_size() * 8 - 1) & torch.iinfo(bits.dtype).max)


def _extreme(pick: Elementwise, keep_nan: bool, a: Tensor, b: Tensor) -> Tensor:
    result = pick(a, b)
    least = result.abs().amin()
    if least > 0:
        return result
    # torch propagates NaN, and takes -0 for +0.
    missing = torch.isnan(result)
    if not keep_nan:
        a, b = torch.where(torch.isnan(a), b, a), torch.where(torch.isnan(b), a, b)
        missing = torch.isnan(a)
    ordered = _in_order(pick(_in_order(a), _in_order(b))).view(result.dtype)
    return torch.where(missing, torch.full_like(result, float("nan")), ordered)


def fmax(a: Tensor, b: Tensor) -> Tensor:
    """Return the maximum, ignoring NaN; +0 is greater than -0 (PTX ISA, max)."""
    return _extreme(torch.maximum, False, a, b)


def fmin(a: Tensor, b: Tensor) -> Tensor:
    """Return the minimum, ignoring NaN; -0 is less than +0."""
    return _extreme(torch.minimum, False, a, b)


def maximum(a: Tensor, b: Tensor) -> Tensor:
    """Return the maximum, propagating NaN."""
    return _extreme(torch.maximum, True, a, b)


def minimum(a: Tensor, b: Tensor) -> Tensor:
    """Return the minimum, propagating NaN."""
    return _extreme(torch.minimum, True, a, b)


_FLOAT: dict[str, Elementwise] = {
    "arith.addf": torch.add,
    "arith.subf": torch.sub,
    "arith.mulf": torch.mul,
    "arith.divf": torch.div,
    "arith.remf": remainder,
    "arith.negf": torch.neg,
    "arith.maximumf": maximum,
    "arith.minimumf": minimum,
    "arith.maxnumf": fmax,
    "arith.minnumf": fmin,
    "math.fma": fused,
    "math.exp": exp,
    "math.exp2": exp2,
    "math.log": torch.log,
    "math.log2": torch.log2,
    "math.sqrt": lambda x: square_root(flush(x)),
    "math.rsqrt": rsqrt,
    "math.sin": torch.sin,
    "math.cos": torch.cos,
    "math.erf": torch.erf,
    "math.ceil": lambda x: torch.ceil(flush(x)),
    "math.floor": lambda x: torch.floor(flush(x)),
    "tt.precise_sqrt": square_root,
    "tt.precise_divf": torch.div,
    "tt.approx_divf": divide_approximately,
}
"""Every float operation that Triton's front end emits. Roots, floor and ceil of float32 are ``.ftz`` instructions."""


@elementwise(*_FLOAT)
def _float(op: Op, types: Types) -> Elementwise:
    check_variant(op)
    one_element(op, types, FLOATS)
    return _FLOAT[op.name]


_PACKED: dict[str, Elementwise] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "fma": fused,
    "min": fmin,
    "max": fmax,
}


@elementwise("ttng.packed_arith")
def _packed(op: Op, types: Types) -> Elementwise:
    """Return the arithmetic of pairs of elements, which is that of single ones."""
    check_variant(op, words=_PACKED)
    if len(op.words) != 1 or len(op.operands) != (3 if op.words[0] == "fma" else 2):
        raise UnsupportedOperation(f"{op.name} {' '.join(op.words)[:60]} of {len(op.operands)} values", op.location)
    one_element(op, types, FLOATS)
    return _PACKED[op.words[0]]


@elementwise("math.absf")
def _absf(op: Op, types: Types) -> Elementwise:
    check_variant(op)
    if one_element(op, types, FLOATS | SHORT_FLOATS) in FLOATS:
        return torch.abs
    return lambda x: (x.view(torch.int8) & 0x7F).view(x.dtype)


@elementwise("arith.cmpf")
def _cmpf(op: Op, types: Types) -> Elementwise:
    predicate = op.words[0] if op.words else ""
    check_variant(op, [predicate])
    one_element(op, types, FLOATS, op.operands)
    if predicate == "ord":
        return lambda a, b: ~(torch.isnan(a) | torch.isnan(b))
    if predicate == "uno":
        return lambda a, b: torch.isnan(a) | torch.isnan(b)
    compare = COMPARE.get(predicate[1:])
    if compare is None or predicate[0] not in "ou":
        raise UnsupportedOperation(f"arith.cmpf with {predicate}", op.location)
    if predicate == "one":
        return lambda a, b: torch.ne(a, b) & ~(torch.isnan(a) | torch.isnan(b))
    if predicate[0] == "o" or predicate == "une":
        return compare
    return lambda a, b: compare(a, b) | torch.isnan(a) | torch.isnan(b)


@elementwise("arith.select")
def _select(op: Op, types: Types) -> Elementwise:
    check_variant(op)
    condition, chosen = types[op.operands[0]], types[op.operands[1]]
    if condition.element != "i1" or types[op.operands[2]].element != chosen.element:
        raise UnsupportedOperation(f"{op.name} of {chosen} and {types[op.operands[2]]} by {condition}", op.location)
    dims = () if condition.shape == chosen.shape else (1,) * len(chosen.shape)

    def select(c: Tensor, a: Tensor, b: Tensor) -> Tensor:
        c = c.view(-1, *dims) if dims else c
        if a.element_size() == 1 and a.is_floating_point():
            return torch.where(c, a.view(torch.int8), b.view(torch.int8)).view(a.dtype)
        return torch.where(c, a, b)

    return select


@elementwise("tt.clampf")
def _clampf(op: Op, types: Types) -> Elementwise:
    check_variant(op, attributes=["propagateNan"])
    one_element(op, types, FLOATS)
    propagate = op.attributes.get("propagateNan", "none")
    if propagate not in ("none", "all"):
        raise UnsupportedOperation(f"{op.name} with propagateNan = {propagate}", op.location)
    if propagate == "all":
        return lambda x, low, high: minimum(maximum(x, low), high)
    return lambda x, low, high: fmin(fmax(x, low), high)
