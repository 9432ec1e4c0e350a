"""Constants, as numbers are printed in the IR."""

import json
import re

import numpy as np
import torch

from avo.evaluator.executor.dtypes import DTYPES, RAW
from avo.evaluator.executor.errors import IRError, UnsupportedOperation
from avo.evaluator.executor.frame import Frame, Step
from avo.evaluator.executor.ir import BITS, Op, Type
from avo.evaluator.executor.operations.casts import to_float
from avo.evaluator.executor.operations.registry import Types, check_variant, step

Tensor = torch.Tensor

_HEX = re.compile(r"-?0x[0-9A-Fa-f]+")
_ELEMENT = re.compile(r"[^\s,\[\]]+")


def literal(text: str, kind: Type) -> Tensor:
    """Return a number as printed in the IR, e.g. ``-1``, ``true``, ``1.5e+00`` or ``0xFF800000``, as a tensor [1]."""
    dtype = DTYPES[kind.element]
    try:
        if kind.element == "i1":
            return torch.tensor([{"true": True, "false": False, "1": True, "-1": True, "0": False}[text]])
        if not kind.floating:
            value = int(text, 0)
            bits = BITS[kind.element]
            return torch.tensor([(value + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)], dtype=dtype)
        if _HEX.fullmatch(text):
            bits = BITS[kind.element]
            value = int(text, 16)
            value -= 2**bits if value >= 2 ** (bits - 1) else 0
            return torch.tensor([value], dtype=RAW[bits // 8]).view(dtype)
        return to_float(torch.tensor([float(text)], dtype=torch.float64), dtype)
    except (ValueError, KeyError, OverflowError, RuntimeError):
        raise IRError(f"cannot read the constant {text[:60]!r} of type {kind}") from None


def constant(op: Op, types: Types) -> Tensor:
    """Return the value of an ``arith.constant``: [1] for a scalar, [1, 1, ...] for a block of equal elements."""
    check_variant(op, words=op.words)
    kind = types[op.results[0]]
    text = " ".join(op.words)
    if len(op.words) != 1 or kind.element in ("ptr", "descriptor"):
        raise UnsupportedOperation(f"arith.constant {text[:60]}", op.location)
    if not kind.shape:
        return literal(text, kind)
    text = text.removeprefix("dense<").removesuffix(">")
    scalar = Type(kind.element)
    if not text.startswith("["):
        if text.startswith('"'):
            raise UnsupportedOperation("arith.constant of packed elements", op.location)
        return literal(text, scalar).view((1,) * (1 + len(kind.shape)))
    try:
        numbers = np.array(json.loads(_ELEMENT.sub(r'"\g<0>"', text)))
    except (ValueError, RecursionError):
        numbers = np.array(())
    if numbers.shape != kind.shape:
        raise IRError(f"the constant {text[:60]!r} at {op.location} does not fill {kind}")
    return torch.cat([literal(str(number), scalar) for number in numbers.flat]).view(1, *kind.shape)


@step("arith.constant")
def _constant(op: Op, types: Types) -> Step:
    return _held(op, constant(op, types))


@step("ub.poison")
def _poison(op: Op, types: Types) -> Step:
    """Return a step that gives zeros: any value will do, as a kernel whose results depend on it is wrong."""
    check_variant(op)
    kind = types[op.results[0]]
    if kind.element not in DTYPES:
        raise UnsupportedOperation(f"{op.name} of {kind}", op.location)
    return _held(op, torch.zeros((1,) * (1 + len(kind.shape)), dtype=DTYPES[kind.element]))


def _held(op: Op, value: Tensor) -> Step:
    result = op.results[0]

    def run(frame: Frame) -> None:
        frame.slots[result] = value

    return run
