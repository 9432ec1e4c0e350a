"""Cuts a kernel down to what decides how often its loops run and where it stores, and to what those depend on."""

from collections.abc import Collection, Sequence, Set
from dataclasses import replace

from evaluator.executor.flow import ATOMICS, READS, WRITES, conditions, followed, links
from evaluator.executor.ir import COMBINING, Block, Function, Op, Region, walk
from evaluator.executor.waiting import is_volatile, waiting_loops

_CONTROL = ("scf.for", "scf.while", "scf.if", "tt.call", "cf.br", "cf.cond_br", "tt.return")
_VALUE_AT = {"tt.store": 1, "tt.atomic_store": 1, "tt.atomic_rmw": 1}
"""Where the written value is among the operands, unless it is the last one."""


def trip_slice(function: Function) -> Function:
    """Return a kernel with the same loops and trips that computes as little else as possible.

    It writes by those atomic operations only whose results decide, such as the ticket of a tile. A kernel whose bounds
    depend on memory that it may change in other ways is returned whole. Branches with work in them are kept where that
    is cheap, so that passes through their blocks can be counted.
    """
    return _sliced(function, function, frozenset(), followed(function)) or function


def store_slice(function: Function, params: Set[int]) -> Function | None:
    """Return a kernel that also stores, zeros in place of values, whatever it may store through the given parameters.

    A pointer that is not simply computed from a parameter may be any of them. The result is None where addresses or
    masks depend on memory that the kernel may change other than by atomic operations whose results decide.
    """
    hollow = _Hollow(function, params)
    body = hollow.region(function.body)
    return _sliced(function, replace(function, body=body, types=tuple(hollow.types)), hollow.zeros, frozenset())


def _sliced(original: Function, function: Function, zeros: Set[int], branches: Set[int]) -> Function | None:
    """Return what is needed of ``function``, None if it reads what it would have to write but for the cut."""
    needed = _Needed(zeros, branches, waiting_loops(function))
    while needed.grew:
        needed.grew = False
        needed.region(function.body)
    sliced = replace(function, body=_cut(function.body, needed))
    reads = [op for op in walk(sliced.body) if op.name in READS]
    left_out = [op for op in walk(original.body) if op.name in WRITES and not needed.slots.intersection(op.results)]
    return None if reads and _may_overlap(reads, left_out, function) else sliced


def touched(function: Function, names: Collection[str]) -> frozenset[int | None]:
    """Return the parameters through which operations of the given names access memory, None for one that is unclear."""
    origins = _origins(function)
    return frozenset(origins.get(op.operands[0]) for op in walk(function.body) if op.name in names)


def item_sizes(function: Function) -> dict[int | None, int]:
    """Return the bytes of the smallest item accessed through each parameter, None for one that is unclear."""
    origins = _origins(function)
    sizes: dict[int | None, int] = {}
    for op in walk(function.body):
        target = function.types[op.operands[0]].target if op.name in (*READS, *WRITES) else None
        if target is not None:
            origin = origins.get(op.operands[0])
            sizes[origin] = min(sizes.get(origin, target.item_bytes), target.item_bytes)
    return sizes


def changes_memory(function: Function) -> bool:
    """Whether running a kernel may write to memory."""
    return any(op.name in WRITES for op in walk(function.body))


def programs_interact(function: Function) -> bool:
    """Whether a program may act on what others did before it: on the result of an atomic or volatile operation."""
    used = used_slots(function)
    acting = (*ATOMICS, "tt.atomic_load")
    return any(
        op.name == "tt.atomic_poll" or ((op.name in acting or is_volatile(op)) and not used.isdisjoint(op.results))
        for op in walk(function.body)
    )


def used_slots(function: Function) -> frozenset[int]:
    """Return the slots that some operation uses."""
    used = {slot for op in walk(function.body) for slot in op.operands}
    used.update(slot for op in walk(function.body) for _, values in op.successors for slot in values)
    return frozenset(used)


def _may_overlap(reads: Sequence[Op], writes: Sequence[Op], function: Function) -> bool:
    origins = _origins(function)
    read = {origins.get(op.operands[0]) for op in reads}
    written = {origins.get(op.operands[0]) for op in writes}
    return bool(written) and (None in read | written or bool(read & written))


_POINTER_CHAIN = ("tt.addptr", "tt.splat", "tt.broadcast", "tt.expand_dims", "tt.bitcast", "tt.make_tensor_descriptor")


def _origins(function: Function) -> dict[int, int]:
    """Map pointers to the parameter they are computed from; one that is not simply computed is left out."""
    origins = {slot: slot for slot in function.params}
    for op in walk(function.body):
        if op.name in _POINTER_CHAIN and op.operands[0] in origins:
            origins[op.results[0]] = origins[op.operands[0]]
    return origins


