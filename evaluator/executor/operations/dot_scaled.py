"""``tt.dot_scaled``: products of operands in microscaling formats (OCP Microscaling Formats specification, v1.0), and
``ttg.fp4_to_fp``, with which the compiler unpacks 4-bit numbers for targets without such tensor cores.

They are computed as Triton decomposes them for targets without such tensor cores (DecomposeScaledBlocked.cpp): operands
and scales become bfloat16, or float16 if an operand is; their product is rounded, and the matrix product is summed in
float32. Hardware with these formats gives other results for products that bfloat16 cannot hold.
"""

from collections.abc import Callable

import torch

from avo.evaluator.executor.errors import IRError, UnsupportedOperation
from avo.evaluator.executor.frame import Frame, Step
from avo.evaluator.executor.ir import Op, Type
from avo.evaluator.executor.operations.products import added
from avo.evaluator.executor.operations.registry import Types, check_variant, integer, step
from avo.evaluator.executor.values import full

Tensor = torch.Tensor

_ELEMENTS = {"e2m1": "i8", "e4m3": "f8E4M3FN", "e5m2": "f8E5M2", "bf16": "bf16", "fp16": "f16"}
"""Element type of an operand by its format; 4-bit numbers are packed two in a byte, the first in the low bits."""

E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0])
"""The numbers of the 4-bit format by their bits."""

_PAIRS = torch.stack((E2M1.repeat(16), E2M1.repeat_interleave(16)), 1).view(torch.int64).flatten()
"""The two numbers in each byte, the first in the low bits, as one integer each."""

_UNPACKED = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}
"""The types that 4-bit numbers are converted to, all of which hold them exactly."""

_NAN_SCALE = -1
"""The scale that stands for NaN: 0xFF, read as a signed byte."""


def unpack_e2m1(packed: Tensor, axis: int) -> Tensor:
    """Return the 4-bit numbers in bytes (any integer type) as float32, twice as many along an axis."""
    bits = packed.to(torch.int32).bitwise_and_(0xFF)
    pairs = _PAIRS.index_select(0, bits.flatten()).view(torch.float32).view(*packed.shape, 2)
    return pairs.movedim(-1, axis + 1).flatten(axis, axis + 1)


@step("ttg.fp4_to_fp")
def _fp4_to_fp(op: Op, types: Types) -> Step:
    check_variant(op, attributes=["axis"])
    (slot,), (result,), axis = op.operands, op.results, integer(op, "axis")
    packed, kind = types[slot], types[result]
    dtype = _UNPACKED.get(kind.element)
    if packed.element != "i8" or dtype is None:
        raise UnsupportedOperation(f"{op.name} of {packed} to {kind}", op.location)
    if kind.shape != tuple(extent * (2 if i == axis else 1) for i, extent in enumerate(packed.shape)):
        raise IRError(f"{op.name} at {op.location} of {packed} along axis {axis} does not make {kind}")

    def run(frame: Frame) -> None:
        frame.slots[result] = unpack_e2m1(full(frame.tensor(slot), packed), axis + 1).to(dtype)

    return run


def _scale(value: Tensor, kind: Type, dtype: torch.dtype) -> Tensor:
    if kind.floating:
        return value.to(dtype)
    # The exponent of a float32 without mantissa. The scale 0 is 2^-127, which is a subnormal float32.
    return ((value.to(torch.int32) & 0xFF) << 23).clamp_min(1 << 22).view(torch.float32).to(dtype)


Operand = Callable[[Frame], Tensor]


def _operand(op: Op, types: Types, slot: int, scale: int | None, side: str, dtype: torch.dtype) -> Operand:
    """Return a function that gives an operand [P, ..., M, K] or [P, ..., K, N], scaled and in ``dtype``."""
    kind, packed = types[slot], op.attributes[side] == "e2m1"
    along_k = op.attributes.get(f"{side}_k_pack", "true") == "true"
    rank = len(kind.shape)
    k_axis, other_axis = (rank, rank - 1) if side == "lhs" else (rank - 1, rank)
    pack_axis = k_axis if along_k else other_axis
    fast = op.attributes.get("fastMath", "false") == "true"

    def values(frame: Frame) -> Tensor:
        held = full(frame.tensor(slot), kind)
        return unpack_e2m1(held, pack_axis).to(dtype) if packed else held.to(dtype)

    if scale is None:
        return values
    scale_type = types[scale]

    def scaled(frame: Frame) -> Tensor:
        value, factors = values(frame), full(frame.tensor(scale), scale_type)
        factors = (factors if side == "lhs" else factors.transpose(-1, -2)).unsqueeze(k_axis + 1)
        groups = value.unflatten(k_axis, (factors.shape[k_axis], -1))
        result: Tensor = groups * _scale(factors, scale_type, dtype)
        if not fast and not scale_type.floating:
            result.masked_fill_(factors == _NAN_SCALE, float("nan"))
        return result.flatten(k_axis, k_axis + 1)

    return scaled


