"""Integer and bit instructions of PTX."""

from collections.abc import Callable

import torch

from avo.evaluator.executor.operations.ptx import floats
from avo.evaluator.executor.operations.ptx.types import TYPES, Builder, Form
from avo.evaluator.executor.operations.registry import COMPARE

Tensor = torch.Tensor
Function = Callable[..., Tensor]

_LONG = ("s64", "u64")
_INTEGERS = ("s16", "u16", "s32", "u32", *_LONG)
_BITS = ("b16", "b32", "b64")


def _ordered(value: Tensor) -> Tensor:
    return value ^ torch.iinfo(torch.int64).min


def _arithmetic(name: str, modifiers: tuple[str, ...]) -> Form | None:
    """Return ``add``, ``sub``, ``min``, ``max``, ``neg`` or ``abs``; other types than integers go to ``floats``."""
    if not modifiers or modifiers[-1] not in _INTEGERS:
        builder = floats.FORMS.get(name)
        return builder(name, modifiers) if builder else None
    if len(modifiers) > 1:
        return None
    kind = TYPES[modifiers[-1]]
    if name in ("neg", "abs"):
        function: Function = torch.neg if name == "neg" else torch.abs
        return Form((kind,), (kind,), function) if kind.kind == "s" else None
    if name in ("min", "max") and kind.name == "u64":
        pick: Function = torch.minimum if name == "min" else torch.maximum
        return Form((kind,), (kind,) * 2, lambda a, b: _ordered(pick(_ordered(a), _ordered(b))))
    return Form((kind,), (kind,) * 2, _ARITHMETIC[name])


_ARITHMETIC: dict[str, Function] = {
    "add": torch.add,
    "sub": torch.sub,
    "min": torch.minimum,
    "max": torch.maximum,
}


def _multiply(name: str, modifiers: tuple[str, ...]) -> Form | None:
    """Return ``mul`` or ``mad`` of integers: the low half, the high half, or both."""
    if len(modifiers) != 2 or modifiers[0] not in ("lo", "hi", "wide") or modifiers[1] not in _INTEGERS:
        builder = floats.FORMS.get("fma" if name == "mad" else name)
        return builder(name, modifiers) if builder else None
    part, kind = modifiers[0], TYPES[modifiers[1]]
    if kind.bits == 64 and part != "lo":
        return None
    wide = TYPES[f"{kind.kind}{2 * kind.bits}"] if part == "wide" else kind
    shift = kind.bits if part == "hi" else 0

    def multiply(a: Tensor, b: Tensor) -> Tensor:
        return (a * b) >> shift

    if name == "mul":
        return Form((wide,), (kind, kind), multiply)
    return Form((wide,), (kind, kind, wide), lambda a, b, c: multiply(a, b) + c)


def _shift(name: str, modifiers: tuple[str, ...]) -> Form | None:
    """Return a shift; shifts by the width or more leave zero, or the sign."""
    if len(modifiers) != 1 or modifiers[0] not in (_BITS if name == "shl" else (*_BITS, *_INTEGERS)):
        return None
    given = TYPES[modifiers[0]]
    # Untyped bits (``.b``) are shifted like unsigned numbers.
    kind = TYPES[f"u{given.bits}"] if given.kind == "b" else given

    def shift(a: Tensor, amount: Tensor) -> Tensor:
        amount = amount.clamp(max=kind.bits)
        inside = amount.clamp(max=63)
        if name == "shl":
            return torch.where(amount >= kind.bits, 0, a << inside)
        if kind.kind == "s" or kind.bits < 64:
            return a >> inside
        kept = torch.where(inside == 0, -1, (1 << (64 - inside).clamp(max=63)) - 1)
        return torch.where(amount >= 64, 0, (a >> inside) & kept)

    return Form((kind,), (kind, TYPES["u32"]), shift)


def _logic(name: str, modifiers: tuple[str, ...]) -> Form | None:
    if len(modifiers) != 1 or modifiers[0] not in (*_BITS, "pred"):
        return None
    kind = TYPES[modifiers[0]]
    return Form((kind,), (kind,) * (1 if name == "not" else 2), _LOGIC[name])


_LOGIC: dict[str, Function] = {
    "and": torch.bitwise_and,
    "or": torch.bitwise_or,
    "xor": torch.bitwise_xor,
    "not": torch.bitwise_not,
}


def _lop3(name: str, modifiers: tuple[str, ...]) -> Form | None:
    """Return ``lop3``, any function of three bits by its table of eight results."""

    def apply(a: Tensor, b: Tensor, c: Tensor, table: Tensor) -> Tensor:
        result = torch.zeros_like(a)
        for i in range(8):
            row = (a if i & 4 else ~a) & (b if i & 2 else ~b) & (c if i & 1 else ~c)
            result = result | torch.where(table >> i & 1 == 1, row, 0)
        return result

    bits = TYPES["b32"]
    return Form((bits,), (bits, bits, bits, TYPES["u32"]), apply) if modifiers == ("b32",) else None


def _prmt(name: str, modifiers: tuple[str, ...]) -> Form | None:
    """Return ``prmt``, which picks four of eight bytes of two registers; a selector's fourth bit spreads the sign."""

    def apply(a: Tensor, b: Tensor, selector: Tensor) -> Tensor:
        both = a | (b << 32)
        result = torch.zeros_like(both)
        for i in range(4):
            choice = selector >> (4 * i)
            byte = both >> (8 * (choice & 7)) & 0xFF
            byte = torch.where(choice & 8 != 0, torch.where(byte >= 0x80, 0xFF, 0), byte)
            result = result | (byte << (8 * i))
        return result

    bits = TYPES["u32"]
    return Form((bits,), (bits,) * 3, apply) if modifiers == ("b32",) else None


