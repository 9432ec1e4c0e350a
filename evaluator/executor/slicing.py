"""Cuts a kernel down to what decides how often its loops run and where it reads and writes."""

from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import replace

from avo.evaluator.executor.cutting import cut
from avo.evaluator.executor.effects import (
    ATOMIC,
    CONTROL,
    READS,
    UPDATES,
    WRITES,
    accessed_type,
    effects,
    is_volatile,
    stored,
)
from avo.evaluator.executor.errors import UnsupportedOperation
from avo.evaluator.executor.flow import conditions, followed, links
from avo.evaluator.executor.handing import LOAD, handing, loaded
from avo.evaluator.executor.ir import COMBINING, Function, Op, Region
from avo.evaluator.executor.operations.registry import VALUE_HINTS
from avo.evaluator.executor.waiting import waiting_loops
from avo.evaluator.plan import Argument, Scalar


def trip_slice(function: Function) -> Function:
    """Return a kernel with the same loops and trips that computes as little else as possible.

    Its programs must be given the results of ``deciding_reads``. Branches that contain work are kept where that is
    cheap, so that passes through their blocks can be counted.
    """
    return _sliced(function, lambda op: False, waiting_loops(function), followed(function))


def store_slice(function: Function, params: Set[int]) -> Function:
    """Return the ``trip_slice`` of a kernel with its stores through the given parameters, of zeros in place of values.

    A pointer whose parameter is unknown may point to any of them. Its programs must be given the results of
    ``deciding_reads``.
    """
    return _hollow(function, params, WRITES, frozenset())


def read_slice(function: Function, params: Set[int], told: Set[int] = frozenset()) -> Function:
    """Return a kernel that stores zeros wherever it may load through the given parameters, and nothing else.

    Atomic operations, loops that wait, and loads whose results are ``told`` are left out. Otherwise like
    ``store_slice``.
    """
    return _hollow(function, params, READS - WRITES, told)


def access_slice(function: Function, told: Set[int] = frozenset()) -> Function:
    """Return a kernel that stores zeros wherever it reads or writes, and does nothing else. Like ``read_slice``."""
    return _hollow(function, frozenset(function.params), READS | WRITES, told)


def bounds_slice(function: Function) -> Function:
    """Return a kernel that loads all that a kernel loads and stores zeros wherever it writes. It computes nothing but
    what that takes. Its programs must not wait for each other. Otherwise like ``store_slice``.
    """
    return _hollow(function, frozenset(function.params), WRITES, frozenset(), READS - WRITES)


def promise_slice(function: Function, told: Set[int], *, scalars: bool = False) -> Function:
    """Return a kernel that checks its promises to the compiler as far as that costs little, and does nothing else.

    It checks those that follow from ids, arguments, passes of loops and reads that are ``told``, without other reads
    and without matrix products. Otherwise like ``store_slice``.
    """
    waiting = waiting_loops(function)
    waits = _within(function, waiting)
    free = {id(op) for op in trip_slice(function).body.ops}

    def dear(op: Op) -> bool:
        row = effects(op.name)
        if scalars and any(function.types[slot].elements > 1 for slot in op.results):
            return True
        reads = row.reads or row.reads_chip
        return (reads and told.isdisjoint(op.results) and id(op) not in free) or row.work == "dot"

    def cheap(promise: Op) -> bool:
        try:
            sliced = _sliced(function, lambda op: op is promise, waiting, frozenset())
        except UnsupportedOperation:
            return False
        return not any(dear(op) for op in sliced.body.ops)

    kept = {id(op) for op in function.body.ops if _promises(op) and id(op) not in waits and cheap(op)}
    return _sliced(function, lambda op: id(op) in kept, waiting, frozenset())


def meeting_slices(function: Function, told: Set[int] = frozenset()) -> tuple[Function, Function, Function]:
    """Return the slices that store zeros in place of plain stores, of atomic operations that write, and of plain reads
    of what the kernel may change. Otherwise like ``read_slice``.
    """
    changed = touched(function, WRITES)
    params = frozenset(slot for slot in function.params if None in changed or slot in changed)
    stores, updates, reads = (
        _hollow(function, params, names, told) for names in (WRITES - ATOMIC, WRITES & ATOMIC, READS - ATOMIC)
    )
    return stores, updates, reads


def deciding_reads(function: Function) -> frozenset[int]:
    """Return the results of deciding reads: other programs of the launch may determine them, and they determine where a
    program reads or writes, or how often it loops. All results of atomic operations count that serve more than waiting,
    and what shared memory holds counts where it determines the same.
    """
    waiting = _within(function, waiting_loops(function))
    at_work = [op for op in function.body.ops if id(op) not in waiting]
    used = {slot for op in at_work for slot in op.operands}
    used.update(slot for op in at_work for _, values in op.successors for slot in values)
    found = {slot for op in at_work if op.name in READS & WRITES for slot in op.results if slot in used}
    params, origins = frozenset(function.params), _origins(function)
    writes = [op for op in function.body.ops if op.name in WRITES]
    for sliced in (store_slice(function, params), read_slice(function, params)):
        found.update(slot for op in _overlapping(sliced, writes, origins) for slot in op.results)
        found.update(loaded(sliced))
    return frozenset(found)


