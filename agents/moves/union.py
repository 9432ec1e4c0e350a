"""Moves to the order that is query-major over what neighbours select together, and of what its seed switches on."""

from collections.abc import Iterator, Mapping

import libcst as cst

from avo.agents.moves import tree
from avo.agents.moves.anatomy import Anatomy, dissect
from avo.agents.moves.far import entry_of, with_entry_of
from avo.agents.moves.launch import with_knobs
from avo.agents.moves.move import EVERYTHING, LOADS, Move
from avo.evaluator.target import Target
from avo.seeds import seed_source

_KNOBS = ("BLOCK_M", "BLOCK_N", "num_warps", "num_stages")
_ROLES = ((128, 128, 4, 2), (64, 128, 4, 2), (128, 128, 4, 3), (128, 64, 4, 3))
"""With roles: a softmax in four warps. Tiles of 64 rows have half the positions, which select fewer blocks in all."""
_DESCRIPTORS = ((128, 128, 8, 2), (128, 64, 8, 3))


def _edit_query_union(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Multiply the blocks that neighbouring positions select together with all of them, as a seed does."""
    forward = len(tree.calls(anatomy.kernel, "tl.dot")) == 2
    if forward and entry_of(anatomy) and not _switches(anatomy):
        yield "blocks that neighbours select together", with_entry_of(anatomy, seed_source("fsa", "query_union"))


def _edit_union_roles(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Load keys and values through descriptors, and on Blackwell by warps of their own."""
    switch, shapes = ("ROLES", _ROLES) if target.tensor_memory else ("DESCRIPTORS", _DESCRIPTORS)
    literal = _switches(anatomy).get(switch)
    if not target.bulk_copies or literal is None or literal.value == "True":
        return
    switched = dissect(tree.replace(anatomy.module, {literal: cst.Name("True")}).code)
    for shape in shapes if switched else ():
        assert switched is not None
        if changed := with_knobs(switched, dict(zip(_KNOBS, shape, strict=True))):
            yield ", ".join([f"{switch} False -> True", *changed[0]]), changed[1]


def _switches(anatomy: Anatomy) -> Mapping[str, cst.Name]:
    """Return the values of the module's constants that the seed has for this; empty for other kernels."""
    found = {
        tree.text(assign.targets[0].target): assign.value
        for line in anatomy.module.body
        for assign in (tree.find(line, cst.Assign) if isinstance(line, cst.SimpleStatementLine) else ())
        if isinstance(assign.value, cst.Name) and assign.value.value in ("True", "False")
    }
    return found if found.keys() == {"DESCRIPTORS", "ROLES"} else {}


UNION_MOVES = (
    Move(
        "query-union",
        "large groups and few blocks: neighbours select nearly the same, and a mask costs less than partial outputs",
        0.5,
        "selected attention in another order",
        _edit_query_union,
        EVERYTHING,
    ),
    Move(
        "union-roles",
        "nothing in the loop over a tile's blocks depends on where they are but loads, which warps of their own can do",
        0.6,
        "Hopper or later, and the order of the move query-union",
        _edit_union_roles,
        LOADS | {"latency", "cta_barrier", "exp"},
    ),
)
