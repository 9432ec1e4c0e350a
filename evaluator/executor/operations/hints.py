"""Promises to the compiler: ``tl.assume``, and hints such as ``tl.multiple_of`` on values.

The compiler relies on them unchecked, so a kernel that breaks one is wrong on a GPU whatever it computes here. Hints
mean what Triton's ``AxisInfo`` says (include/triton/Analysis/AxisInfo.h): along each dimension, groups of
``contiguity`` elements count up by one, groups of ``constancy`` elements are equal, and the first element of every
contiguous group is divisible by ``divisibility``.
"""

import re

import torch

from avo.evaluator.executor.dtypes import RAW
from avo.evaluator.executor.effects import READS
from avo.evaluator.executor.errors import UnsupportedOperation
from avo.evaluator.executor.frame import Frame, Step
from avo.evaluator.executor.ir import Op, Type
from avo.evaluator.executor.operations.memory import site
from avo.evaluator.executor.operations.registry import VALUE_HINTS, Types, check_variant, step
from avo.evaluator.executor.space import total
from avo.evaluator.executor.values import full

Tensor = torch.Tensor

_MOST = 2**62
"""The largest divisor that the compiler knows: that of zero."""
_DENSE = re.compile(r"dense<\[?(\d{1,19}(?:, \d{1,19})*)\]?> : tensor<(\d+)xi(?:32|64)>")


@step("llvm.intr.assume")
def _assume(op: Op, types: Types) -> Step:
    check_variant(op)
    if len(op.operands) != 1 or types[op.operands[0]] != Type("i1"):
        raise UnsupportedOperation(f"{op.name} of more than a condition", op.location)

    def run(frame: Frame) -> None:
        wrong = ~frame.tensor(op.operands[0])
        frame.run.memory.refute("false assumption", wrong, lambda _: "the condition does not hold", site(frame, op))

    return run


def checked(op: Op, types: Types, unchecked: Step) -> Step:
    """Return the step of an operation, followed by a check that its results keep its hints."""
    if not any(name in op.attributes for name in VALUE_HINTS):
        return unchecked
    checks = [_check(op, slot, types[slot]) for slot in op.results]

    def run(frame: Frame) -> None:
        unchecked(frame)
        for check in checks:
            check(frame)

    return run


def _check(op: Op, slot: int, kind: Type) -> Step:
    rank = max(len(kind.shape), 1)
    divisors, lengths, repeats = (_amounts(op, name, rank) for name in VALUE_HINTS)
    # A pointer counts up by one element, and its divisibility is one of bytes.
    unit = kind.target.item_bytes if kind.target else 1
    if kind.element == "descriptor" or (kind.floating and (divisors or lengths)):
        raise UnsupportedOperation(f"{op.name} with a hint on {kind}", op.location)

    def run(frame: Frame) -> None:
        value = full(total(frame.address(slot)), kind)
        value = value if kind.shape else value[:, None]
        # Compares bits, so that a NaN equals itself.
        value = value.contiguous().view(RAW[value.element_size()]) if kind.floating else value.to(torch.int64)

        def refute(wrong: Tensor, claim: str) -> None:
            def describe(place: tuple[int, ...]) -> str:
                element = f"element {list(place[1:])}" if kind.shape else "the value"
                return f"{element} {claim}"

            frame.run.memory.refute("false hint", wrong, describe, site(frame, op))

        for dim in range(rank):
            if lengths:
                wrong = _uncounted(value, dim + 1, lengths[dim], unit)
                refute(wrong, f"does not continue a group of {lengths[dim]} contiguous ones")
            if repeats:
                wrong = _uncounted(value, dim + 1, repeats[dim], 0)
                refute(wrong, f"differs from the first of its group of {repeats[dim]} equal ones")
            if divisors and divisors[dim] > 1:
                length = lengths[dim] if lengths else _run_length(op, value, dim + 1, unit)
                starts = torch.arange(value.shape[dim + 1]) % length == 0
                wrong = (value % divisors[dim] != 0) & starts.view(_along(value, dim + 1))
                refute(wrong, f"is not a multiple of {divisors[dim]}")

    return run


def _amounts(op: Op, name: str, rank: int) -> tuple[int, ...] | None:
    """Return a hint's number per dimension, None if there is no such hint."""
    text = op.attributes.get(name)
    if text is None:
        return None
    match = _DENSE.fullmatch(text)
    amounts = tuple(int(amount) for amount in match[1].split(", ")) if match and int(match[2]) == rank else ()
    amounts = amounts * rank if len(amounts) == 1 else amounts
    if len(amounts) != rank or 0 in amounts or max(amounts) > _MOST:
        raise UnsupportedOperation(f"{op.name} with {name} = {text[:60]}", op.location)
    return amounts


def _uncounted(value: Tensor, axis: int, length: int, unit: int) -> Tensor:
    """Return which elements differ from the first of their group plus ``unit`` times their distance from it."""
    place = torch.arange(value.shape[axis])
    first = value.index_select(axis, place // length * length)
    return value != first + (place % length * unit).view(_along(value, axis))


def _along(value: Tensor, axis: int) -> list[int]:
    """Return the shape that lays a vector along an axis."""
    shape = [1] * value.dim()
    shape[axis] = -1
    return shape


def _run_length(op: Op, value: Tensor, axis: int, unit: int) -> int:
    """Return the length of the contiguous groups that the compiler may assume without a hint: the greatest possible."""
    # The compiler takes what is read from memory or gathered to be contiguous only where a hint says so.
    length = 1 if op.name in READS or op.name == "tt.gather" else value.shape[axis]
    while length > 1 and bool(_uncounted(value, axis, length, unit).any()):
        length //= 2
    return length