def script_slice(function: Function, reads: Set[int]) -> Function:
    """Return a kernel that computes the given reads and the writes that programs make for each other to read.

    Its programs wait for each other if they write by operations other than those reads. If it loads from shared memory,
    it has what that takes, and needs a chip.
    """
    kept: list[Op] = []
    handed: frozenset[int] = frozenset()
    origins = _origins(function)
    draws = any(op.name in UPDATES and not reads.isdisjoint(op.results) for op in function.body.ops)
    waiting = frozenset[int]() if draws else waiting_loops(function)

    def keeps(op: Op) -> bool:
        return not reads.isdisjoint(op.results) or id(op) in handed or any(op is one for one in kept)

    while True:
        sliced = _sliced(function, keeps, frozenset() if kept else waiting, frozenset(), chip=True)
        left_out = _left_out(function, sliced)
        read = _overlapping(sliced, left_out, origins)
        before, handed = handed, handing(function, loaded(sliced))
        if not read and handed == before:
            _check_partitions(sliced, origins)
            return sliced
        kept.extend(op for op in left_out if _may_overlap(read, [op], origins))


def _check_partitions(sliced: Function, origins: Mapping[int, int]) -> None:
    """Raise ``UnsupportedOperation`` where partitions that run side by side access memory that a slice writes to: a
    barrier that it leaves out may decide in which order.
    """
    writes = [op for op in sliced.body.ops if op.name in WRITES]
    for regions in (op.regions for op in sliced.body.ops if op.name == "ttg.warp_specialize"):
        inside = ([op for op in region.ops if effects(op.name).accesses] for region in regions)
        found = [ops for ops in inside if _may_overlap(ops, writes, origins)]
        if len(found) > 1:
            what = "a loop or an address that depends on what several partitions do to memory that programs write,"
            raise UnsupportedOperation(what, found[1][0].location)


def _sliced(
    function: Function, keeps: Callable[[Op], bool], waiting: Set[int], branches: Set[int], *, chip: bool = False
) -> Function:
    """Return the part of a function that its loops, its branches and the operations to keep depend on.

    Loops that wait are left out. Without a ``chip``, loads from shared memory are not computed: a script has them.
    """
    needed = _Needed(keeps, branches, waiting, chip=chip)
    while needed.grew:
        needed.grew = False
        needed.region(function.body)
    return replace(function, body=cut(function.body, needed.slots, needed.acts))


def _hollow(
    function: Function, params: Set[int], names: Collection[str], but: Set[int], kept: Collection[str] = ()
) -> Function:
    waiting = waiting_loops(function)
    hollow = _Hollow(function, params, names, but, _within(function, waiting))
    filled = replace(function, body=hollow.region(function.body), types=tuple(hollow.types))

    def keeps(op: Op) -> bool:
        return op.name in kept or not hollow.zeros.isdisjoint(op.operands)

    return _sliced(filled, keeps, waiting, frozenset())


def _within(function: Function, loops: Set[int]) -> frozenset[int]:
    """Return the identities of the operations inside loops."""
    outer = [op for op in function.body.ops if op.loop in loops]
    return frozenset(id(inner) for op in outer for inner in op.nested)


def _left_out(function: Function, sliced: Function) -> list[Op]:
    """Return the writes of a function that are not in its slice."""
    kept = {id(op) for op in sliced.body.ops}
    return [op for op in function.body.ops if op.name in WRITES and id(op) not in kept]


def _overlapping(sliced: Function, writes: Sequence[Op], origins: Mapping[int, int]) -> list[Op]:
    """Return the reads of a slice that may see the given writes; ``origins`` are those of the whole function."""
    return [op for op in sliced.body.ops if op.name in READS and _may_overlap([op], writes, origins)]


def touched(function: Function, names: Collection[str]) -> frozenset[int | None]:
    """Return the parameters through which operations of the given names access memory, None for one that is unclear."""
    origins = _origins(function)
    return frozenset(origins.get(op.operands[0]) for op in function.body.ops if op.name in names)


def behind(function: Function, params: Set[int | None], args: Sequence[Argument]) -> frozenset[int]:
    """Return the buffers behind parameters; all buffers of the launch if a parameter is unknown (None)."""
    return frozenset(
        argument.buffer
        for slot, argument in zip(function.params, args, strict=False)
        if not isinstance(argument, Scalar) and (slot in params or None in params)
    )


def item_sizes(function: Function) -> dict[int | None, int]:
    """Return the bytes of the smallest item accessed through each parameter, None for one that is unclear."""
    origins = _origins(function)
    sizes: dict[int | None, int] = {}
    for op in function.body.ops:
        target = function.types[op.operands[0]].target if effects(op.name).accesses else None
        if target is not None:
            origin = origins.get(op.operands[0])
            sizes[origin] = min(sizes.get(origin, target.item_bytes), target.item_bytes)
    return sizes