@step("tt.dot_scaled")
def _dot_scaled(op: Op, types: Types) -> Step:
    check_variant(op, attributes=["lhs", "rhs", "lhs_k_pack", "rhs_k_pack", "fastMath", "scales"])
    scales = [int(i) for i in op.attributes["scales"].split()]
    slots = list(op.operands)
    if len(slots) != 3 + len(scales) or scales not in ([], [1], [2], [1, 3]):
        raise IRError(f"{op.name} at {op.location} has {len(slots)} operands, scales at {scales}")
    a_scale = slots.pop(1) if scales[:1] == [1] else None
    b_scale = slots.pop(2) if scales and scales != [1] else None
    a, b, c = slots
    _check(op, types, (a, a_scale, "lhs"), (b, b_scale, "rhs"), types[c])
    dtype = torch.float16 if "fp16" in (op.attributes["lhs"], op.attributes["rhs"]) else torch.bfloat16
    left = _operand(op, types, a, a_scale, "lhs", dtype)
    right = _operand(op, types, b, b_scale, "rhs", dtype)

    def run(frame: Frame) -> None:
        product = torch.matmul(left(frame).to(torch.float32), right(frame).to(torch.float32))
        frame.slots[op.results[0]] = added(product, frame.tensor(c))

    return run


def _check(op: Op, types: Types, a: tuple[int, int | None, str], b: tuple[int, int | None, str], c: Type) -> None:
    """Raise if formats, shapes and scales do not fit each other."""
    shapes = []
    for slot, scale, side in (a, b):
        kind, form = types[slot], op.attributes.get(side, "")
        flags = (op.attributes.get(f"{side}_k_pack", "true"), op.attributes.get("fastMath", "false"))
        if _ELEMENTS.get(form) != kind.element or len(kind.shape) not in (2, 3) or set(flags) - {"true", "false"}:
            raise UnsupportedOperation(f"{op.name} with {side} = {form[:60]} of {kind}", op.location)
        shape = list(kind.shape)
        if form == "e2m1":
            shape[-1 if (side == "lhs") == (flags[0] == "true") else -2] *= 2
        elif flags[0] != "true":
            raise UnsupportedOperation(f"{op.name} with {side} = {form} packed", op.location)
        shapes.append(shape)
        if scale is not None:
            factor, (k, other) = types[scale], (shape[-1], shape[-2]) if side == "lhs" else (shape[-2], shape[-1])
            if factor.element not in ("i8", "f8E4M3FN"):
                raise UnsupportedOperation(f"{op.name} with scales {factor}", op.location)
            groups = factor.shape[-1] if factor.shape else 0
            if factor.shape != (*shape[:-2], other, groups) or not groups or k % groups:
                raise IRError(f"{op.name} at {op.location} scales {kind} by {factor}")
    left, right = shapes
    if left[:-2] != right[:-2] or left[-1] != right[-2] or (*left[:-1], right[-1]) != c.shape or c.element != "f32":
        raise IRError(f"{op.name} at {op.location} multiplies {types[a[0]]} by {types[b[0]]} to {c}")


_CORE_ELEMENTS = {"e2m1": "i8", "e4m3": "f8E4M3FN", "e5m2": "f8E5M2"}
_SCALES = {"i8": (32, 16), "f8E4M3FN": (16,)}
"""How many elements a scale of a type may belong to (PTX ISA, block scaling of tcgen05.mma)."""


def scaled_product(op: Op, a: Type, b: Type, d: Type, a_scale: Type, b_scale: Type) -> Callable[..., Tensor]:
    """Return the function of ``a`` [P, M, K], ``b`` [P, K, N], scales [P, M, groups] and [P, N, groups], and a block
    that is added, as tcgen05.mma computes it: products of scaled elements are exact and summed in float32.

    Raises ``UnsupportedOperation`` for types that do not fit each other.
    """
    formats = op.attributes.get("lhs", ""), op.attributes.get("rhs", "")
    packed = [form == "e2m1" for form in formats]
    depth = a.shape[-1] * (2 if packed[0] else 1)
    fits = (
        (_CORE_ELEMENTS.get(formats[0]), _CORE_ELEMENTS.get(formats[1])) == (a.element, b.element)
        and len(a.shape) == len(b.shape) == 2
        and depth == b.shape[0] * (2 if packed[1] else 1)
        and d == Type("f32", (a.shape[0], b.shape[1]))
        and a_scale.element == b_scale.element
        and any(
            (a_scale.shape, b_scale.shape) == ((a.shape[0], depth // group), (b.shape[1], depth // group))
            for group in _SCALES.get(a_scale.element, ())
        )
    )
    if not fits:
        raise UnsupportedOperation(f"{op.name} of {a} and {b}, scaled by {a_scale} and {b_scale}, to {d}", op.location)

    def operand(value: Tensor, is_packed: bool, axis: int, scale: Tensor) -> Tensor:
        numbers = unpack_e2m1(value, axis) if is_packed else value.to(torch.float32)
        factors = scale.to(torch.float32) if a_scale.floating else _power_of_two(scale)
        factors = factors.repeat_interleave(depth // factors.shape[-1], -1)
        return numbers * (factors if axis == 2 else factors.transpose(-1, -2))

    def multiply(left: Tensor, right: Tensor, left_scale: Tensor, right_scale: Tensor, added: Tensor) -> Tensor:
        left, right = operand(left, packed[0], 2, left_scale), operand(right, packed[1], 1, right_scale)
        return torch.matmul(left, right) + added

    return multiply


def _power_of_two(scale: Tensor) -> Tensor:
    """Return what bytes stand for as scales (UE8M0): powers of two from 2^-127 on, and NaN."""
    bits = scale.to(torch.int32) & 0xFF
    return torch.where(bits == 0xFF, torch.nan, torch.exp2((bits - 127).to(torch.float64))).to(torch.float32)
