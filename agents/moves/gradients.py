"""Moves of backward passes, whose kernels are given the statistics of the softmax and take no maximum."""

from collections.abc import Iterator

import libcst as cst

from avo.agents.moves import tree
from avo.agents.moves.anatomy import Anatomy, unindexed
from avo.agents.moves.move import Move
from avo.agents.moves.softmax import LOG2_E
from avo.evaluator.target import Target


def _edit_given_exp2(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Rewrite ``tl.exp(scores * scale - lse[...])`` to base 2: what is multiplied by log2 e is a scalar and a row."""
    edits: dict[cst.CSTNode, tree.Replacement] = {}
    for walk in anatomy.walks:
        for call in tree.calls(walk, "tl.exp"):
            read = _of_given(call.args[0].value, anatomy)
            if read is None:
                return
            product, scale, lse = read
            exponent = f"{product} * ({scale} * {LOG2_E}) - {lse} * {LOG2_E}"
            edits[call] = tree.expression(f"tl.exp2({exponent})")
    if edits:
        yield "exp2, the scale and lse times log2 e", tree.replace(anatomy.module, edits)


def _of_given(node: cst.BaseExpression, anatomy: Anatomy) -> tuple[str, str, str] | None:
    """Return (scores, scale, vector) of an exponent ``scores * scale - vector[...]`` whose scale is a parameter and
    whose vector is loaded, not made of a maximum.
    """
    if not (isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.Subtract)):
        return None
    scaled, vector = node.left, unindexed(node.right)
    if not (isinstance(scaled, cst.BinaryOperation) and isinstance(scaled.operator, cst.Multiply)):
        return None
    made = tree.assignments(anatomy.kernel, vector.value) if isinstance(vector, cst.Name) else []
    if len(made) != 1 or not tree.is_call(made[0], "tl.load") or tree.text(scaled.right) not in anatomy.parameters:
        return None
    return tree.text(scaled.left), tree.text(scaled.right), tree.text(node.right)


GRADIENT_MOVES = (
    Move(
        "given-exp2",
        "the hardware computes 2^x: of given statistics the multiply by log2 e is a row's, not a score's",
        0.15,
        "an exponential, by tl.exp, of scores times a parameter minus a vector that is loaded",
        _edit_given_exp2,
        frozenset({"issue", "fma"}),
        each=True,
    ),
)