def granules(function: Function, args: Sequence[Argument], buffers: Set[int]) -> dict[int, int]:
    """Return the bytes of the smallest access to each of some buffers that a launch with arguments may access."""
    sizes = item_sizes(function)
    params = dict(zip(function.params, args, strict=False))

    def may_reach(slot: int | None, buffer: int) -> bool:
        return slot is None or (not isinstance(argument := params[slot], Scalar) and argument.buffer == buffer)

    return {buffer: min(size for slot, size in sizes.items() if may_reach(slot, buffer)) for buffer in buffers}


def replaced(function: Function, args: Sequence[Argument], item_bytes: Sequence[int]) -> frozenset[int]:
    """Return the buffers, with elements of ``item_bytes``, that a launch writes to by plain stores of whole elements
    alone.
    """
    written, updated = (behind(function, touched(function, names), args) for names in (WRITES, UPDATES))
    smallest = granules(function, args, written - updated)
    return frozenset(buffer for buffer, size in smallest.items() if size >= item_bytes[buffer])


def _promises(op: Op) -> bool:
    """Whether an operation promises something: an assumption, an assertion, or a hint on its results."""
    return op.name in ("llvm.intr.assume", "tt.assert") or not op.attributes.keys().isdisjoint(VALUE_HINTS)


def programs_interact(function: Function) -> bool:
    """Whether a program may act on what others did before, through the result of an atomic or volatile operation."""
    used = used_slots(function)

    def acts(op: Op) -> bool:
        row = effects(op.name)
        return row.waits or (((row.atomic and row.reads) or is_volatile(op)) and not used.isdisjoint(op.results))

    return any(acts(op) for op in function.body.ops)


def used_slots(function: Function) -> frozenset[int]:
    """Return the slots that some operation uses."""
    used = {slot for op in function.body.ops for slot in op.operands}
    used.update(slot for op in function.body.ops for _, values in op.successors for slot in values)
    return frozenset(used)


def _may_overlap(reads: Sequence[Op], writes: Sequence[Op], origins: Mapping[int, int]) -> bool:
    read = {origins.get(op.operands[0]) for op in reads}
    written = {origins.get(op.operands[0]) for op in writes}
    return bool(written) and (None in read | written or bool(read & written))


def _origins(function: Function) -> dict[int, int]:
    """Map pointers to the parameter that they are computed from. Pointers whose parameter is unknown are left out.

    Parameters that point into one buffer count as the first of them. Where addresses become numbers, differences lead
    from any buffer to any other, so all pointers are unknown.
    """
    if any(op.name == "tt.ptr_to_int" for op in function.body.ops):
        return {}
    origins = {slot: function.aliases.get(slot, slot) for slot in function.params}
    for op in function.body.ops:
        passes = effects(op.name).rearranges or op.name in ("tt.addptr", "tt.make_tensor_descriptor")
        if passes and op.operands[0] in origins:
            origins[op.results[0]] = origins[op.operands[0]]
        if op.name == "ttg.warp_specialize":
            inside = (slot for partition in op.regions[1:] for slot in partition.args)
            pairs = zip(inside, op.operands, strict=True)
            origins.update((inner, origins[outer]) for inner, outer in pairs if outer in origins)
    return origins


class _Hollow:
    """Puts a store of zeros before each operation of given names that accesses memory through given parameters."""

    def __init__(
        self, function: Function, params: Set[int], names: Collection[str], but: Set[int], waiting: Set[int]
    ) -> None:
        """Leave out operations with results in ``but``, and those whose identity is in ``waiting``."""
        self.types = list(function.types)
        self.zeros: set[int] = set()
        self._origins = _origins(function)
        self._params = params
        self._names = names
        self._but = but
        self._waiting = waiting

    def region(self, region: Region) -> Region:
        """Return a region whose accesses are preceded by stores of zeros."""
        return Region(tuple(replace(b, ops=tuple(new for op in b.ops for new in self._op(op))) for b in region.blocks))

    def _op(self, op: Op) -> tuple[Op, ...]:
        if op.name not in self._names or id(op) in self._waiting or not self._but.isdisjoint(op.results):
            return (replace(op, regions=tuple(self.region(region) for region in op.regions)),)
        origin = self._origins.get(op.operands[0])
        return (op,) if origin is not None and origin not in self._params else (*self._zeros(op), op)

    def _zeros(self, op: Op) -> tuple[Op, Op]:
        zero, kind = len(self.types), accessed_type(op, self.types)
        self.types.append(kind)
        self.zeros.add(zero)
        constant = Op("arith.constant", (), (zero,), op.location, ("dense<0>" if kind.shape else "0",))
        return constant, stored(op, zero)


class _Needed:
    """Slots that trips, passes through ``branches`` and the operations to keep depend on.

    Grows until a pass over the kernel adds none.
    """

    def __init__(self, keeps: Callable[[Op], bool], branches: Set[int], waiting: Set[int], *, chip: bool) -> None:
        self.slots: set[int] = set()
        self.grew = True
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
            self._add(*op.operands)
        if op.name not in COMBINING:
            for region in op.regions:
                self.region(region)
        elif needed or self.acts(op):
            self._add(*op.operands, *(slot for inner in op.regions[0].ops for slot in inner.operands))
