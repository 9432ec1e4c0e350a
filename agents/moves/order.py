"""Moves on the order in which programs start."""

from collections.abc import Iterator

import libcst as cst

from agents.moves import tree
from agents.moves.anatomy import Anatomy
from agents.moves.move import Move
from evaluator.target import Target


def _edit_reverse(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Start with the last block of queries, which sees the most keys."""
    masks = [mask for mask in map(anatomy.masks, anatomy.loops) if mask and mask.causal]
    if not masks:
        return
    for call in tree.calls(anatomy.kernel, "tl.program_id"):
        for assign in tree.find(anatomy.kernel.body, cst.Assign):
            name = assign.targets[0].target
            if assign.value is call and isinstance(name, cst.Name) and name.value in masks[0].first_row:
                axis = tree.text(call.args[0].value)
                last_first = tree.expression(f"tl.num_programs({axis}) - 1 - tl.program_id({axis})")
                yield "longest blocks first", tree.replace(anatomy.module, {call: last_first})


def _edit_swap(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Exchange the two axes of the grid, in the host's tuple and in the kernel."""
    grid = _grid(anatomy)
    queries = [*tree.calls(anatomy.module, "tl.program_id"), *tree.calls(anatomy.module, "tl.num_programs")]
    within = tree.find(anatomy.kernel, cst.Call)
    axes = [tree.integer(call.args[0].value) for call in queries if len(call.args) == 1 and not call.args[0].keyword]
    if (
        grid is None
        or len(axes) != len(queries)
        or not set(axes) <= {0, 1}
        or any(call not in within for call in queries)
    ):
        return
    first, second = grid.elements
    edits: dict[cst.CSTNode, tree.Replacement] = {first.value: second.value, second.value: first.value}
    for call, axis in zip(queries, axes, strict=True):
        edits[call.args[0].value] = cst.Integer("0" if axis else "1")
    yield "swap the axes of the grid", tree.replace(anatomy.module, edits)


def _grid(anatomy: Anatomy) -> cst.Tuple | None:
    """The launch's grid, when it is a pair of plain elements written out once."""
    assert isinstance(anatomy.launch.func, cst.Subscript)
    index = anatomy.launch.func.slice[0].slice
    grid = index.value if isinstance(index, cst.Index) else None
    if isinstance(grid, cst.Name):
        uses = sum(name.value == grid.value for name in tree.find(anatomy.host, cst.Name))
        grid = tree.definition(anatomy.host, grid.value) if uses == 2 else None
    if isinstance(grid, cst.Tuple) and len(grid.elements) == 2:
        return grid if all(isinstance(element, cst.Element) for element in grid.elements) else None
    return None


ORDER_MOVES = (
    Move(
        "reverse",
        "causal blocks differ in length: the longest first leaves short ones to fill the last wave",
        0.04,
        _edit_reverse,
    ),
    Move(
        "swap",
        "neighbouring programs of one head share keys in the L2 cache, of several heads share block lengths",
        0.02,
        _edit_swap,
    ),
)
