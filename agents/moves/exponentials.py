"""The move that computes some exponentials without the special-function unit."""

from collections.abc import Iterator

import libcst as cst

from avo.agents.moves import tree
from avo.agents.moves.anatomy import Anatomy
from avo.agents.moves.move import Move
from avo.agents.moves.softmax import SOFTMAX_MOVES
from avo.evaluator.target import Target

_POLYNOMIAL = '''
@triton.jit
def {helper}(x):
    """2^x: a polynomial for the fraction, the whole number added to the exponent's bits; relative error below 1e-4."""
    x = tl.maximum(x, -126.0)
    rounded = x + 12582912.0  # 1.5 * 2^23: the whole number is in the last bits
    f = x - (rounded - 12582912.0)
    y = ((0.05517167 * f + 0.24261113) * f + 0.69326097) * f + 0.99992806
    whole = rounded.to(tl.int32, bitcast=True) << 23
    return (y.to(tl.int32, bitcast=True) + whole).to(tl.float32, bitcast=True)


@triton.jit
def {name}(x):
    rows: tl.constexpr = x.shape[0]
    columns: tl.constexpr = x.shape[1]
{body}
'''
"""Coefficients: minimax of degree 3 for 2^f on [-0.5, 0.5], ours (Remez); what is lost is far below the rounding of
probabilities to bfloat16. Adding 1.5 * 2^23 rounds on the FMA pipe: floor and conversions would take the
special-function unit."""
_HALVES = "tl.split({x}.reshape(rows, 2, columns // {count}).permute(0, 2, 1))"
_WHOLE = "tl.join({first}, {second}).permute(0, 2, 1).reshape(rows, columns // {count})"
_PAIRS = """    first, second = tl.split(x.reshape(rows, columns // 2, 2))
    return tl.join(tl.exp2(first), {helper}(second)).reshape(rows, columns)"""
"""Every second column: neighbours are in the same thread where tiles come from tensor memory."""


def _last(depth: int) -> str:
    """Return code that gives the last columns, a share of 1 / 2^depth, to the polynomial: stretches of columns are in
    the same threads where tiles are a warpgroup's.
    """
    lines, rest = [], "x"
    for level in range(1, depth + 1):
        lines.append(f"first_{level}, rest_{level} = {_HALVES.format(x=rest, count=2**level)}")
        rest = f"rest_{level}"
    lines.append(f"rest = {{helper}}({rest})")
    for level in range(depth, 0, -1):
        joined = _WHOLE.format(first=f"tl.exp2(first_{level})", second="rest", count=2 ** (level - 1))
        lines.append(f"rest = {joined}")
    return "\n".join(f"    {line}" for line in [*lines, "return rest"])


def _edit_polynomial(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Compute the exponentials of a share of the columns by a polynomial."""
    softmaxes = [anatomy.softmax(walk) for walk in anatomy.walks]
    exponentials = [
        call
        for walk, softmax in zip(anatomy.walks, softmaxes, strict=True)
        for call in tree.calls(walk, "tl.exp2")
        if softmax is not None and softmax.late and softmax.scaled in tree.find(call, cst.BinaryOperation)
    ]
    if not target.asynchronous_products or not exponentials or len(exponentials) != len(anatomy.walks):
        return
    shares = {"a quarter": _last(2), "an eighth": _last(3), "half": _last(1)}
    if target.tensor_memory:
        shares = {"half": _PAIRS}
    name, helper = tree.fresh(anatomy.module, "exp2_in_part"), tree.fresh(anatomy.module, "exp2_polynomial")
    for words, body in shares.items():
        definitions = tree.statements(_POLYNOMIAL.format(helper=helper, name=name, body=body.format(helper=helper)))
        edits: dict[cst.CSTNode, tree.Replacement] = {call.func: cst.Name(name) for call in exponentials}
        edits[anatomy.kernel] = cst.FlattenSentinel([*definitions, tree.replace(anatomy.kernel, edits)])
        yield f"{words} of the exponentials by a polynomial", tree.replace(anatomy.module, edits)


EXPONENTIAL_MOVES = (
    Move(
        "polynomial",
        "exponentials keep the tensor cores waiting where both are busy: multiply-adds can compute some of them",
        0.05,
        "Hopper or later, and exponentials of a late scale",
        _edit_polynomial,
        frozenset({"exp", "latency", "tensor"}),
        first=tuple(move for move in SOFTMAX_MOVES if move.name in ("exp2", "late-scale")),
    ),
)
