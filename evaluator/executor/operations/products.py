"""``tt.dot``: matrix products with the accuracy of the tensor cores.

Products are exact and summed in float32, in an unspecified order; integers wrap around. Operands and results are
rounded where the hardware rounds them. Triton's F32DotTC pass (lib/Dialect/TritonGPU/Transforms/F32DotTC.cpp) splits
float32 operands for the tensor cores; each method here uses the pass's terms, small products first.

A product whose result has a blocked layout is made of fused multiply-adds instead, see ``fma_product``.

One effect is not simulated: Hopper sums products of 8-bit floats with about 14 bits between the float32 additions that
``maxNumImpreciseAcc`` asks for (DeepSeek-V3 Technical Report, 3.3.2).
"""

from collections.abc import Callable

import numpy as np
import torch

from avo.evaluator.executor.dtypes import DTYPES
from avo.evaluator.executor.errors import IRError, UnsupportedOperation
from avo.evaluator.executor.frame import Frame, Step
from avo.evaluator.executor.ir import Op, Type
from avo.evaluator.executor.operations.casts import round_tf32
from avo.evaluator.executor.operations.registry import Types, check_variant, step
from avo.evaluator.executor.operations.rounding import fused
from avo.evaluator.executor.values import full

Tensor = torch.Tensor
Rounding = Callable[[Tensor], Tensor]

EXACT_INTEGER_TERMS = 1024
"""Number of products of 8-bit integers whose sum float32 holds exactly: 1024 * 2^14 = 2^24."""

_STEP_BYTES = 32
"""Bytes along K of one tensor core instruction (PTX ISA, shapes of mma, wgmma and tcgen05.mma)."""


def truncate_tf32(value: Tensor) -> Tensor:
    """Clear the bits of float32 that a tensor core does not read: tf32 has 10 bits of mantissa.

    Triton passes float32 to mma, wgmma and tcgen05.mma as it is (its PTX for sm_80, sm_90, sm_100 and sm_120 has no
    ``cvt.rna.tf32`` but for tf32x3); the documentation of ``tl.dot`` warns that inputs are truncated without rounding.
    """
    short = (value.view(torch.int32) & ~0x1FFF).view(torch.float32)
    return torch.where(torch.isfinite(value), short, value)


def _bf16(value: Tensor) -> Tensor:
    return value.to(torch.bfloat16).to(torch.float32)


_TERMS: dict[str, tuple[Rounding, ...]] = {
    "ieee": (),
    "tf32": (truncate_tf32,),
    "tf32x3": (round_tf32, truncate_tf32),
    "bf16x3": (_bf16, _bf16),
    "bf16x6": (_bf16, _bf16, _bf16),
}
"""How a float32 operand is split into terms: each is rounded from the remainder of those before it."""


def _split(value: Tensor, roundings: tuple[Rounding, ...]) -> list[Tensor]:
    terms = []
    for rounding in roundings:
        terms.append(rounding(value))
        value = value - terms[-1]
    return terms


def _short_product(a: Tensor, b: Tensor, roundings: tuple[Rounding, ...]) -> Tensor:
    """Return the product of float32 operands that are split into terms; the smallest products are left out."""
    if not roundings:
        return torch.matmul(a, b)
    left, right = _split(a, roundings), _split(b, roundings)
    main = torch.matmul(left[0], right[0])
    small: Tensor | None = None
    for i in reversed(range(len(left))):
        for j in reversed(range(len(left) - i)):
            if i or j:
                product = torch.matmul(left[i], right[j])
                small = product if small is None else small + product
    # The rest of an infinity is NaN: the pass sets those sums to zero.
    return main if small is None else main + torch.where(torch.isnan(small), 0.0, small)


