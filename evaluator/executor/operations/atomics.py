"""Atomic operations: programs act one after another, the elements of a block in an order that is free, as on a GPU."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache

import torch

from avo.evaluator.executor.dtypes import DTYPES, RAW
from avo.evaluator.executor.errors import UnsupportedOperation
from avo.evaluator.executor.faults import Ordering, Site
from avo.evaluator.executor.frame import Frame, Step
from avo.evaluator.executor.ir import Op, Type
from avo.evaluator.executor.operations.memory import (
    check_blocks,
    check_described,
    described_block,
    descriptor_block,
    site,
)
from avo.evaluator.executor.operations.registry import Types, check_variant, step
from avo.evaluator.executor.values import full

Tensor = torch.Tensor
Update = Callable[[Tensor, Tensor], Tensor]

_SEMANTICS = {"relaxed": (False, False), "acquire": (True, False), "release": (False, True), "acq_rel": (True, True)}
"""Whether an operation with these semantics acquires and releases."""
_SCOPES = ("gpu", "cta", "sys")
_FIRST = torch.zeros(1, dtype=torch.int64)
_SUBNORMAL = torch.ones(1, dtype=torch.int32).view(torch.float32)
"""The smallest number above 0, made of its bits: this thread may flush such numbers already."""


def _order(op: Op, words: int = 0) -> Ordering:
    """Return what an atomic operation orders, read from the keywords after its first ``words``."""
    semantic, scope = (*op.words[words:], "", "")[:2]
    if semantic not in _SEMANTICS or scope not in _SCOPES:
        raise UnsupportedOperation(f"{op.name} with {' '.join(op.words)[:60]}", op.location)
    check_variant(op, [*op.words[:words], semantic, scope])
    acquire, release = _SEMANTICS[semantic]
    return Ordering(acquire, release, scope == "cta")


def _unsigned_pick(largest: bool) -> Update:
    def pick(old: Tensor, value: Tensor) -> Tensor:
        least = torch.iinfo(old.dtype).min
        greater = (value ^ least) > (old ^ least)
        return torch.where(greater if largest else ~greater, value, old)

    return pick


def _flushed(value: Tensor) -> Tensor:
    return torch.where(value.abs() < torch.finfo(torch.float32).tiny, value * 0, value)


def _add(old: Tensor, value: Tensor) -> Tensor:
    """Add, rounded to nearest. In float32, subnormal operands and results become zeros of their sign.

    "Current implementation of atom.add.f32 on global memory flushes subnormal inputs and results to sign-preserving
    zero"; the 16-bit types keep them: PTX ISA 8.5, atom.
    """
    return _flushed(_flushed(old) + _flushed(value)) if old.dtype == torch.float32 else old + value


_INTEGERS = ("i32", "i64")
UPDATES: dict[str, tuple[Update, tuple[str, ...]]] = {
    "add": (torch.add, _INTEGERS),
    "fadd": (_add, ("f16", "bf16", "f32", "f64")),
    "and": (torch.bitwise_and, _INTEGERS),
    "or": (torch.bitwise_or, _INTEGERS),
    "xor": (torch.bitwise_xor, _INTEGERS),
    "max": (torch.maximum, _INTEGERS),
    "min": (torch.minimum, _INTEGERS),
    "umax": (_unsigned_pick(True), _INTEGERS),
    "umin": (_unsigned_pick(False), _INTEGERS),
    "exch": (lambda old, value: value, (*_INTEGERS, "f32", "f64")),
}
"""For each kind, the function of old value and operand, and the element types that Triton's front end allows; it maps
float ``max`` and ``min`` to integers."""


@dataclass(frozen=True)
class _Ordered:
    """Positions [n], those with the same index next to each other, in order."""

    positions: Tensor
    turn: Tensor
    """How many positions with the same index come before each."""

    @classmethod
    def by(cls, index: Tensor) -> "_Ordered":
        positions = torch.argsort(index, stable=True)
        ordered = index[positions]
        places = torch.arange(index.numel())
        fresh = torch.ones_like(ordered, dtype=torch.bool)
        fresh[1:] = ordered[1:] != ordered[:-1]
        return cls(positions, places - torch.cummax(torch.where(fresh, places, 0), 0).values)

    def turns(self) -> list[Tensor]:
        """Split positions into turns, in order, so that no two positions of one turn have the same index."""
        by_turn = torch.argsort(self.turn, stable=True)
        return list(torch.split(self.positions[by_turn], torch.bincount(self.turn).tolist()))

    def running(self, values: Tensor, update: Update) -> Tensor:
        """Return values [n], each after those of the same index before it. ``update`` must be associative."""
        if update is torch.add:
            total = values.cumsum(0)  # in 64 bits, of which the lower ones are right even where it wraps around
            return (total - (total - values)[torch.arange(values.numel()) - self.turn]).to(values.dtype)
        values, far = values.clone(), 1
        later = (self.turn >= far).nonzero().flatten()
        while later.numel():
            values[later] = update(values[later - far], values[later])
            far *= 2
            later = later[self.turn[later] >= far]
        return values


def in_turns(held: Tensor, index: Tensor, values: Tensor, update: Update) -> Tensor:
    """Update ``held`` [cells] at indices [n] by values [n], one after another; return what each found there, [n]."""
    before = torch.empty_like(values)
    for turn in _Ordered.by(index).turns() if index.numel() else ():
        before[turn] = held[index[turn]]
        held[index[turn]] = update(before[turn], values[turn])
    return before


def _update(
    frame: Frame, where: Site, address: Tensor, mask: Tensor | None, kind: Type, new: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Apply ``new(old, positions)`` at every address [P, ...], in turns; return the old values."""
    memory = frame.run.memory
    before = torch.zeros(address.numel(), dtype=DTYPES[kind.element])
    flat = address.flatten()
    for cells, index, lanes in memory.gather_cells(address, mask, kind, where):
        for turn in _Ordered.by(index).turns() if index.numel() > 1 else [_FIRST]:
            frame.run.check_time()
            chosen = lanes[turn]
            programs = frame.positions[chosen // kind.elements]
            memory.synchronise(flat[chosen], programs, kind.item_bytes, where)
            here = index[turn]
            old = cells.index_select(0, here)
            before[chosen] = old
            memory.replace(cells, here, new(old, chosen))
    return before.view(address.shape)


def _adds(update: Update, values: Tensor) -> bool:
    """Whether ``Memory.add_up`` can do an update."""
    return update in (torch.add, _add) and (values.dtype != torch.float32 or _flushes())


@cache
def _flushes() -> bool:
    """Whether this processor can flush subnormal numbers to zero, as those of x86-64 and AArch64 can."""
    with _flushing(torch.float32) as flushes:
        return flushes


@contextmanager
def _flushing(dtype: torch.dtype) -> Iterator[bool]:
    """Let this thread do arithmetic of ``dtype`` as ``_add`` does; yield whether the processor can."""
    if dtype != torch.float32:
        yield True
        return
    flushed_before = not bool(_SUBNORMAL * 1)
    try:
        yield torch.set_flush_denormal(True)
    finally:
        torch.set_flush_denormal(flushed_before)


def _combine(
    frame: Frame,
    where: Site,
    address: Tensor,
    mask: Tensor | None,
    kind: Type,
    values: Tensor,
    update: Update,
    *,
    wanted: bool,
) -> Tensor:
    """Update every address [P, ...] with ``values`` [n]; return the old values, or anything if they are not ``wanted``.

    Integers take all turns at once, as their updates are associative. Sums whose old values nobody wants need no turns.
    """
    memory = frame.run.memory
    if not wanted and _adds(update, values) and not memory.observes_turns:
        for cells, index, lanes in memory.gather_cells(address, mask, kind, where):
            frame.run.check_time()
            added = values[lanes]
            with _flushing(values.dtype):  # only what is serial: threads that start here would go on flushing
                memory.add_up(cells, index, added)
        return values.view(address.shape)
    if values.dtype.is_floating_point or address.numel() == 1:
        return _update(frame, where, address, mask, kind, lambda old, lanes: update(old, values[lanes]))
    before = torch.zeros(address.numel(), dtype=DTYPES[kind.element])
    for cells, index, lanes in memory.gather_cells(address, mask, kind, where):
        frame.run.check_time()
        ordered = _Ordered.by(index)
        chosen, here, first = lanes[ordered.positions], index[ordered.positions], ordered.turn == 0
        if memory.observes_turns:
            _observe_turns(frame, where, address.flatten()[chosen], chosen // kind.elements, kind)
        held = cells.index_select(0, here)
        after = update(held, ordered.running(values[chosen], update))
        before[chosen] = torch.where(first, held, after.roll(1))
        last = first.roll(-1)
        memory.replace(cells, here[last], after[last])
    return before.view(address.shape)


def _observe_turns(frame: Frame, where: Site, address: Tensor, programs: Tensor, kind: Type) -> None:
    """Let memory observe atomic accesses to addresses [n], in order, by programs of the frame [n], in turns.

    All that a program does at one address is one turn.
    """
    both = torch.stack((address, programs), 1).unique_consecutive(dim=0)
    address, programs = both[:, 0], frame.positions[both[:, 1]]
    for turn in _Ordered.by(address).turns():
        frame.run.check_time()
        frame.run.memory.synchronise(address[turn], programs[turn], kind.item_bytes, where)


def _check(op: Op, types: Types, kind: Type, values: Sequence[int], masks: Sequence[int] = ()) -> None:
    """Raise ``UnsupportedOperation`` unless the first operand points to values of type ``kind``."""
    pointer = types[op.operands[0]]
    if pointer.target is None or pointer.element != "ptr" or pointer.target != Type(kind.element):
        raise UnsupportedOperation(f"{op.name} of {kind} at {pointer}", op.location)
    check_blocks(op, types, kind.of(kind.element) if pointer.shape == kind.shape else pointer, values, masks)


def _used(op: Op, frame: Frame) -> bool:
    return bool(op.results) and op.results[0] in frame.run.used


def _recorded(op: Op, frame: Frame) -> bool:
    script = frame.run.script
    return script is not None and not script.slots.isdisjoint(op.results)


@step("tt.atomic_rmw")
def _atomic_rmw(op: Op, types: Types) -> Step:
    kind_word = op.words[0] if op.words else ""
    order = _order(op, 1)
    value_type = types[op.operands[1]]
    update, elements = UPDATES.get(kind_word, (None, ()))
    if update is None or value_type.element not in elements:
        raise UnsupportedOperation(f"tt.atomic_rmw {kind_word[:60]} on {value_type}", op.location)
    pointer, value, *optional = op.operands
    _check(op, types, value_type, [value, *op.results], optional)
    mask = optional[0] if optional else None

    def run(frame: Frame) -> None:
        programs = frame.programs
        address = full(frame.tensor(pointer), types[pointer], programs)
        active = None if mask is None else full(frame.tensor(mask), types[mask], programs)
        values = full(frame.tensor(value), value_type, programs).flatten()
        used = _used(op, frame)
        where = site(frame, op, replace(order, blind=kind_word == "exch" and not used, returns=used))
        wanted = used or _recorded(op, frame)
        before = _combine(frame, where, address, active, value_type, values, update, wanted=wanted)
        for slot in op.results:
            frame.slots[slot] = before

    return run


@step("tt.atomic_cas")
def _atomic_cas(op: Op, types: Types) -> Step:
    order = _order(op)
    pointer, expected, desired = op.operands
    kind = types[desired]
    if kind.element not in ("i16", "i32", "i64", "f16", "bf16", "f32", "f64"):
        raise UnsupportedOperation(f"{op.name} on {kind}", op.location)
    _check(op, types, kind, [expected, desired, *op.results])
    raw = RAW[kind.item_bytes]

    def run(frame: Frame) -> None:
        programs = frame.programs
        address = full(frame.tensor(pointer), types[pointer], programs)
        compare = full(frame.tensor(expected), kind, programs).flatten()
        values = full(frame.tensor(desired), kind, programs).flatten()

        def swap(old: Tensor, lanes: Tensor) -> Tensor:
            # Compares bits: zeros of different signs differ, a NaN equals itself.
            return torch.where(old.view(raw) == compare[lanes].view(raw), values[lanes], old)

        where = site(frame, op, replace(order, returns=_used(op, frame)))
        before = _update(frame, where, address, None, kind, swap)
        for slot in op.results:
            frame.slots[slot] = before

    return run


@step("tt.atomic_load")
def _atomic_load(op: Op, types: Types) -> Step:
    order = _order(op)
    address, *optional = op.operands
    kind = types[op.results[0]]
    _check(op, types, kind, op.results, optional)

    def run(frame: Frame) -> None:
        mask = frame.tensor(optional[0]) if optional else None
        frame.slots[op.results[0]] = frame.run.memory.read(
            frame.tensor(address), mask, None, kind, site(frame, op, order)
        )

    return run


@step("tt.atomic_store")
def _atomic_store(op: Op, types: Types) -> Step:
    order = _order(op)
    address, value, *optional = op.operands
    kind = types[value]
    _check(op, types, kind, [value], optional)

    def run(frame: Frame) -> None:
        mask = frame.tensor(optional[0]) if optional else None
        # Expanded, so that each program stores by itself even where all store the same.
        where = full(frame.tensor(address), types[address], frame.programs)
        frame.run.memory.write(where, mask, frame.tensor(value), kind, site(frame, op, order))

    return run


@step("tt.atomic_poll")
def _atomic_poll(op: Op, types: Types) -> Step:
    """Wait until all elements are as expected; with a timeout, until no other program can go on."""
    order = _order(replace(op, words=tuple(word for word in op.words if word != "timeout")))
    address, expected, *timeout = op.operands
    kind = types[expected]
    if kind.element not in ("i16", "i32", "i64") or len(timeout) != op.words.count("timeout") or not op.results:
        raise UnsupportedOperation(f"{op.name} on {kind}", op.location)
    _check(op, types, kind, [expected], op.results)

    def run(frame: Frame) -> None:
        where = site(frame, op, order)
        turns = frame.run.turns
        assert turns is not None
        while True:
            value = frame.run.memory.read(frame.tensor(address), None, None, kind, where)
            same = value == frame.tensor(expected)
            if bool(same.all()) or not turns.wait(where, idle=True, patient=not timeout):
                break
        frame.slots[op.results[0]] = same

    return run


_REDUCTIONS: dict[str, tuple[str, ...]] = {
    "add": ("i32", "i64", "f16", "bf16", "f32"),
    "min": ("i32", "i64", "f16", "bf16"),
    "max": ("i32", "i64", "f16", "bf16"),
    "and": _INTEGERS,
    "or": _INTEGERS,
    "xor": _INTEGERS,
}
"""For each kind, the element types that Triton's front end allows."""


def reduction(op: Op, types: Types) -> tuple[Type, Update]:
    """Return the block that an operation combines with memory through a descriptor, and how."""
    kind_word = op.words[0] if op.words else ""
    check_variant(op, [kind_word], ["kind"])
    block = described_block(op, types)
    if block.element not in _REDUCTIONS.get(kind_word, ()):
        raise UnsupportedOperation(f"{op.name} {kind_word[:60]} on {block}", op.location)
    unsigned = types[op.operands[0]].unsigned and kind_word in ("min", "max")
    return block, UPDATES["u" + kind_word if unsigned else kind_word][0]


@step("tt.descriptor_reduce")
def _descriptor_reduce(op: Op, types: Types) -> Step:
    """Update each element atomically, relaxed (PTX ISA 8.5, cp.reduce.async.bulk.tensor)."""
    block, update = reduction(op, types)
    source = op.operands[-1]
    check_described(op, types, block, source)

    def run(frame: Frame) -> None:
        reduce_block(frame, op, block, full(frame.tensor(source), types[source], frame.programs), update)

    return run


def reduce_block(frame: Frame, op: Op, block: Type, values: Tensor, update: Update, *, sent: bool = False) -> None:
    """Combine a block [P, ...] with what memory holds at the descriptor and coordinates of an operation.

    ``sent`` says that the program goes on before memory holds the result.
    """
    _, address, mask = descriptor_block(frame, op, block)
    programs = frame.programs
    places = full(address.base + address.offset, block, programs)
    active = None if mask is None else full(mask, block, programs)
    where = replace(site(frame, op, Ordering(acquire=False, release=False, returns=False)), sent=sent)
    _combine(frame, where, places, active, block, values.flatten(), update, wanted=False)
