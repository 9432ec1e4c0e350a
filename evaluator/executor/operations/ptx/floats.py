"""Floating-point instructions of PTX. Approximations are computed to the type's accuracy."""

from collections.abc import Callable

import torch

from avo.evaluator.executor.operations import rounding
from avo.evaluator.executor.operations.floats import exp2, fmax, fmin, rsqrt
from avo.evaluator.executor.operations.ptx.types import TYPES, Builder, Form, PtxType
from avo.evaluator.executor.operations.registry import COMPARE

Tensor = torch.Tensor
Function = Callable[..., Tensor]


def flush(value: Tensor) -> Tensor:
    """Replace numbers too small for a full mantissa by zero of the same sign (``.ftz``)."""
    small = value.abs() < torch.finfo(value.dtype).tiny
    return torch.where(small, torch.copysign(torch.zeros_like(value), value), value)


def _single(function: Function) -> Function:
    """Compute in float32 where the type is shorter."""

    def apply(*operands: Tensor) -> Tensor:
        if operands[0].dtype in (torch.float16, torch.bfloat16):
            return function(*(operand.float() for operand in operands)).to(operands[0].dtype)
        return function(*operands)

    return apply


def _flushed(function: Function) -> Function:
    return lambda *operands: flush(function(*(flush(operand) for operand in operands)))


def _saturated(function: Function) -> Function:
    return lambda *operands: torch.nan_to_num(function(*operands), nan=0.0, posinf=1.0, neginf=0.0).clamp(0, 1)


def rectified(value: Tensor) -> Tensor:
    """Replace negative numbers by zero (``.relu``)."""
    return torch.maximum(value, torch.zeros((), dtype=value.dtype))


def _form(kind: PtxType, count: int, function: Function, flags: set[str]) -> Form:
    if "ftz" in flags:
        function = _flushed(function)
    if "sat" in flags:
        function = _saturated(function)
    if "relu" in flags:
        plain = function
        return Form((kind,), (kind,) * count, lambda *operands: rectified(plain(*operands)))
    return Form((kind,), (kind,) * count, function)


_ALL = ("f32", "f64", "f16", "bf16", "f16x2", "bf16x2", "f32x2")
_WIDE = ("f32", "f64")
_SHORT = ("f32", "f16", "bf16", "f16x2", "bf16x2")


_MODES = {"rn": "rn", "rz": "rz", "rm": "rd", "rp": "ru"}
"""Modes of ``rounding`` by PTX's modifiers."""


def _plain(count: int, function: Function, types: tuple[str, ...], flags: set[str], needed: set[str]) -> Builder:
    """Return the builder of an instruction whose modifiers are some of ``flags``, one of ``needed``, and a type."""

    def build(name: str, modifiers: tuple[str, ...]) -> Form | None:
        if not modifiers or modifiers[-1] not in types:
            return None
        given = set(modifiers[:-1])
        if len(given) != len(modifiers) - 1 or given - flags - needed or (needed and len(given & needed) != 1):
            return None
        return _form(TYPES[modifiers[-1]], count, function, given)

    return build


def _rounded(
    count: int, exact: Callable[..., Tensor], nearest: Function, types: tuple[str, ...], flags: set[str], optional: bool
) -> Builder:
    """Return the builder of an instruction with a rounding mode; ``exact`` takes it after the operands."""

    def build(name: str, modifiers: tuple[str, ...]) -> Form | None:
        modes = [modifier for modifier in modifiers if modifier in _MODES]
        if len(modes) > 1 or not (modes or optional):
            return None
        rest = tuple(modifier for modifier in modifiers if modifier not in modes)
        mode = _MODES[modes[0]] if modes else "rn"
        if mode == "rn":
            return _plain(count, nearest, types, flags, set())(name, rest)
        directed = tuple(kind for kind in types if kind in ("f32", "f64"))
        return _plain(count, lambda *operands: exact(*operands, mode), directed, flags, set())(name, rest)

    return build


