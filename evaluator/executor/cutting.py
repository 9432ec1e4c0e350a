"""Cuts operations out of regions, and out of what control flow passes on the values that only they need."""

from collections.abc import Callable, Mapping, Set
from dataclasses import replace

from avo.evaluator.executor.ir import COMBINING, Block, Op, Region


def _pick(slots: tuple[int, ...], targets: tuple[int, ...], needed: Set[int]) -> tuple[int, ...]:
    """Return those of ``slots`` whose counterpart in ``targets`` is needed."""
    return tuple(slot for slot, target in zip(slots, targets, strict=True) if target in needed)


def cut(region: Region, needed: Set[int], acts: Callable[[Op], bool]) -> Region:
    """Return a region with the operations that act, those that give needed slots, and what passes these on."""
    arguments = {block.label: block.args for block in region.blocks}
    return Region(tuple(_cut_block(block, needed, acts, arguments) for block in region.blocks))


def _cut_block(
    block: Block, needed: Set[int], acts: Callable[[Op], bool], arguments: Mapping[str, tuple[int, ...]]
) -> Block:
    ops = []
    for op in block.ops[:-1]:
        if acts(op) or not needed.isdisjoint(op.results):
            ops.append(_cut_op(op, needed, acts))
    last = block.ops[-1]
    successors = tuple((label, _pick(values, arguments[label], needed)) for label, values in last.successors)
    ops.append(replace(last, successors=successors))
    return replace(block, args=_pick(block.args, block.args, needed), ops=tuple(ops))


def _cut_op(op: Op, needed: Set[int], acts: Callable[[Op], bool]) -> Op:
    if not op.regions or op.name in COMBINING:
        return op
    results = _pick(op.results, op.results, needed)
    regions = tuple(cut(region, needed, acts) for region in op.regions)
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
    elif op.name == "ttg.warp_specialize":
        default, *partitions = op.regions
        operands = _pick(op.operands, tuple(slot for region in partitions for slot in region.args), needed)
        yields = _pick(default.terminator.operands, op.results, needed)
        regions = (_with_ends(regions[0], regions[0].args, yields), *regions[1:])
    return replace(op, operands=operands, results=results, regions=regions)


def _with_ends(region: Region, args: tuple[int, ...], ends: tuple[int, ...]) -> Region:
    (block,) = region.blocks
    return Region((replace(block, args=args, ops=(*block.ops[:-1], replace(block.ops[-1], operands=ends))),))


def _with_returns(region: Region, results: tuple[int, ...], needed: Set[int]) -> Region:
    blocks = []
    for block in region.blocks:
        last = block.ops[-1]
        if last.name == "tt.return":
            last = replace(last, operands=_pick(last.operands, results, needed))
        blocks.append(replace(block, ops=(*block.ops[:-1], last)))
    return Region(tuple(blocks))
