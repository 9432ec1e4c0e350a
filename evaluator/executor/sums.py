"""Finds how values pass through a kernel from memory to memory, and whether sums are made on the way."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from avo.evaluator.executor.effects import CONTROL, accessed_type, effects
from avo.evaluator.executor.flow import links, sources
from avo.evaluator.executor.ir import ALLOCATIONS, COMBINING, Function, Op, Region

_KEEPING = ("exch", "max", "min", "umax", "umin", "and", "or", "xor", "inc", "dec")
"""Kinds of atomic operations that add nothing."""
_MOVING = """arith.select arith.extf arith.truncf tt.fp_to_fp arith.bitcast arith.maximumf arith.maxnumf arith.minimumf
arith.minnumf arith.mulf arith.divf tt.join tt.split tt.cat tt.gather ttg.local_alloc ttg.local_store ttg.local_load
ttng.tmem_alloc ttng.tmem_store ttng.tmem_load ttng.tmem_copy""".split()  # noqa: SIM905
"""Operations whose results are some of their operands, or multiples; besides those that rearrange."""
_Form = Literal["", "number", "bits"]
"""Whether what was loaded has become a floating-point number since, and then, by more than a cast of all its bits, part
of an integer.
"""
_Traces = frozenset[tuple[int | None, bool, _Form]]
"""Parameters, None for one that is unclear; whether what was loaded is summed since, or changed in other ways; and its
form.
"""
_NOTHING = _Traces()


@dataclass(frozen=True, slots=True)
class Flow:
    """What a kernel stores through one parameter depends on what it loads through another; None: any parameter."""

    source: int | None
    target: int | None
    summed: bool
    """Whether it stores more than what it loaded, or a multiple."""
    item_bytes: int
    """Of what is stored."""
    packed: bool
    """Whether integers are stored that hold parts of the bits of numbers, as of two narrow ones."""
    location: str


def flows(function: Function) -> tuple[Flow, ...]:
    """Return how values pass from memory to memory, also through shared and tensor memory, in any program."""
    return tuple(dict.fromkeys(_Values(function).flows()))


class _Values:
    """From which parameters the values in slots were loaded, and the contents of buffers by their allocation's slot."""

    def __init__(self, function: Function) -> None:
        self._ops, self._types = function.body.ops, function.types
        self._pointers = sources(function, (s for s in function.params if self._types[s].target is not None))
        self._buffers = sources(function, (op.results[0] for op in self._ops if op.name in ALLOCATIONS))
        self._traces: dict[int, _Traces] = {}
        self._grew = True
        while self._grew:
            self._grew = False
            self._region(function.body)

    def flows(self) -> Iterator[Flow]:
        for op in self._ops:
            if not (row := effects(op.name)).writes:
                continue
            assert row.value is not None
            found, size = set(self._held(op.operands[row.value])), accessed_type(op, self._types).item_bytes
            for target in self._params(op):
                adds = row.updates and op.name != "tt.atomic_cas" and (op.words or ("",))[0] not in _KEEPING
                for source, summed, form in {*found, (target, True, "")} if adds else found:
                    yield Flow(source, target, summed, size, form == "bits", op.location)

    def _params(self, op: Op) -> frozenset[int | None]:
        return self._pointers.get(op.operands[0]) or frozenset((None,))

    def _held_in(self, slot: int) -> frozenset[int]:
        """Return the slots whose traces are those of a value or of a buffer's contents; barriers have none."""
        if self._types[slot].element != "memdesc":
            return frozenset((slot,))
        return frozenset() if self._types[slot].block.element == "i64" else self._buffers.get(slot, frozenset())

    def _held(self, *slots: int) -> _Traces:
        return _NOTHING.union(*(self._traces.get(each, _NOTHING) for slot in slots for each in self._held_in(slot)))

    def _add(self, slots: Iterable[int], traces: _Traces) -> None:
        for slot in slots:
            if not traces <= self._traces.get(slot, _NOTHING):
                self._traces[slot], self._grew = self._traces.get(slot, _NOTHING) | traces, True

    def _region(self, region: Region) -> None:
        arguments = {block.label: block.args for block in region.blocks}
        for block in region.blocks:
            for op in block.ops:
                for targets, origins in links(op, arguments):
                    for target, origin in zip(targets, origins, strict=True):
                        self._add((target,), self._traces.get(origin, _NOTHING))
                if op.name not in CONTROL:
                    self._op(op)
                for inner in op.regions if op.name not in COMBINING else ():
                    self._region(inner)

    def _op(self, op: Op) -> None:
        row, buffers = effects(op.name), [slot for slot in op.operands if self._types[slot].element == "memdesc"]
        if buffers and any(self._types[slot].element == "memdesc" for slot in op.results):
            return  # a view
        sums = not (row.rearranges or row.accesses or op.name in _MOVING)
        values = op.operands[1:] if row.accesses else op.operands
        held, loaded = self._held(*values), self._params(op) if row.reads else ()
        kept = [slot for slot in op.results if self._types[slot].element not in ("i1", "token")]
        for slot in (*kept, *(() if row.writes else buffers)):
            number = self._types[slot].block.floating
            made = {(param, summed or sums, _form(form, number, sums)) for param, summed, form in held}
            made.update((param, False, _form("", number, False)) for param in loaded)
            self._add(self._held_in(slot), frozenset(made))


def _form(before: _Form, number: bool, changes: bool) -> _Form:
    """Return the form of a result, which is a floating-point ``number`` or not, by that of an operand."""
    if before == "bits" and not changes:
        return before
    return "number" if number else "bits" if before and changes else before