def _count(name: str, modifiers: tuple[str, ...]) -> Form | None:
    """Return ``popc``, ``clz`` or ``brev``."""
    if modifiers not in (("b32",), ("b64",)):
        return None
    bits = int(modifiers[0][1:])
    places = torch.arange(bits)

    def digits(a: Tensor) -> Tensor:
        return (a[:, None] >> places) & 1

    def apply(a: Tensor) -> Tensor:
        if name == "popc":
            return digits(a).sum(1)
        if name == "brev":
            return (digits(a).flip(1) << places).sum(1)
        return bits - (digits(a) * (places + 1)).amax(1)

    kind = TYPES[f"u{bits}"]
    return Form((kind if name == "brev" else TYPES["u32"],), (kind,), apply)


def _find(name: str, modifiers: tuple[str, ...]) -> Form | None:
    """Return ``fns``: the place of the n-th set bit from a base, upwards or downwards; -1 if there is none."""
    places = torch.arange(32)

    def apply(mask: Tensor, base: Tensor, offset: Tensor) -> Tensor:
        digits = (mask[:, None] >> places) & 1
        base, offset = base[:, None], offset[:, None]
        up = digits * (places >= base)
        down = (digits * (places <= base)).flip(1)
        rank = torch.where(offset >= 0, up.cumsum(1), down.cumsum(1).flip(1))
        wanted = torch.where(offset == 0, places == base, rank == offset.abs()) & (digits == 1)
        wanted = wanted & torch.where(offset >= 0, places >= base, places <= base)
        return torch.where(wanted.any(1), wanted.int().argmax(1), -1)

    bits = TYPES["u32"]
    return Form((bits,), (bits, bits, TYPES["s32"]), apply) if modifiers == ("b32",) else None


def _extract(name: str, modifiers: tuple[str, ...]) -> Form | None:
    """Return ``bfe``, which extracts a field of bits as a number."""
    if modifiers not in (("u32",), ("s32",)):
        return None
    kind, amount = TYPES[modifiers[0]], TYPES["u32"]

    def apply(a: Tensor, start: Tensor, length: Tensor) -> Tensor:
        start, length = start & 0xFF, length & 0xFF
        field = (a >> start.clamp(max=63)) & ((1 << length.clamp(max=32)) - 1)
        if kind.kind == "u":
            return field
        sign = (a >> (start + length - 1).clamp(0, 31)) & 1
        filled = field | -(1 << length.clamp(max=32))
        return torch.where((sign == 1) & (length > 0), filled, field)

    return Form((kind,), (kind, amount, amount), apply)


def _insert(name: str, modifiers: tuple[str, ...]) -> Form | None:
    """Return ``bfi``, which replaces a field of bits of the second operand by the first."""
    bits = TYPES["u32"]

    def apply(a: Tensor, b: Tensor, start: Tensor, length: Tensor) -> Tensor:
        start, length = (start & 0xFF).clamp(max=32), (length & 0xFF).clamp(max=32)
        mask = ((1 << length) - 1) << start
        return (b & ~mask) | ((a << start) & mask)

    return Form((bits,), (bits,) * 4, apply) if modifiers == ("b32",) else None


def _funnel(name: str, modifiers: tuple[str, ...]) -> Form | None:
    """Return ``shf``, which takes 32 bits out of two registers, of which the second is the high one."""
    if modifiers not in [(side, how, "b32") for side in "lr" for how in ("wrap", "clamp")]:
        return None
    left, wraps, bits = modifiers[0] == "l", modifiers[1] == "wrap", TYPES["u32"]

    def apply(a: Tensor, b: Tensor, amount: Tensor) -> Tensor:
        amount = amount & 31 if wraps else amount.clamp(max=32)
        start = 32 - amount if left else amount
        return torch.where(start == 0, a, (a >> start) | (b << (32 - start)))

    return Form((bits,), (bits,) * 3, apply)


def _compare(name: str, modifiers: tuple[str, ...]) -> Form | None:
    if len(modifiers) != 2 or modifiers[1] not in (*_INTEGERS, *_BITS):
        return floats.FORMS["setp"](name, modifiers)
    how, kind = modifiers[0], TYPES[modifiers[1]]
    how = _UNSIGNED.get(how, how) if kind.kind == "u" else how
    if how not in COMPARE or (kind.kind == "b" and how not in ("eq", "ne")):
        return None
    ordered = _ordered if kind.name == "u64" else lambda value: value

    def both(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        result = COMPARE[how](ordered(a), ordered(b))
        return result, ~result

    return Form((TYPES["pred"],) * 2, (kind,) * 2, both)


_UNSIGNED = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}


def _select(name: str, modifiers: tuple[str, ...]) -> Form | None:
    if len(modifiers) != 1 or modifiers[0] not in (*_INTEGERS, *_BITS, "f32", "f64"):
        return None
    # Which bits they are does not matter.
    kind = TYPES[f"b{TYPES[modifiers[0]].bits}"]
    return Form((kind,), (kind, kind, TYPES["pred"]), lambda a, b, which: torch.where(which, a, b))


FORMS: dict[str, Builder] = {
    **dict.fromkeys(("add", "sub", "min", "max", "neg", "abs"), _arithmetic),
    **dict.fromkeys(("mul", "mad"), _multiply),
    **dict.fromkeys(("shl", "shr"), _shift),
    **dict.fromkeys(_LOGIC, _logic),
    **dict.fromkeys(("popc", "clz", "brev"), _count),
    "lop3": _lop3,
    "prmt": _prmt,
    "fns": _find,
    "bfe": _extract,
    "bfi": _insert,
    "shf": _funnel,
    "setp": _compare,
    "selp": _select,
}
"""Builders by the name of the instruction; builders of integers pass float types on to ``floats``."""
