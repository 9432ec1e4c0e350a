"""Slices: what decides how often a kernel loops and where it accesses memory, with little of what it computes.

Every slice keeps the kernel's loops, but those that only wait, and what these and the following depend on:

| slice | what it keeps | what it shows |
|---|---|---|
| ``trip_slice`` | branches with work, where their conditions cost little | how often programs execute each block |
| ``access_slice`` | accesses that a ``Probe`` names, as stores of zeros | where programs read and write |
| ``hint_slice`` | hints, assumptions and assertions that cost little | which of them are false |
| ``barrier_slice`` | all that programs do at their own barriers | whether partitions wait for ever |
| ``script_slice`` | reads that decide, and the writes that they may see | what these reads give, see ``script`` |

Programs of a slice, but of a ``script_slice``, must be given the results of ``deciding_reads``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from avo.evaluator.executor.cutting import cut
from avo.evaluator.executor.effects import (
    ATOMIC,
    CONTROL,
    READS,
    UPDATES,
    WRITES,
    accessed_type,
    effects,
    stored,
)
from avo.evaluator.executor.errors import UnsupportedOperation
from avo.evaluator.executor.flow import conditions, followed, links
from avo.evaluator.executor.handing import LOAD, handing, loaded, signals
from avo.evaluator.executor.ir import COMBINING, Function, Op, Region, used_slots
from avo.evaluator.executor.operations.registry import VALUE_HINTS
from avo.evaluator.executor.pointers import may_overlap, origins, touched
from avo.evaluator.executor.waiting import waiting_loops


@dataclass(frozen=True, slots=True)
class Probe:
    """Which operations an ``access_slice`` keeps, by name."""

    shown: frozenset[str]
    """A store of zeros takes the place of each."""
    executed: frozenset[str] = frozenset()
    """They stay as they are."""


_LOADS = READS - WRITES
"""Operations that read and do not write."""
STORES = Probe(WRITES)
"""Where programs write."""
LOADS = Probe(_LOADS)
"""Where they read without writing."""
ACCESSES = Probe(READS | WRITES)
"""Where they read or write."""
BOUNDS = Probe(WRITES, _LOADS)
"""Where they write, and what is wrong with where they read. Its programs must not wait for each other."""
_RACING = Probe(WRITES - ATOMIC), Probe(WRITES & ATOMIC), Probe(READS - ATOMIC)
"""Where they store plainly, where they write atomically, and where they read plainly."""


def trip_slice(function: Function) -> Function:
    """Return a kernel with the same loops and trips that computes as little else as possible."""
    return _sliced(function, lambda op: False, waiting_loops(function), branches=followed(function))


def access_slice(
    function: Function, probe: Probe, params: Set[int] | None = None, told: Set[int] = frozenset()
) -> Function:
    """Return a kernel that shows accesses through the given parameters, of all by default.

    A pointer whose parameter is unknown may point to any of them. Accesses whose results are ``told`` are left out.
    """
    waiting = waiting_loops(function)
    probed = _Probed(function, probe.shown, params, told, _within(function, waiting))

    def keeps(op: Op) -> bool:
        return op.name in probe.executed or not probed.zeros.isdisjoint(op.operands)

    return _sliced(probed.function(), keeps, waiting)


def race_slices(function: Function, told: Set[int]) -> tuple[Function, ...]:
    """Return the slices that show plain stores, atomic writes, and plain reads of what the kernel may change."""
    changed = touched(function, WRITES)
    params = frozenset(slot for slot in function.params if None in changed or slot in changed)
    return tuple(access_slice(function, probe, params, told) for probe in _RACING)


def hint_slice(function: Function, told: Set[int], *, scalars: bool = False) -> Function:
    """Return a kernel that checks what it states to the compiler, as far as that costs little: what follows from ids,
    arguments, passes of loops and reads that are ``told``, without other reads and without matrix products; of
    ``scalars`` alone also without blocks.
    """
    waiting = waiting_loops(function)
    waits = _within(function, waiting)
    free = {id(op) for op in trip_slice(function).body.ops}

    def costly(op: Op) -> bool:
        row = effects(op.name)
        if scalars and any(function.types[slot].elements > 1 for slot in op.results):
            return True
        reads = row.reads or row.reads_chip
        return (reads and told.isdisjoint(op.results) and id(op) not in free) or row.work == "dot"

    def cheap(hint: Op) -> bool:
        try:
            sliced = _sliced(function, lambda op: op is hint, waiting)
        except UnsupportedOperation:
            return False
        return not any(costly(op) for op in sliced.body.ops)

    kept = {id(op) for op in function.body.ops if _states_hint(op) and id(op) not in waits and cheap(op)}
    return _sliced(function, lambda op: id(op) in kept, waiting)


def _states_hint(op: Op) -> bool:
    """Whether an operation is an assumption, an assertion, or has a hint on its results."""
    return op.name in ("llvm.intr.assume", "tt.assert") or not op.attributes.keys().isdisjoint(VALUE_HINTS)


def barrier_slice(function: Function, told: Set[int]) -> Function | None:
    """Return a kernel whose partitions arrive and wait at their barriers, and do nothing else; None if it has none.

    Raises ``UnsupportedOperation`` where that depends on what programs write, but for reads that are ``told``.
    """
    uses = {id(op): slots for op in function.body.ops if (slots := signals(op, function.types))}
    if not uses:
        return None
    sliced = _sliced(function, lambda op: id(op) in uses, waiting_loops(function), uses=uses)
    writes = [op for op in function.body.ops if op.name in WRITES]
    for read in _reads_of(sliced, writes, origins(function)):
        if told.isdisjoint(read.results):
            raise UnsupportedOperation("a wait at a barrier that depends on what programs write,", read.location)
    return sliced


def deciding_reads(function: Function) -> frozenset[int]:
    """Return the results of deciding reads: other programs of the launch may determine them, and they determine where a
    program reads or writes, or how often it loops. All results of atomic operations count that serve more than waiting,
    and what shared memory holds counts where it determines the same.
    """
    waiting = _within(function, waiting_loops(function))
    at_work = [op for op in function.body.ops if id(op) not in waiting]
    used = used_slots(at_work)
    found = {slot for op in at_work if op.name in READS & WRITES for slot in op.results if slot in used}
    params = origins(function)
    writes = [op for op in function.body.ops if op.name in WRITES]
    for probe in (STORES, LOADS):
        sliced = access_slice(function, probe)
        found.update(slot for op in _reads_of(sliced, writes, params) for slot in op.results)
        found.update(loaded(sliced))
    return frozenset(found)


def script_slice(function: Function, reads: Set[int]) -> Function:
    """Return a kernel that computes the given reads and the writes that programs make for each other to read.

    Its programs wait for each other if they write by operations other than those reads. If it loads from shared memory,
    it has what that takes, and needs a chip.
    """
    kept: list[Op] = []
    handed: frozenset[int] = frozenset()
    params = origins(function)
    draws = any(op.name in UPDATES and not reads.isdisjoint(op.results) for op in function.body.ops)
    waiting = frozenset[int]() if draws else waiting_loops(function)

    def keeps(op: Op) -> bool:
        return not reads.isdisjoint(op.results) or id(op) in handed or any(op is one for one in kept)

    while True:
        sliced = _sliced(function, keeps, frozenset() if kept else waiting, chip=True)
        inside = {id(op) for op in sliced.body.ops}
        outside = [op for op in function.body.ops if op.name in WRITES and id(op) not in inside]
        read = _reads_of(sliced, outside, params)
        before, handed = handed, handing(function, loaded(sliced))
        if not read and handed == before:
            _check_partitions(sliced, params)
            return sliced
        kept.extend(op for op in outside if may_overlap(read, [op], params))


def _check_partitions(sliced: Function, params: Mapping[int, int]) -> None:
    """Raise ``UnsupportedOperation`` where partitions that run side by side access memory that a slice writes to: a
    barrier that it leaves out may decide in which order.
    """
    writes = [op for op in sliced.body.ops if op.name in WRITES]
    for regions in (op.regions for op in sliced.body.ops if op.name == "ttg.warp_specialize"):
        inside = ([op for op in region.ops if effects(op.name).accesses] for region in regions)
        found = [ops for ops in inside if may_overlap(ops, writes, params)]
        if len(found) > 1:
            what = "a loop or an address that depends on what several partitions do to memory that programs write,"
            raise UnsupportedOperation(what, found[1][0].location)


def _reads_of(sliced: Function, writes: Sequence[Op], params: Mapping[int, int]) -> list[Op]:
    """Return the reads of a slice that may see the given writes; ``params`` are the ``origins`` of the function."""
    return [op for op in sliced.body.ops if op.name in READS and may_overlap([op], writes, params)]


def _within(function: Function, loops: Set[int]) -> frozenset[int]:
    """Return the identities of the operations inside loops."""
    outer = [op for op in function.body.ops if op.loop in loops]
    return frozenset(id(inner) for op in outer for inner in op.nested)


def _sliced(
    function: Function,
    keeps: Callable[[Op], bool],
    waiting: Set[int],
    *,
    branches: Set[int] = frozenset(),
    chip: bool = False,
    uses: Mapping[int, tuple[int, ...]] | None = None,
) -> Function:
    """Return the part of a function that its loops but the ``waiting`` ones, ``branches`` and the operations to keep
    depend on; of what is kept, only the operands that ``uses`` has by its identity, if given.

    Only a slice with a ``chip`` computes loads from shared memory: of others, a script has them.
    """
    needed = _Needed(keeps, branches, waiting, chip=chip)
    needed.uses = uses or {}
    while needed.grew:
        needed.grew = False
        needed.region(function.body)
    return replace(function, body=cut(function.body, needed.slots, needed.acts))


class _Probed:
    """A kernel with a store of zeros before each operation of given names that may access memory through ``params``."""

    def __init__(
        self, function: Function, names: Set[str], params: Set[int] | None, told: Set[int], waiting: Set[int]
    ) -> None:
        """Operations with results that are ``told`` have none, nor those whose identity is in ``waiting``."""
        self.zeros: set[int] = set()
        """The slots of the zeros."""
        self._function = function
        self._types = list(function.types)
        self._origins = origins(function)
        self._names = names
        self._params = function.params if params is None else params
        self._told = told
        self._waiting = waiting

    def function(self) -> Function:
        """Return it."""
        return replace(self._function, body=self._region(self._function.body), types=tuple(self._types))

    def _region(self, region: Region) -> Region:
        return Region(tuple(replace(b, ops=tuple(new for op in b.ops for new in self._op(op))) for b in region.blocks))

    def _op(self, op: Op) -> Iterator[Op]:
        if op.name not in self._names or id(op) in self._waiting or not self._told.isdisjoint(op.results):
            yield replace(op, regions=tuple(self._region(region) for region in op.regions))
            return
        origin = self._origins.get(op.operands[0])
        if origin is None or origin in self._params:
            yield from self._store_of_zeros(op)
        yield op

    def _store_of_zeros(self, op: Op) -> Iterator[Op]:
        zero, kind = len(self._types), accessed_type(op, self._types)
        self._types.append(kind)
        self.zeros.add(zero)
        yield Op("arith.constant", (), (zero,), op.location, ("dense<0>" if kind.shape else "0",))
        yield stored(op, zero)


class _Needed:
    """Slots that trips, passes through ``branches`` and the operations to keep depend on.

    Grows until a pass over the kernel adds none.
    """

    def __init__(self, keeps: Callable[[Op], bool], branches: Set[int], waiting: Set[int], *, chip: bool) -> None:
        self.slots: set[int] = set()
        self.grew = True
        self.uses: Mapping[int, tuple[int, ...]] = {}
        self._keeps = keeps
        self._branches = branches
        self._waiting = waiting
        self._chip = chip

    def acts(self, op: Op) -> bool:
        """Whether an operation is or contains a loop that does not just wait, a followed branch or what is kept."""
        return any(
            (one.loop is not None and one.loop not in self._waiting)
            or self._keeps(one)
            or any(region.blocks[0].index in self._branches for region in one.regions[:1])
            for one in (op, *op.nested)
        )

    def _add(self, *slots: int) -> None:
        if not self.slots.issuperset(slots):
            self.slots.update(slots)
            self.grew = True

    def _link(self, targets: tuple[int, ...], sources: tuple[int, ...]) -> None:
        for target, source in zip(targets, sources, strict=True):
            if target in self.slots:
                self._add(source)

    def region(self, region: Region) -> None:
        arguments = {block.label: block.args for block in region.blocks}
        for block in reversed(region.blocks):
            for op in reversed(block.ops):
                self._op(op, arguments)

    def _op(self, op: Op, arguments: dict[str, tuple[int, ...]]) -> None:
        needed = not self.slots.isdisjoint(op.results)
        for targets, sources in links(op, arguments):
            self._link(targets, sources)
        if op.name in CONTROL:
            if op.name not in ("scf.if", "scf.while") or needed or self.acts(op):
                self._add(*conditions(op))
        elif op.name == "ttng.clc_load_result" or (op.name == LOAD and not self._chip):
            pass  # in a slice no program takes over another; a script has what is loaded
        elif needed or self._keeps(op):
            if needed and effects(op.name).reads_chip and op.name != LOAD:
                raise UnsupportedOperation("a loop or an address that depends on what shared memory holds", op.location)
            if self._keeps(op) and effects(op.name).on_chip and effects(op.name).writes:
                raise UnsupportedOperation("what programs hand to each other out of shared memory", op.location)
            self._add(*self.uses.get(id(op), op.operands))
        if op.name not in COMBINING:
            for region in op.regions:
                self.region(region)
        elif needed or self.acts(op):
            self._add(*op.operands, *(slot for inner in op.regions[0].ops for slot in inner.operands))