def check_product(op: Op, a: Type, b: Type, c: Type) -> None:
    """Raise unless the tensor cores multiply blocks of types ``a`` and ``b`` and add one of type ``c``."""
    fits = (
        len(a.shape) == len(b.shape) == len(c.shape)
        and len(a.shape) in (2, 3)
        and a.shape[:-2] == b.shape[:-2] == c.shape[:-2]
        and a.shape[-1] == b.shape[-2]
        and c.shape[-2:] == (a.shape[-2], b.shape[-1])
    )
    if not fits:
        raise IRError(f"{op.name} at {op.location} multiplies {a} by {b} to {c}")
    eight_bits = a.element.startswith("f8") and b.element.startswith("f8")
    accumulators = ("f16", "f32") if a.element == "f16" or eight_bits else (_ACCUMULATOR.get(a.element),)
    if (a.element != b.element and not eight_bits) or c.element not in accumulators:
        raise UnsupportedOperation(f"{op.name} of {a} and {b} to {c}", op.location)


_ACCUMULATOR = {"i8": "i32", "bf16": "f32", "f32": "f32", "f64": "f64"}


Multiply = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Multiplies blocks [P or 1, ...] of the types it was made for, and adds a third one."""


def product(a_type: Type, b_type: Type, c_type: Type, precision: str) -> Multiply:
    """Return the function that computes a product of given types; ``precision`` is a key of ``_TERMS``."""
    terms = a_type.shape[-1]
    exact = a_type.element == "f64" or (a_type.element == "i8" and terms > EXACT_INTEGER_TERMS)
    inner = torch.float64 if exact else torch.float32
    roundings = _TERMS[precision] if a_type.element == "f32" else ()
    accumulator = DTYPES[c_type.element]
    depth = _STEP_BYTES // a_type.item_bytes

    def multiply(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        a, b = full(a, a_type).to(inner), full(b, b_type).to(inner)
        if accumulator == torch.float16:
            return half_product(a, b, c, depth)
        result = _short_product(a, b, roundings)
        if accumulator == torch.int32:
            return result.to(torch.int64).to(torch.int32) + c
        if c.numel() == 1 and not bool(c):
            return result.to(accumulator)
        return added(result, c.to(inner)).to(accumulator)

    return multiply


def added(product: Tensor, c: Tensor) -> Tensor:
    """Return ``product + c``, in the memory of the product if it fits there: new memory costs more than the sum."""
    return product.add_(c) if product.shape == np.broadcast_shapes(product.shape, c.shape) else product + c


def fma_product(op: Op, a_type: Type, b_type: Type, c_type: Type) -> Multiply:
    """Return the function that computes a product that the compiler makes of fused multiply-adds of one type
    (lib/Conversion/TritonGPUToLLVM/DotOpToLLVM/FMA.cpp); no operand is shortened, whatever precision it asks for.
    """
    if not a_type.element == b_type.element == c_type.element:
        raise UnsupportedOperation(f"{op.name} of FMAs of {a_type} and {b_type} to {c_type}", op.location)
    if c_type.element != "f16":
        return product(a_type, b_type, c_type, "ieee")

    def multiply(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        a, b = full(a, a_type), full(b, b_type)
        for k in range(a.shape[-1]):
            c = fused(a.narrow(-1, k, 1), b.narrow(-2, k, 1), c)
        return c

    return multiply


@step("tt.dot")
def _dot(op: Op, types: Types) -> Step:
    check_variant(op, attributes=["inputPrecision", "maxNumImpreciseAcc", "fma"])
    precision = op.attributes.get("inputPrecision", "ieee")
    if precision not in _TERMS:
        raise UnsupportedOperation(f"tt.dot with inputPrecision {precision[:60]}", op.location)
    a, b, c = op.operands
    check_product(op, types[a], types[b], types[c])
    if "fma" in op.attributes:
        multiply = fma_product(op, types[a], types[b], types[c])
    else:
        multiply = product(types[a], types[b], types[c], precision)

    def run(frame: Frame) -> None:
        frame.slots[op.results[0]] = multiply(frame.tensor(a), frame.tensor(b), frame.tensor(c))

    return run


def half_product(a: Tensor, b: Tensor, c: Tensor, depth: int) -> Tensor:
    """Return ``a @ b + c`` with float16 accumulators, which every instruction rounds, after ``depth`` products."""
    total = c
    for start in range(0, a.shape[-1], depth):
        count = min(depth, a.shape[-1] - start)
        part = torch.matmul(a.narrow(-1, start, count), b.narrow(-2, start, count))
        total = (part + total.to(torch.float32)).to(torch.float16)
    return total
