"""Moves that change the arithmetic of the softmax."""

from collections.abc import Iterator

import libcst as cst

from avo.agents.moves import tree
from avo.agents.moves.anatomy import Anatomy, dissect, unindexed
from avo.agents.moves.move import Move
from avo.evaluator.target import Target

LOG2_E = "1.4426950408889634"
LN_2 = "0.6931471805599453"


def _edit_exp2(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Keep maximum and exponents in units of log2 e, so that each exponential is one instruction."""
    module = _with_exp2(anatomy)
    if module is None:
        return
    again = dissect(module.code)
    fused = _with_late_scale(again) if again else None
    if fused:
        yield "exp2, the scale folded in after the maximum", fused
    yield "exp2, the scale folded into the scores", module


def _edit_late_scale(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    module = _with_late_scale(anatomy)
    if module:
        yield "scale after the maximum, in the exponential's argument", module


def _edit_reciprocal(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Rewrite ``x / y[:, None]`` as ``x * (1.0 / y)[:, None]``."""
    edits: dict[cst.CSTNode, tree.Replacement] = {
        division: tree.expression(f"{tree.text(division.left)} * (1.0 / {tree.text(division.right.value)})[:, None]")
        for division in tree.find(anatomy.kernel, cst.BinaryOperation)
        if isinstance(division.operator, cst.Divide)
        and isinstance(division.left, cst.Name)
        and isinstance(division.right, cst.Subscript)
        and isinstance(division.right.value, cst.Name)
        and tree.text(division.right) == f"{division.right.value.value}[:, None]"
    }
    if edits:
        yield "multiply by the reciprocal of the row sums", tree.replace(anatomy.module, edits)


def _with_exp2(anatomy: Anatomy) -> cst.Module | None:
    softmaxes = [anatomy.softmax(loop) for loop in anatomy.walks]
    scales = {softmax.scale if softmax else "" for softmax in softmaxes}
    if len(scales) != 1 or not scales <= set(anatomy.parameters):
        return None
    (scale,) = scales
    scaled_uses = sum(name.value == scale for name in tree.find(anatomy.kernel.body, cst.Name))
    exponentials = tree.calls(anatomy.kernel, "tl.exp")
    logarithms = tree.calls(anatomy.kernel, "tl.log")
    sums = [
        (node, node.right)
        for node in tree.find(anatomy.kernel, cst.BinaryOperation)
        if isinstance(node.operator, cst.Add) and isinstance(node.left, cst.Name) and node.right in logarithms
    ]
    expected_uses = sum(2 if softmax and softmax.late else 1 for softmax in softmaxes)
    if len(sums) != len(logarithms) or scaled_uses != expected_uses:
        return None
    if not exponentials or not all(_is_difference(call.args[0].value) for call in exponentials):
        return None

    new_scale = tree.fresh(anatomy.module, "scale_log2")
    edits: dict[cst.CSTNode, tree.Replacement] = {call.func: tree.expression("tl.exp2") for call in exponentials}
    for node, logarithm in sums:
        inner = tree.text(logarithm.args[0].value)  # type: ignore[attr-defined]
        edits[node] = tree.expression(f"({tree.text(node.left)} + tl.log2({inner})) * {LN_2}")
    for name in tree.find(anatomy.kernel.body, cst.Name):
        if name.value == scale:
            edits[name] = cst.Name(new_scale)
    for value in _loaded_logits(anatomy.kernel, exponentials):
        if not tree.is_call(value, "tl.load"):
            return None
        edits[value] = tree.expression(f"{tree.text(value)} * {LOG2_E}")
    kernel_body = anatomy.kernel.body
    renamed = tree.replace(kernel_body, edits)
    first = next(place for place, statement in enumerate(renamed.body) if new_scale in tree.names(statement))
    definition = tree.statements(f"{new_scale} = {scale} * {LOG2_E}\n")
    body = renamed.with_changes(body=[*renamed.body[:first], *definition, *renamed.body[first:]])
    return tree.replace(anatomy.module, {kernel_body: body})


def _loaded_logits(kernel: cst.FunctionDef, exponentials: list[cst.Call]) -> list[cst.BaseExpression]:
    """Return what is loaded and then compared with the maximum, or stands in an exponent, as the sinks of heads do: it
    is not scaled as scores are.
    """
    nodes = [arg.value for call in tree.calls(kernel, "tl.maximum") for arg in call.args]
    nodes += [side for call in exponentials for side in _sides(call.args[0].value)]
    names = {node.value for node in map(unindexed, nodes) if isinstance(node, cst.Name)}
    assigned = [value for name in sorted(names) for value in tree.assignments(kernel, name)]
    return [value for value in assigned if tree.calls(value, "tl.load")]


def _sides(node: cst.BaseExpression) -> tuple[cst.BaseExpression, ...]:
    return (node.left, node.right) if isinstance(node, cst.BinaryOperation) else ()


def _is_difference(node: cst.BaseExpression) -> bool:
    """Return whether an exponent is a difference of logarithms, which may then have another base."""
    return (
        isinstance(node, cst.BinaryOperation)
        and isinstance(node.operator, cst.Subtract)
        and isinstance(unindexed(node.right), cst.Name)
        and isinstance(unindexed(node.left), cst.Name | cst.BinaryOperation)
    )


def _with_late_scale(anatomy: Anatomy) -> cst.Module | None:
    """Multiply by the scale where the maximum is subtracted. The scale must be positive, as it is in attention."""
    edits: dict[cst.CSTNode, tree.Replacement] = {}
    for loop in anatomy.walks:
        softmax = anatomy.softmax(loop)
        if softmax is None or softmax.late:
            return None
        scale = softmax.scale
        edits[softmax.scaled] = softmax.product
        edits[softmax.maximum] = tree.expression(f"{tree.text(softmax.maximum)} * {scale}")
        edits[softmax.exponent] = tree.expression(f"{softmax.scores} * {scale}")
    return tree.replace(anatomy.module, edits) if edits else None


SOFTMAX_MOVES = (
    Move(
        "exp2",
        "the hardware computes 2^x: exp costs a multiply more per score, which the scale can absorb",
        0.25,
        "a softmax by tl.exp of scores that are multiplied by a parameter",
        _edit_exp2,
        frozenset({"issue", "fma"}),
    ),
    Move(
        "late-scale",
        "scale and subtraction of the maximum become one fused multiply-add per score",
        0.02,
        "a softmax of scores that are multiplied by a parameter before their maximum is taken",
        _edit_late_scale,
        frozenset({"issue", "fma"}),
    ),
    Move(
        "reciprocal",
        "one reciprocal a row and a multiply instead of a division per output element",
        0.005,
        "a division by row sums",
        _edit_reciprocal,
    ),
)
