"""The move that computes some exponentials without the special-function unit."""

from collections.abc import Iterator

import libcst as cst

from agents.moves import tree
from agents.moves.anatomy import Anatomy
from agents.moves.move import Move
from evaluator.target import Target

_POLYNOMIAL = '''
@triton.jit
def {helper}(x):
    """2^x: a polynomial for the fraction, the whole number added to the exponent's bits; relative error below 1e-4."""
    x = tl.maximum(x, -126.0)
    whole = tl.floor(x)
    f = x - whole
    y = ((0.07711909 * f + 0.22756439) * f + 0.69514614) * f + 1.0
    return (y.to(tl.int32, bitcast=True) + (whole.to(tl.int32) << 23)).to(tl.float32, bitcast=True)


@triton.jit
def {name}(x):
    rows: tl.constexpr = x.shape[0]
    columns: tl.constexpr = x.shape[1]
    first, second = tl.split(x.reshape(rows, columns // 2, 2))
{body}
'''
"""Coefficients: minimax of degree 3 for 2^f on [0, 1), as published with FlashAttention-4; what is lost is far below
the rounding of probabilities to bfloat16."""
_SCARCE = 512
"""Tensor-core FLOP per special-function result from which exponentials keep the tensor cores waiting: Blackwell's."""
_SHARES = {
    "half": "    return tl.join(tl.exp2(first), {helper}(second)).reshape(rows, columns)",
    "a quarter": """    third, fourth = tl.split(second.reshape(rows, columns // 4, 2))
    second = tl.join(tl.exp2(third), {helper}(fourth)).reshape(rows, columns // 2)
    return tl.join(tl.exp2(first), second).reshape(rows, columns)""",
}
"""The operation on a tile from which every second column was split off."""


def _edit_polynomial(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Compute the exponentials of a share of the columns by a polynomial."""
    softmaxes = [anatomy.softmax(walk) for walk in anatomy.walks]
    exponentials = [
        call
        for walk, softmax in zip(anatomy.walks, softmaxes, strict=True)
        for call in tree.calls(walk, "tl.exp2")
        if softmax is not None and softmax.late and softmax.scaled in tree.find(call, cst.BinaryOperation)
    ]
    if target.tensor_flop < _SCARCE * target.sfu_lanes or not exponentials or len(exponentials) != len(anatomy.walks):
        return
    name, helper = tree.fresh(anatomy.module, "exp2_in_part"), tree.fresh(anatomy.module, "exp2_polynomial")
    for words, body in _SHARES.items():
        definitions = tree.statements(_POLYNOMIAL.format(helper=helper, name=name, body=body.format(helper=helper)))
        edits: dict[cst.CSTNode, tree.Replacement] = {call.func: cst.Name(name) for call in exponentials}
        edits[anatomy.kernel] = cst.FlattenSentinel([*definitions, tree.replace(anatomy.kernel, edits)])
        yield f"{words} of the exponentials by a polynomial", tree.replace(anatomy.module, edits)


EXPONENTIAL_MOVES = (
    Move(
        "polynomial",
        "where exponentials keep the tensor cores waiting, multiply-adds can compute some of them",
        0.02,
        "Blackwell or later, and exp2 with the scale after the maximum",
        _edit_polynomial,
        frozenset({"exp"}),
    ),
)
