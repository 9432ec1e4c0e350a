"""``cvt``: conversions of PTX, with the rounding and saturation that its modifiers name."""

from collections.abc import Callable

import torch

from avo.evaluator.executor.operations.casts import round_tf32, to_float, toward_zero
from avo.evaluator.executor.operations.dot_scaled import E2M1
from avo.evaluator.executor.operations.ptx.floats import flush, rectified
from avo.evaluator.executor.operations.ptx.types import TYPES, Form, PtxType

Tensor = torch.Tensor
Function = Callable[..., Tensor]

_WHOLE: dict[str, Function] = {"rni": torch.round, "rzi": torch.trunc, "rmi": torch.floor, "rpi": torch.ceil}
"""Functions that round to whole numbers, by modifier."""


def build(name: str, modifiers: tuple[str, ...]) -> Form | None:
    """Return the form of ``cvt`` with its modifiers, the last two of which are the types of result and operand."""
    if len(modifiers) < 2:
        return None
    to, of = modifiers[-2:]
    flags = set(modifiers[:-2])
    if len(flags) != len(modifiers) - 2:
        return None
    if (to, of) == ("tf32", "f32"):
        return Form((TYPES["b32"],), (TYPES["f32"],), _tf32) if flags == {"rna"} else None
    if "x2" in to or "x2" in of:
        return _packed(to, of, flags)
    if to not in TYPES or of not in TYPES or "b" in (TYPES[to].kind, TYPES[of].kind):
        return None
    target, source = TYPES[to], TYPES[of]
    function = _scalar(target, source, flags)
    return None if function is None else Form((target,), (source,), function, resizes=True)


def _tf32(value: Tensor) -> Tensor:
    return round_tf32(value).view(torch.int32)


def _scalar(target: PtxType, source: PtxType, flags: set[str]) -> Function | None:
    ftz = flags & {"ftz"}
    flags = flags - ftz
    if source.floating:
        function = _of_float(target, source, flags)
        return _flushed(function, target) if ftz and function is not None else function
    if ftz or (flags and "u64" in (source.name, target.name)):
        return None
    if target.floating:
        return (lambda x: x.to(target.dtype)) if flags == {"rn"} else None
    if flags == {"sat"}:
        low = -(1 << (target.bits - 1)) if target.kind == "s" else 0
        return lambda x: x.clamp(low, low + (1 << target.bits) - 1) if target.bits < 64 else x
    return (lambda x: x) if not flags else None


def _flushed(function: Function, target: PtxType) -> Function:
    """Flush float32 as ``cvt.ftz`` does; other types are left alone."""
    if target.name == "f32":
        return lambda x: flush(function(flush(x) if x.dtype == torch.float32 else x))
    return lambda x: function(flush(x))


def _of_float(target: PtxType, source: PtxType, flags: set[str]) -> Function | None:
    if target.floating:
        if target.item_bits < source.item_bits or target.name != source.name:
            exact = target.item_bits > source.item_bits
            if exact and not flags:
                return lambda x: x.to(target.dtype)
            return {frozenset({"rn"}): _nearest(target), frozenset({"rz"}): _toward_zero(target)}.get(frozenset(flags))
        ways = [_WHOLE[flag] for flag in flags if flag in _WHOLE]
        return ways[0] if len(flags) == 1 and ways else None
    flags = flags - {"sat"}  # Integers are always bounded.
    if len(flags) != 1 or target.name == "u64":
        return None
    whole = _WHOLE.get(next(iter(flags)))
    if whole is None:
        return None
    low = -(1 << (target.bits - 1)) if target.kind == "s" else 0
    high = low + (1 << target.bits) - 1
    # PTX ISA, cvt: NaN gives zero, or for 64-bit types the integer whose highest bit alone is set.
    missing = -(1 << 63) if "64" in target.name + source.name and target.bits == 64 else 0

    def convert(x: Tensor) -> Tensor:
        value = whole(x.double())
        fits = value.clamp(low, high if target.bits < 64 else 2.0**63 - 1024)
        result = torch.nan_to_num(fits, nan=0.0).to(torch.int64)
        result = torch.where(value >= float(high), high, result)
        return torch.where(torch.isnan(x), missing, result)

    return convert


def _nearest(target: PtxType) -> Function:
    return lambda x: x.to(target.dtype)


def _toward_zero(target: PtxType) -> Function:
    return lambda x: toward_zero(x, target.dtype)


