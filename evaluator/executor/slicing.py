"""Cuts a kernel down to what decides how often its loops run: bounds, conditions and what those depend on."""

from dataclasses import replace

from evaluator.executor.ir import Block, Function, Op, Region, walk

_BRANCHES = ("cf.br", "cf.cond_br", "tt.return")
_READS = ("tt.load", "tt.descriptor_load", "tt.descriptor_gather", "tt.atomic_rmw", "tt.atomic_cas")
_WRITES = (
    "tt.store",
    "tt.atomic_rmw",
    "tt.atomic_cas",
    "tt.descriptor_store",
    "tt.descriptor_reduce",
    "tt.descriptor_scatter",
)


def trip_slice(function: Function) -> Function:
    """Return a kernel with the same loops and trips that computes as little else as possible and stores nothing.

    A kernel whose bounds depend on memory that it may itself change is returned whole.
    """
    needed = _Needed()
    while needed.grew:
        needed.grew = False
        needed.region(function.body)
    sliced = Function(function.name, _cut(function.body, needed.slots), function.types)
    names = [op.name for op in walk(sliced.body)]
    if any(name in _WRITES for name in names) or (
        any(name in _READS for name in names) and _may_read_own_writes(sliced, function)
    ):
        return function
    return sliced


def changes_memory(function: Function) -> bool:
    """Whether running a kernel may write to memory."""
    return any(op.name in _WRITES for op in walk(function.body))


def _may_read_own_writes(sliced: Function, function: Function) -> bool:
    origins = _origins(function)
    read = [origins.get(op.operands[0]) for op in walk(sliced.body) if op.name in _READS]
    written = [origins.get(op.operands[0]) for op in walk(function.body) if op.name in _WRITES]
    return None in read or None in written or bool(set(read) & set(written))


_POINTER_CHAIN = ("tt.addptr", "tt.splat", "tt.broadcast", "tt.expand_dims", "tt.bitcast", "tt.make_tensor_descriptor")


def _origins(function: Function) -> dict[int, int]:
    """Map pointers to the parameter they are computed from; one that is not simply computed is left out."""
    origins = {slot: slot for slot in function.params}
    for op in walk(function.body):
        if op.name in _POINTER_CHAIN and op.operands[0] in origins:
            origins[op.results[0]] = origins[op.operands[0]]
    return origins


class _Needed:
    """Slots that decide about trips; grows until a pass over the kernel adds none."""

    def __init__(self) -> None:
        self.slots: set[int] = set()
        self.grew = True

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
        results = op.results
        if op.name == "scf.for":
            (body,) = op.regions
            carried, yields, initial = body.args[1:], body.terminator.operands, op.operands[3:]
            self._add(*op.operands[:3])
            self._link(results, carried)
            self._link(carried, yields)
            self._link(carried, initial)
        elif op.name == "scf.while":
            before, after = op.regions
            condition, *forwarded = before.terminator.operands
            self._add(condition)
            self._link(results, tuple(forwarded))
            self._link(after.args, tuple(forwarded))
            self._link(before.args, op.operands)
            self._link(before.args, after.terminator.operands)
        elif op.name == "scf.if":
            if _has_loops(op) or self.slots.intersection(results):
                self._add(op.operands[0])
            for region in op.regions:
                self._link(results, region.terminator.operands)
        elif op.name == "tt.call":
            (body,) = op.regions
            for block in body.blocks:
                if block.ops[-1].name == "tt.return":
                    self._link(results, block.ops[-1].operands)
            self._link(body.args, op.operands)
        elif op.name in _BRANCHES:
            if op.name == "cf.cond_br":
                self._add(op.operands[0])
            for label, values in op.successors:
                self._link(arguments.get(label, ()), values)
        elif self.slots.intersection(results):
            self._add(*op.operands)
        if op.name not in ("tt.reduce", "tt.scan"):
            for region in op.regions:
                self.region(region)
        elif self.slots.intersection(results):
            self._add(*(slot for inner in walk(op.regions[0]) for slot in inner.operands))


def _has_loops(op: Op) -> bool:
    return op.loop is not None or any(inner.loop is not None for region in op.regions for inner in walk(region))


def _pick(slots: tuple[int, ...], targets: tuple[int, ...], needed: set[int]) -> tuple[int, ...]:
    """Return those of ``slots`` whose counterpart in ``targets`` is needed."""
    return tuple(slot for slot, target in zip(slots, targets, strict=True) if target in needed)


def _cut(region: Region, needed: set[int]) -> Region:
    arguments = {block.label: block.args for block in region.blocks}
    return Region(tuple(_cut_block(block, needed, arguments) for block in region.blocks))


def _cut_block(block: Block, needed: set[int], arguments: dict[str, tuple[int, ...]]) -> Block:
    ops = []
    for op in block.ops[:-1]:
        if _has_loops(op) or needed.intersection(op.results):
            ops.append(_cut_op(op, needed))
    last = block.ops[-1]
    successors = tuple((label, _pick(values, arguments[label], needed)) for label, values in last.successors)
    return Block(block.label, _pick(block.args, block.args, needed), (*ops, replace(last, successors=successors)))


def _cut_op(op: Op, needed: set[int]) -> Op:
    if not op.regions or op.name in ("tt.reduce", "tt.scan"):
        return op
    results = _pick(op.results, op.results, needed)
    regions = tuple(_cut(region, needed) for region in op.regions)
    operands = op.operands
    if op.name == "scf.for":
        variable, *carried = op.regions[0].args
        kept = tuple(i for i, slot in enumerate(carried) if slot in needed)
        operands = (*op.operands[:3], *(op.operands[3 + i] for i in kept))
        yields = tuple(regions[0].terminator.operands[i] for i in kept)
        results = tuple(op.results[i] for i in kept)
        regions = (_with_ends(regions[0], (variable, *(carried[i] for i in kept)), yields),)
    elif op.name == "scf.while":
        before, after = op.regions
        condition, *forwarded = before.terminator.operands
        kept = tuple(i for i, slot in enumerate(after.args) if slot in needed or op.results[i] in needed)
        operands = _pick(op.operands, before.args, needed)
        yields = _pick(after.terminator.operands, before.args, needed)
        results = tuple(op.results[i] for i in kept)
        regions = (
            _with_ends(regions[0], regions[0].args, (condition, *(forwarded[i] for i in kept))),
            _with_ends(regions[1], tuple(after.args[i] for i in kept), yields),
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
    return Region((Block(block.label, args, (*block.ops[:-1], replace(block.ops[-1], operands=ends))),))


def _with_returns(region: Region, results: tuple[int, ...], needed: set[int]) -> Region:
    blocks = []
    for block in region.blocks:
        last = block.ops[-1]
        if last.name == "tt.return":
            last = replace(last, operands=_pick(last.operands, results, needed))
        blocks.append(Block(block.label, block.args, (*block.ops[:-1], last)))
    return Region(tuple(blocks))
