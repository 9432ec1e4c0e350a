"""Moves that save work on masks: skip hidden blocks, split off fully visible ones."""

from collections.abc import Iterator

import libcst as cst

from agents.moves import tree
from agents.moves.anatomy import Anatomy
from agents.moves.fold import assume_true
from agents.moves.move import EVERYTHING, Move
from evaluator.target import Target


def _edit_skip(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Stop a causal loop after the last key that the block's last row sees."""
    edits: dict[cst.CSTNode, tree.Replacement] = {}
    for loop in anatomy.loops:
        masks = anatomy.masks(loop)
        if masks and masks.causal and loop.stop == masks.length:
            end = tree.fresh(anatomy.module, "end_n")
            limit = masks.limit(end, masks.length, f"{masks.end_row} + ({masks.shift})")
            stop = loop.call.args[1]
            call = tree.replace(loop.call, {stop.value: cst.Name(end)})
            edits[loop.node] = tree.before(loop.node.with_changes(iter=call), limit)
    if len(edits) == 1:
        yield "skip fully masked blocks", tree.replace(anatomy.module, edits)


def _edit_split(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Put a loop without masks over the blocks that every row sees in full before the loop over the rest."""
    if len(anatomy.loops) != 1:
        return
    (loop,) = anatomy.loops
    masks = anatomy.masks(loop)
    if masks is None or loop.start != "0":
        return
    full = tree.fresh(anatomy.module, "full_n")
    whole_blocks = f" // {loop.step} * {loop.step}"
    limit = masks.limit(full, masks.length, f"{masks.first_row} + ({masks.shift}) + 1", whole_blocks)
    unmasked = loop.node.with_changes(
        iter=tree.replace(loop.call, {loop.call.args[1].value: cst.Name(full)}),
        body=assume_true(loop.node.body, masks.comparisons),
    )
    rest = tree.replace(loop.call, {loop.call.args[0].value: cst.Name(full)})
    first = tree.before(unmasked, limit)
    edit = cst.FlattenSentinel([*first, loop.node.with_changes(iter=rest, leading_lines=())])
    yield "split off a loop without masks over full blocks", tree.replace(anatomy.module, {loop.node: edit})


MASK_MOVES = (
    Move(
        "skip",
        "a causal block of queries needs no keys beyond its last row: half of the work at long lengths",
        0.6,
        "a loop over all keys with a causal mask",
        _edit_skip,
        EVERYTHING,
    ),
    Move(
        "split",
        "only blocks on the diagonal and the tail need masks: comparing and selecting leave the hot loop",
        0.25,
        "one loop over keys, from the first, with masks on their numbers",
        _edit_split,
        frozenset({"issue", "alu"}),
    ),
)