class _Hollow:
    """Puts stores of zeros before whatever writes through some parameters."""

    def __init__(self, function: Function, params: Set[int]) -> None:
        self.types = list(function.types)
        self.zeros: set[int] = set()
        self._origins = _origins(function)
        self._params = params

    def region(self, region: Region) -> Region:
        """Return a region whose writes are preceded by stores of zeros."""
        return Region(tuple(replace(b, ops=tuple(new for op in b.ops for new in self._op(op))) for b in region.blocks))

    def _op(self, op: Op) -> tuple[Op, ...]:
        if op.name not in WRITES:
            return (replace(op, regions=tuple(self.region(region) for region in op.regions)),)
        origin = self._origins.get(op.operands[0])
        return (op,) if origin is not None and origin not in self._params else (*self._zeros(op), op)

    def _zeros(self, op: Op) -> tuple[Op, Op]:
        at = _VALUE_AT.get(op.name, len(op.operands) - 1)
        zero, kind = len(self.types), self.types[op.operands[at]]
        self.types.append(kind)
        self.zeros.add(zero)
        operands = (*op.operands[:at], zero, *op.operands[at + 1 :])
        if op.name in ATOMICS:
            store = Op("tt.store", (op.operands[0], zero, *op.operands[at + 1 :]), (), op.location)
        elif op.name == "tt.descriptor_reduce":
            store = Op("tt.descriptor_store", operands, (), op.location)
        else:
            store = replace(op, operands=operands)
        return Op("arith.constant", (), (zero,), op.location, ("dense<0>" if kind.shape else "0",)), store


class _Needed:
    """Slots that decide about trips, about passes through ``branches`` and about stores of ``zeros``.

    Grows until a pass over the kernel adds none.
    """

    def __init__(self, zeros: Set[int], branches: Set[int], waiting: Set[int]) -> None:
        self.slots: set[int] = set()
        self.grew = True
        self._zeros = zeros
        self._branches = branches
        self._waiting = waiting

    def acts(self, op: Op) -> bool:
        """Whether an operation is, or holds, a loop that does more than wait, a followed branch or a store of zeros."""
        nested = (inner for region in op.regions for inner in walk(region))
        return any(
            (one.loop is not None and one.loop not in self._waiting)
            or not self._zeros.isdisjoint(one.operands)
            or any(region.blocks[0].index in self._branches for region in one.regions[:1])
            for one in (op, *nested)
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
        if op.name in _CONTROL:
            if op.name not in ("scf.if", "scf.while") or needed or self.acts(op):
                self._add(*conditions(op))
        elif needed or not self._zeros.isdisjoint(op.operands):
            self._add(*op.operands)
        if op.name not in COMBINING:
            for region in op.regions:
                self.region(region)
        elif needed:
            self._add(*(slot for inner in walk(op.regions[0]) for slot in inner.operands))


def _pick(slots: tuple[int, ...], targets: tuple[int, ...], needed: set[int]) -> tuple[int, ...]:
    """Return those of ``slots`` whose counterpart in ``targets`` is needed."""
    return tuple(slot for slot, target in zip(slots, targets, strict=True) if target in needed)


def _cut(region: Region, needed: _Needed) -> Region:
    arguments = {block.label: block.args for block in region.blocks}
    return Region(tuple(_cut_block(block, needed, arguments) for block in region.blocks))


def _cut_block(block: Block, needed: _Needed, arguments: dict[str, tuple[int, ...]]) -> Block:
    ops = []
    for op in block.ops[:-1]:
        if needed.acts(op) or needed.slots.intersection(op.results):
            ops.append(_cut_op(op, needed))
    last = block.ops[-1]
    successors = tuple((label, _pick(values, arguments[label], needed.slots)) for label, values in last.successors)
    ops.append(replace(last, successors=successors))
    return replace(block, args=_pick(block.args, block.args, needed.slots), ops=tuple(ops))


def _cut_op(op: Op, kept: _Needed) -> Op:
    if not op.regions or op.name in COMBINING:
        return op
    needed = kept.slots
    results = _pick(op.results, op.results, needed)
    regions = tuple(_cut(region, kept) for region in op.regions)
    operands = op.operands
    if op.name == "scf.for":
        variable, *carried = op.regions[0].args
        places = tuple(i for i, slot in enumerate(carried) if slot in needed)
        operands = (*op.operands[:3], *(op.operands[3 + i] for i in places))
        yields = tuple(regions[0].terminator.operands[i] for i in places)
        results = tuple(op.results[i] for i in places)
        regions = (_with_ends(regions[0], (variable, *(carried[i] for i in places)), yields),)
    elif op.name == "scf.while":
        before, after = op.regions
        condition, *forwarded = before.terminator.operands
        places = tuple(i for i, slot in enumerate(after.args) if slot in needed or op.results[i] in needed)
        operands = _pick(op.operands, before.args, needed)
        yields = _pick(after.terminator.operands, before.args, needed)
        results = tuple(op.results[i] for i in places)
        regions = (
            _with_ends(regions[0], regions[0].args, (condition, *(forwarded[i] for i in places))),
            _with_ends(regions[1], tuple(after.args[i] for i in places), yields),
        )
    elif op.name == "scf.if":
        regions = tuple(
            _with_ends(new, new.args, _pick(old.terminator.operands, op.results, needed))
            for new, old in zip(regions, op.regions, strict=True)
        )
    elif op.name == "tt.call":
        operands = _pick(op.operands, op.regions[0].args, needed)
        regions = (_with_returns(regions[0], op.results, needed),)
    return replace(op, operands=operands, results=results, regions=regions)


def _with_ends(region: Region, args: tuple[int, ...], ends: tuple[int, ...]) -> Region:
    (block,) = region.blocks
    return Region((replace(block, args=args, ops=(*block.ops[:-1], replace(block.ops[-1], operands=ends))),))


def _with_returns(region: Region, results: tuple[int, ...], needed: set[int]) -> Region:
    blocks = []
    for block in region.blocks:
        last = block.ops[-1]
        if last.name == "tt.return":
            last = replace(last, operands=_pick(last.operands, results, needed))
        blocks.append(replace(block, ops=(*block.ops[:-1], last)))
    return Region(tuple(blocks))
