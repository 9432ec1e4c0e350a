"""Moves that save work on masks: skip hidden blocks, take those that were split off back into one loop, and leave out
what cannot hide anything; with ``split``, from ``full_tiles``."""

from collections.abc import Iterator

import libcst as cst

from avo.agents.moves import tree
from avo.agents.moves.anatomy import Anatomy, Causal
from avo.agents.moves.fold import assume_true
from avo.agents.moves.full_tiles import SPLIT
from avo.agents.moves.move import EVERYTHING, Move
from avo.evaluator.target import Target


def _edit_skip(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Stop a causal loop after the last key that the block's last row sees."""
    edits: dict[cst.CSTNode, tree.Replacement] = {}
    for loop in anatomy.loops:
        masks = anatomy.masks(loop)
        if masks and masks.causal and loop.stop == masks.length:
            end = tree.fresh(anatomy.module, "end_n")
            seen = f"{end} = tl.minimum({masks.length}, {masks.causal.rows.end} + ({masks.causal.shift}))\n"
            flag = masks.causal.flag
            limit = f"{end} = {masks.length}\nif {flag}:\n    {seen}" if flag else seen
            stop = loop.call.args[1]
            call = tree.replace(loop.call, {stop.value: cst.Name(end)})
            edits[loop.node] = tree.before(loop.node.with_changes(iter=call), limit)
    if len(edits) == 1:
        yield "skip fully masked blocks", tree.replace(anatomy.module, edits)


def _edit_merge(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Let the loop with masks walk over the blocks of the loop without, whose body is the same otherwise."""
    if len(anatomy.loops) != 2:
        return
    full, rest = anatomy.loops
    masks = anatomy.masks(rest)
    if masks is None or full.stop != rest.start or full.step != rest.step or full.index != rest.index:
        return
    unmasked = assume_true(rest.node.body, masks.comparisons)
    code = cst.Module([]).code_for_node
    if code(unmasked) != code(full.node.body):
        return
    start = tree.replace(rest.call, {rest.call.args[0].value: full.call.args[0].value})
    gone: list[cst.BaseStatement] = [full.node]
    bounds = [line for line in tree.statement_lines(anatomy.kernel) if tree.assigned_names(line) == [full.stop]]
    inside = {line for outer in bounds for line in tree.statement_lines(outer) if line is not outer}
    bounds = [line for line in bounds if line not in inside]
    mentions = [name for line in bounds for name in tree.find(line, cst.Name) if name.value == full.stop]
    if sum(name.value == full.stop for name in tree.find(anatomy.kernel.body, cst.Name)) == 2 + len(mentions):
        gone = [*bounds, full.node]
    edits: dict[cst.CSTNode, tree.Replacement] = {line: cst.FlattenSentinel([]) for line in gone}
    leading = getattr(gone[0], "leading_lines", ())
    edits[rest.node] = rest.node.with_changes(iter=start, leading_lines=leading)
    yield "one loop over all blocks, with masks", tree.replace(anatomy.module, edits)


def _edit_even(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Compare key numbers with their count only where that can hide a key: not if tiles divide the keys, and not under
    a causal mask, by which no query sees a key beyond the last.
    """
    ragged = tree.fresh(anatomy.module, "RAGGED")
    needed: set[str] = set()
    edits: dict[cst.CSTNode, tree.Replacement] = {}
    for loop in anatomy.loops:
        masks = anatomy.masks(loop)
        count, step = (anatomy.arguments.get(name) for name in (masks.length if masks else "", loop.step))
        if masks is None or count is None or step is None:
            continue
        if masks.causal and not _ends_with_keys(anatomy, masks.length, masks.causal):
            continue
        lines = [tree.assignment(line) for line in tree.find(loop.node.body, cst.SimpleStatementLine)]
        compared = [
            value
            for _, value in filter(None, lines)
            if value in masks.comparisons and tree.text(value).endswith(f"[None, :] < {masks.length}")
        ]
        edits |= {value: tree.expression(f"({tree.text(value)}) if {ragged} else True") for value in compared}
        uneven = f"{count} % {step} != 0"
        flag = masks.causal and masks.causal.flag
        needed.add(f"not {anatomy.arguments[flag]} and {uneven}" if flag else uneven)
    if not edits or len(needed) != 1:
        return
    passed = tree.keyword_argument(ragged, needed.pop())
    launch = tree.with_arguments(anatomy.launch, [*anatomy.launch.args, passed])
    kernel = tree.with_parameters(tree.replace(anatomy.kernel, edits), (ragged,), constant=True)
    yield (
        "no mask by length where tiles divide it",
        tree.replace(anatomy.module, {anatomy.kernel: kernel, anatomy.launch: launch}),
    )


def _edit_relative(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Count both sides of a causal comparison from the block's first key: a thread's keys are constants then."""
    edits: dict[cst.CSTNode, tree.Replacement] = {}
    for loop in anatomy.loops:
        masks = anatomy.masks(loop)
        for comparison in masks.comparisons if masks and masks.causal else ():
            (compared,) = comparison.comparisons
            if not isinstance(compared.operator, cst.LessThanEqual):
                continue
            names = [name for name in tree.find(comparison, cst.Subscript) if isinstance(name.value, cst.Name)]
            if len(names) == 2:
                edits |= {name.value: tree.expression(f"({tree.text(name.value)} - {loop.index})") for name in names}
    if edits:
        yield "causal masks counted from the block's first key", tree.replace(anatomy.module, edits)


def _ends_with_keys(anatomy: Anatomy, length: str, causal: Causal) -> bool:
    """Return whether the last stored row sees the last key, by a constexpr's choice: no row sees more."""
    left, _, rows = causal.shift.partition(" - ")
    stores = tree.calls(anatomy.kernel, "tl.store")
    bounded = all((mask := tree.keyword(store, "mask")) and rows in tree.names(mask.value) for store in stores)
    return left == length and rows in anatomy.parameters and bounded and causal.flag is not None


MASK_MOVES = (
    Move(
        "skip",
        "a causal block of queries needs no keys beyond its last row: half of the work at long lengths",
        0.6,
        "a loop over all keys with a causal mask",
        _edit_skip,
        EVERYTHING,
    ),
    SPLIT,
    Move(
        "merge",
        "one loop over all blocks has one pipeline, and is what warps with roles of their own need",
        0.005,
        "a loop without masks, and a loop with masks that goes on where it ends",
        _edit_merge,
    ),
    Move(
        "even",
        "where tiles divide the keys, or a causal mask hides more, no key number needs to be compared with their count",
        0.03,
        "a mask by the number of keys that the host passes",
        _edit_even,
        frozenset({"issue", "alu"}),
    ),
    Move(
        "relative",
        "counted from the block's first key, the keys of a thread are constants: one comparison a score, no addition",
        0.03,
        "a causal comparison of a loop's keys with rows",
        _edit_relative,
        frozenset({"issue", "alu"}),
        each=True,
    ),
)
