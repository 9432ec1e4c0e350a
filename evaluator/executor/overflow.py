"""Integer overflow in the arithmetic of addresses.

An offset that wraps around in 32 bits (or fewer) points to a place that its author did not mean. Such a value has a
twin: its exact value in 64 bits, which is carried through sums, products and rearrangements to the address. An active
access whose address differs from its twin is a fault. Remainders, bit operations and comparisons drop the twin: hashes
wrap on purpose.
"""

from collections.abc import Callable
from itertools import product

import torch

from avo.evaluator.executor.effects import coordinates, effects, mask
from avo.evaluator.executor.flow import links
from avo.evaluator.executor.frame import Frame, Step
from avo.evaluator.executor.ir import BITS, COMBINING, Function, Op, Region
from avo.evaluator.executor.operations.memory import descriptor, site
from avo.evaluator.executor.operations.registry import Types
from avo.evaluator.executor.space import total
from avo.evaluator.executor.values import AddressSum

Tensor = torch.Tensor

_ARITHMETIC: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[int, int], int]]] = {
    "arith.addi": (torch.add, lambda a, b: a + b),
    "arith.subi": (torch.sub, lambda a, b: a - b),
    "arith.muli": (torch.mul, lambda a, b: a * b),
    "arith.shli": (lambda a, b: a << b.clamp(0, 62), lambda a, b: a << min(max(b, 0), 62)),
}
"""Operations that may overflow, as functions of int64 tensors and of integers."""
_EXTENSIONS = ("arith.extsi", "arith.extui", "arith.index_cast")


def addressing(function: Function) -> frozenset[int]:
    """Return the slots whose exact value decides an address through operations that carry twins."""
    slots: set[int] = set()
    size = -1
    while len(slots) > size:
        size = len(slots)
        _add_addressing(function.body, slots)
    return frozenset(slots)


def _add_addressing(region: Region, slots: set[int]) -> None:
    arguments = {block.label: block.args for block in region.blocks}
    for block in reversed(region.blocks):
        for op in reversed(block.ops):
            for targets, sources in links(op, arguments):
                slots.update(source for target, source in zip(targets, sources, strict=True) if target in slots)
            if effects(op.name).accesses:
                slots.update(coordinates(op) or op.operands[:1])
            elif not slots.isdisjoint(op.results):
                slots.update(_followed(op))
            if op.name not in COMBINING:
                for inner in op.regions:
                    _add_addressing(inner, slots)


def _followed(op: Op) -> tuple[int, ...]:
    """Return the operands that the twin of an operation's result is computed from."""
    if op.name == "arith.select":
        return op.operands[1:]
    kept = op.name in (*_ARITHMETIC, *_EXTENSIONS, "tt.addptr") or effects(op.name).rearranges
    return op.operands if kept else ()


def watched(op: Op, types: Types, step: Step, slots: frozenset[int]) -> Step:
    """Return the step of an operation; if addresses depend on it, the step also carries and checks twins."""
    if effects(op.name).accesses:
        return _with_check(op, step, _check_coordinates if coordinates(op) else _check_address)
    if not slots.isdisjoint(op.results):
        if op.name in _ARITHMETIC:
            return _arithmetic(op, types, step)
        if _followed(op):
            return _following(op, step)
    return step


def _arithmetic(op: Op, types: Types, step: Step) -> Step:
    exactly, bound = _ARITHMETIC[op.name]
    (a, b), result = op.operands, op.results[0]
    bits = BITS[types[result].element]
    if bits == 1:
        return step

    def fits(frame: Frame) -> bool:
        ends = [[int(end) for end in torch.aminmax(frame.tensor(slot))] for slot in (a, b)]
        corners = [bound(x, y) for x, y in product(*ends)]
        return bool(-(2 ** (bits - 1)) <= min(corners) and max(corners) < 2 ** (bits - 1))

    def run(frame: Frame) -> None:
        step(frame)
        twins = frame.twins
        if a not in twins and b not in twins and (bits == 64 or fits(frame)):
            twins.pop(result, None)
        else:
            x, y = (twins.get(slot, frame.tensor(slot)).to(torch.int64) for slot in (a, b))
            _keep(frame, result, exactly(x, y))

    return run


def _following(op: Op, step: Step) -> Step:
    """Return a step that applies a rearrangement, selection or sum of addresses to twins as well."""
    result, followed = op.results[0], _followed(op)

    def run(frame: Frame) -> None:
        if frame.twins.keys().isdisjoint(followed):
            frame.twins.pop(result, None)
        elif op.name in _EXTENSIONS:
            step(frame)
            _keep(frame, result, frame.twins[followed[0]])
            return
        else:
            held = [frame.slots[slot] for slot in followed]
            for slot in followed:
                frame.slots[slot] = _exact(frame, slot)
            step(frame)
            exact = frame.address(result)
            for slot, value in zip(followed, held, strict=True):
                frame.slots[slot] = value
            step(frame)
            _keep(frame, result, total(exact))
            return
        step(frame)

    return run


def _exact(frame: Frame, slot: int) -> Tensor:
    if slot in frame.twins:
        return frame.twins[slot]
    return total(frame.address(slot)).to(torch.int64)


def _keep(frame: Frame, slot: int, exact: Tensor) -> None:
    """Keep a twin only if it differs from the value."""
    value = frame.value(slot)
    assert isinstance(value, Tensor | AddressSum)
    if bool((total(value).to(torch.int64) != exact).any()):
        frame.twins[slot] = exact
    else:
        frame.twins.pop(slot, None)


def _with_check(op: Op, step: Step, check: Callable[[Frame, Op], None]) -> Step:
    def run(frame: Frame) -> None:
        if frame.twins:
            check(frame, op)
        step(frame)

    return run


def _check_address(frame: Frame, op: Op) -> None:
    slot, masked = op.operands[0], mask(op)
    if slot in frame.twins:
        address, exact = total(frame.address(slot)), frame.twins[slot]
        wrong = address != exact
        if masked is not None:
            wrong = wrong & frame.tensor(masked)
        frame.run.memory.report_overflow(address, exact, wrong, site(frame, op))


def _check_coordinates(frame: Frame, op: Op) -> None:
    described = descriptor(frame, op, len(coordinates(op)))
    for slot in coordinates(op):
        if slot in frame.twins:
            held, exact = frame.tensor(slot), frame.twins[slot]
            base = described.base.view(-1, *[1] * (held.dim() - 1))
            wrong = held.to(torch.int64) != exact
            frame.run.memory.report_wrapped_coordinate(base, held, exact, wrong, site(frame, op))
