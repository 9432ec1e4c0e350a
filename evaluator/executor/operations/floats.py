"""Floating-point arithmetic: IEEE, with the GPU's ways for NaN and exponentials."""

import torch

from evaluator.executor.errors import UnsupportedOperation
from evaluator.executor.ir import Op
from evaluator.executor.operations.registry import COMPARE, Elementwise, Types, check_variant, elementwise
from evaluator.executor.values import DTYPES

Tensor = torch.Tensor

LOG2_E = 1.4426950408889634
"""log2(e); the GPU computes exp(x) as exp2(x * log2(e))."""


def fmax(a: Tensor, b: Tensor) -> Tensor:
    """Maximum that ignores NaN. ``torch.fmax`` is slow: it is kept for inputs with a NaN (or opposite infinities)."""
    result = torch.maximum(a, b)
    return torch.fmax(a, b) if bool(torch.isnan(result.sum())) else result


def fmin(a: Tensor, b: Tensor) -> Tensor:
    """Minimum that ignores NaN."""
    result = torch.minimum(a, b)
    return torch.fmin(a, b) if bool(torch.isnan(result.sum())) else result


def alike(function: Elementwise) -> Elementwise:
    """Return a function whose result for an element does not depend on its neighbours.

    Some of torch's functions differ in the last bit between their vector loop, which takes 64 elements at most, and
    the rest at the end; padding leaves no rest.
    """

    def apply(*operands: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(*(operand.shape for operand in operands))
        flat = [operand.expand(shape).reshape(-1) for operand in operands]
        count = flat[0].numel()
        if count % 64:
            flat = [torch.nn.functional.pad(operand, (0, -count % 64)) for operand in flat]
        return function(*flat)[:count].view(shape)

    return apply


exp2, rsqrt, power, atan2, cosh, sinh = (
    alike(function) for function in (torch.exp2, torch.rsqrt, torch.pow, torch.atan2, torch.cosh, torch.sinh)
)


def exp(value: Tensor) -> Tensor:
    """e to the value; in float32 by way of base 2, as the GPU does it."""
    return exp2(value * LOG2_E) if value.dtype == torch.float32 else torch.exp(value)


_FLOAT: dict[str, Elementwise] = {
    "arith.addf": torch.add,
    "arith.subf": torch.sub,
    "arith.mulf": torch.mul,
    "arith.divf": torch.div,
    "arith.remf": torch.fmod,
    "arith.negf": torch.neg,
    "arith.maximumf": torch.maximum,
    "arith.minimumf": torch.minimum,
    "arith.maxnumf": fmax,
    "arith.minnumf": fmin,
    "math.exp": exp,
    "math.exp2": exp2,
    "math.expm1": torch.expm1,
    "math.log": torch.log,
    "math.log2": torch.log2,
    "math.log10": torch.log10,
    "math.log1p": torch.log1p,
    "math.sqrt": torch.sqrt,
    "math.rsqrt": rsqrt,
    "math.absf": torch.abs,
    "math.sin": torch.sin,
    "math.cos": torch.cos,
    "math.tan": torch.tan,
    "math.tanh": torch.tanh,
    "math.erf": torch.erf,
    "math.ceil": torch.ceil,
    "math.floor": torch.floor,
    "math.trunc": torch.trunc,
    "math.roundeven": torch.round,
    "math.powf": power,
    "math.atan2": atan2,
    "math.copysign": torch.copysign,
    "tt.precise_sqrt": torch.sqrt,
    "tt.precise_divf": torch.div,
    "tt.approx_divf": torch.div,
}


@elementwise(*_FLOAT)
def _float(op: Op, types: Types) -> Elementwise:
    check_variant(op)
    if types[op.results[0]].element.startswith("f8"):
        raise UnsupportedOperation(f"{op.name} on 8-bit floats", op.location)
    return _FLOAT[op.name]


@elementwise("arith.cmpf")
def _cmpf(op: Op, types: Types) -> Elementwise:
    predicate = op.words[0] if op.words else ""
    check_variant(op, [predicate])
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
    if condition.shape == chosen.shape:
        return torch.where
    dims = (1,) * len(chosen.shape)
    return lambda c, a, b: torch.where(c.view(-1, *dims), a, b)


@elementwise("math.fma")
def _fma(op: Op, types: Types) -> Elementwise:
    check_variant(op)
    dtype = DTYPES[types[op.results[0]].element]
    if dtype == torch.float64:
        return lambda a, b, c: a * b + c
    # A float64 product of two float32 is exact, so only the sum and the last conversion round.
    return lambda a, b, c: (a.double() * b.double() + c.double()).to(dtype)


@elementwise("tt.clampf")
def _clampf(op: Op, types: Types) -> Elementwise:
    check_variant(op, attributes=["propagateNan"])
    if op.attributes.get("propagateNan") == "all":
        return lambda x, low, high: torch.minimum(torch.maximum(x, low), high)
    return lambda x, low, high: fmin(fmax(x, low), high)