def _packed(to: str, of: str, flags: set[str]) -> Form | None:
    """Convert two numbers into one register; the first operand goes to the high half."""
    relu = flags & {"relu"}
    flags = flags - relu
    if of == "f32":
        function, target = _pair_of_singles(to, flags)
        if function is None or target is None:
            return None

        def pair(a: Tensor, b: Tensor) -> Tensor:
            both = torch.stack(torch.broadcast_tensors(b, a), 1)
            return function(_relu(both, relu))

        return Form((target,), (TYPES["f32"],) * 2, pair, resizes=to == "e2m1x2")
    if of in ("f16x2", "bf16x2") and to in ("e4m3x2", "e5m2x2") and flags == {"rn", "satfinite"}:
        target = TYPES[to]
        return Form((target,), (TYPES[of],), lambda x: to_float(_relu(x, relu), target.dtype))
    if to == "f16x2" and of in ("e4m3x2", "e5m2x2") and flags == {"rn"}:
        return Form((TYPES[to],), (TYPES[of],), lambda x: _relu(x.to(torch.float16), relu))
    if to == "f16x2" and of == "e2m1x2" and flags == {"rn"}:
        return Form((TYPES[to],), (TYPES["u8"],), lambda x: _relu(_from_e2m1(x), relu), resizes=True)
    if to == "bf16x2" and of == "ue8m0x2" and flags == {"rn"} and not relu:
        return Form((TYPES[to],), (TYPES["u16"],), _from_ue8m0)
    return None


def _relu(value: Tensor, wanted: set[str]) -> Tensor:
    return rectified(value) if wanted else value


def _pair_of_singles(to: str, flags: set[str]) -> tuple[Function | None, PtxType | None]:
    if to in ("f16x2", "bf16x2"):
        target = TYPES[to]
        return (_nearest(target) if flags == {"rn"} else _toward_zero(target) if flags == {"rz"} else None), target
    if to in ("e4m3x2", "e5m2x2") and flags == {"rn", "satfinite"}:
        target = TYPES[to]
        return (lambda x: to_float(x, target.dtype)), target
    if to == "e2m1x2" and flags == {"rn", "satfinite"}:
        return _to_e2m1, TYPES["u8"]
    if to == "ue8m0x2" and flags in ({"rz", "satfinite"}, {"rp", "satfinite"}):
        up = "rp" in flags
        return (lambda x: _to_ue8m0(x, up)), TYPES["u16"]
    return None, None


def _to_e2m1(pair: Tensor) -> Tensor:
    """Round to the nearest of the sixteen numbers, ties to even; NaN and larger numbers become 6."""
    magnitude = torch.nan_to_num(pair.abs(), nan=6.0).clamp(max=6.0)
    between = (E2M1[:7] + E2M1[1:8]) / 2
    code = torch.bucketize(magnitude, between)
    # bucketize sends a tie to the lower number; where that is odd, the upper one is even.
    tie = (magnitude == between[code.clamp(max=6)]) & (code < 7) & (code % 2 == 1)
    code = code + tie + 8 * (torch.signbit(pair) & ~torch.isnan(pair))
    return code[:, 0] | (code[:, 1] << 4)


def _from_e2m1(packed: Tensor) -> Tensor:
    return torch.stack([E2M1[packed & 15], E2M1[(packed >> 4) & 15]], 1).to(torch.float16)


def _to_ue8m0(pair: Tensor, up: bool) -> Tensor:
    """Return the exponent of a magnitude, rounded up or down to a power of two; NaN has all bits set."""
    bits = pair.abs().view(torch.int32).to(torch.int64)
    exponent = bits >> 23
    exponent = exponent + ((bits & 0x7FFFFF) != 0) if up else exponent
    # Subnormal numbers up to 2^-127 are rounded to it.
    tiny = up & (bits <= 0x400000)
    exponent = torch.where(tiny, 0, exponent).clamp(max=254)
    exponent = torch.where(torch.isnan(pair), 255, exponent)
    return exponent[:, 0] | (exponent[:, 1] << 8)


def _from_ue8m0(packed: Tensor) -> Tensor:
    codes = torch.stack([packed & 0xFF, packed >> 8], 1)
    value = torch.exp2(codes.double() - 127).masked_fill(codes == 255, float("nan"))
    return value.to(torch.bfloat16)
