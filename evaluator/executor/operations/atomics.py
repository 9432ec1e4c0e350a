"""Atomic operations: as if programs, and elements within them, came one after the other."""

from collections.abc import Callable

import torch

from evaluator.executor.errors import UnsupportedOperation
from evaluator.executor.frame import Frame, Step
from evaluator.executor.ir import Op, Type
from evaluator.executor.operations.memory import described_block, descriptor_block, site
from evaluator.executor.operations.registry import Types, check_variant, step
from evaluator.executor.values import DTYPES, RAW, full

Tensor = torch.Tensor


def _unsigned_pick(largest: bool) -> Callable[[Tensor, Tensor], Tensor]:
    def pick(old: Tensor, value: Tensor) -> Tensor:
        least = torch.iinfo(old.dtype).min
        greater = (value ^ least) > (old ^ least)
        return torch.where(greater if largest else ~greater, value, old)

    return pick


_UPDATE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "fadd": torch.add,
    "and": torch.bitwise_and,
    "or": torch.bitwise_or,
    "xor": torch.bitwise_xor,
    "max": torch.maximum,
    "min": torch.minimum,
    "umax": _unsigned_pick(True),
    "umin": _unsigned_pick(False),
    "exch": lambda old, value: value,
}


def _turns(index: Tensor) -> list[Tensor]:
    """Split positions [n] into turns: within one, no two have the same index; earlier positions come first."""
    order = torch.argsort(index, stable=True)
    ordered = index[order]
    places = torch.arange(index.numel())
    fresh = torch.ones_like(ordered, dtype=torch.bool)
    fresh[1:] = ordered[1:] != ordered[:-1]
    turn = places - torch.cummax(torch.where(fresh, places, 0), 0).values
    by_turn = torch.argsort(turn, stable=True)
    return list(torch.split(order[by_turn], torch.bincount(turn).tolist()))


def _update(
    frame: Frame, op: Op, address: Tensor, mask: Tensor | None, kind: Type, new: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Apply ``new(old, positions)`` at every address [P, ...], in turns; return the old values."""
    before = torch.zeros(address.numel(), dtype=DTYPES[kind.element])
    for cells, index, where in frame.run.memory.gather_cells(address, mask, kind, site(frame, op)):
        for turn in _turns(index):
            frame.run.check_time()
            here = index[turn]
            old = cells.index_select(0, here)
            before[where[turn]] = old
            cells[here] = new(old, where[turn])
    return before.view(address.shape)


@step("tt.atomic_rmw")
def _atomic_rmw(op: Op, types: Types) -> Step:
    kind_word = op.words[0] if op.words else ""
    check_variant(op, [kind_word, "relaxed", "acquire", "release", "acq_rel", "gpu", "cta", "sys"])
    update = _UPDATE.get(kind_word)
    value_type = types[op.operands[1]]
    if update is None or value_type.element in ("i1", "ptr"):
        raise UnsupportedOperation(f"tt.atomic_rmw {kind_word[:60]} on {value_type}", op.location)
    pointer, value, *optional = op.operands
    mask = optional[0] if optional else None

    def run(frame: Frame) -> None:
        programs = frame.programs
        address = full(frame.tensor(pointer), types[pointer], programs)
        active = None if mask is None else full(frame.tensor(mask), types[mask], programs)
        values = full(frame.tensor(value), value_type, programs).flatten()
        before = _update(frame, op, address, active, value_type, lambda old, where: update(old, values[where]))
        for slot in op.results:
            frame.slots[slot] = before

    return run


@step("tt.atomic_cas")
def _atomic_cas(op: Op, types: Types) -> Step:
    check_variant(op, ["relaxed", "acquire", "release", "acq_rel", "gpu", "cta", "sys"])
    pointer, expected, desired = op.operands
    kind = types[desired]
    raw = RAW[kind.item_bytes]

    def run(frame: Frame) -> None:
        programs = frame.programs
        address = full(frame.tensor(pointer), types[pointer], programs)
        compare = full(frame.tensor(expected), kind, programs).flatten()
        values = full(frame.tensor(desired), kind, programs).flatten()

        def swap(old: Tensor, where: Tensor) -> Tensor:
            return torch.where(old.view(raw) == compare[where].view(raw), values[where], old)

        before = _update(frame, op, address, None, kind, swap)
        for slot in op.results:
            frame.slots[slot] = before

    return run


@step("tt.descriptor_reduce")
def _descriptor_reduce(op: Op, types: Types) -> Step:
    kind_word = op.words[0] if op.words else ""
    check_variant(op, [kind_word], ["kind"])
    block = described_block(op, types)
    update = _UPDATE.get(kind_word)
    if update is None or (kind_word in ("min", "max") and not block.floating):
        raise UnsupportedOperation(f"tt.descriptor_reduce {kind_word[:60]} on {block}", op.location)
    source = op.operands[-1]

    def run(frame: Frame) -> None:
        _, address, mask = descriptor_block(frame, op, block)
        programs = frame.programs
        places = full(address.base + address.offset, block, programs)
        active = None if mask is None else full(mask, block, programs)
        values = full(frame.tensor(source), types[source], programs).flatten()
        _update(frame, op, places, active, block, lambda old, where: update(old, values[where]))

    return run