def _either(*builders: Builder) -> Builder:
    def build(name: str, modifiers: tuple[str, ...]) -> Form | None:
        forms = (builder(name, modifiers) for builder in builders)
        return next((form for form in forms if form is not None), None)

    return build


def _extreme(ignoring: Function, propagating: Function) -> Builder:
    def build(name: str, modifiers: tuple[str, ...]) -> Form | None:
        function = propagating if "NaN" in modifiers else ignoring
        return _plain(2, function, _ALL[:-1], {"ftz", "NaN"}, set())(name, modifiers)

    return build


def _compare(name: str, modifiers: tuple[str, ...]) -> Form | None:
    """Return ``setp`` for floats: one comparison with its negation, or two numbers in one register."""
    if len(modifiers) not in (2, 3) or modifiers[-1] not in _ALL[:-1] or modifiers[1:-1] not in ((), ("ftz",)):
        return None
    kind, how, with_flush = TYPES[modifiers[-1]], modifiers[0], "ftz" in modifiers
    test = COMPARE.get(how[:2]) if how[2:] in ("", "u") else None
    if test is None and how not in ("num", "nan"):
        return None

    def both(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        a, b = (flush(a), flush(b)) if with_flush else (a, b)
        missing = torch.isnan(a) | torch.isnan(b)
        if test is None:
            result = missing if how == "nan" else ~missing
        else:
            result = test(a, b) | missing if how[2:] else test(a, b) & ~missing
        return (result, ~result) if kind.lanes == 1 else result.unbind(1)

    return Form((TYPES["pred"],) * 2, (kind,) * 2, both)


_BOUNDED = {"ftz", "sat"}
_APPROXIMATE: dict[str, tuple[Function, tuple[str, ...]]] = {
    "ex2": (exp2, _SHORT),
    "lg2": (torch.log2, ("f32",)),
    "sin": (torch.sin, ("f32",)),
    "cos": (torch.cos, ("f32",)),
    "tanh": (torch.tanh, _SHORT),
    "rsqrt": (rsqrt, ("f32", "f64")),
}
"""Instructions that exist only as approximations (PTX ISA, ``.approx``)."""

FORMS: dict[str, Builder] = {
    "add": _rounded(2, rounding.add, torch.add, _ALL, _BOUNDED, True),
    "sub": _rounded(2, lambda a, b, mode: rounding.add(a, -b, mode), torch.sub, _ALL, _BOUNDED, True),
    "mul": _rounded(2, rounding.multiply, torch.mul, _ALL, _BOUNDED, True),
    "fma": _rounded(3, rounding.fused, rounding.fused, _ALL, {"ftz", "sat", "relu"}, False),
    "min": _extreme(fmin, torch.minimum),
    "max": _extreme(fmax, torch.maximum),
    "neg": _plain(1, torch.neg, _ALL[:-1], {"ftz"}, set()),
    "abs": _plain(1, torch.abs, _ALL[:-1], {"ftz"}, set()),
    "copysign": _plain(2, lambda a, b: torch.copysign(b, a), ("f32", "f64"), set(), set()),
    "rcp": _either(
        _plain(1, torch.reciprocal, _WIDE, {"ftz"}, {"approx"}),
        _rounded(
            1, lambda a, mode: rounding.divide(torch.ones_like(a), a, mode), torch.reciprocal, _WIDE, {"ftz"}, False
        ),
    ),
    "sqrt": _either(
        _plain(1, torch.sqrt, ("f32",), {"ftz"}, {"approx"}),
        _rounded(1, rounding.root, lambda a: rounding.root(a, "rn"), _WIDE, {"ftz"}, False),
    ),
    "div": _either(
        _plain(2, torch.div, ("f32",), {"ftz"}, {"approx", "full"}),
        _rounded(2, rounding.divide, torch.div, _WIDE, {"ftz"}, False),
    ),
    "setp": _compare,
} | {name: _plain(1, _single(function), types, {"ftz"}, {"approx"}) for name, (function, types) in _APPROXIMATE.items()}
"""Builders by the name of the instruction."""
