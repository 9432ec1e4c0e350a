"""The edit of attention kernels in Gluon that rescales what was added up only when it has to."""

from collections.abc import Iterator

import libcst as cst

from avo.agents.moves import tree
from avo.agents.moves.anatomy import Anatomy
from avo.evaluator.target import Target

SLACK = (4.0, 8.0, 12.0)
"""How far, as a power of two, a score may exceed the maximum that is subtracted; FlashAttention-4 takes 8."""

Edits = dict[cst.CSTNode, tree.Replacement]


def edit_lazy(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Keep the maximum that is subtracted until a row exceeds it by some slack, and multiply only then; or change that
    slack.

    Weights grow to 2 to its power at most, and the sums that they enter are float32.
    """
    module = anatomy.module
    if literals := _slack(module):
        before = {float(literal.value) for literal in literals}
        for slack in SLACK:
            if slack not in before:
                numbers: Edits = {literal: cst.Float(str(slack)) for literal in literals}
                yield f"rescale only beyond {slack}", tree.replace(module, numbers)
        return
    kept, skipped = _kept(module), _skipped(module)
    if kept and skipped:
        yield f"rescale only beyond {SLACK[1]}", tree.replace(module, {**kept, **skipped})


def _slack(module: cst.Module) -> list[cst.Float]:
    """Return the numbers X of ``gl.where(new > old + X, new, old)``."""
    found = []
    for call in tree.calls(module, "gl.where"):
        test = call.args[0].value
        limit = test.comparisons[0].comparator if isinstance(test, cst.Comparison) else None
        if not isinstance(limit, cst.BinaryOperation) or not isinstance(limit.right, cst.Float):
            continue
        if tree.text(limit.left) == tree.text(call.args[-1].value):
            found.append(limit.right)
    return found


def _kept(module: cst.Module) -> Edits:
    """Return the edits that keep ``old`` as the maximum where the output is scaled by ``gl.exp2(old - new)``."""
    edits: Edits = {}
    for function in tree.find(module, cst.FunctionDef):
        values = (call.args[0].value for call in tree.calls(function, "gl.exp2"))
        pairs = {
            tree.text(value.right): tree.text(value.left)
            for value in values
            if isinstance(value, cst.BinaryOperation) and tree.is_name(value.left) and tree.is_name(value.right)
        }
        for line in tree.find(function, cst.SimpleStatementLine):
            name, value = tree.assignment(line) or ("", None)
            old = pairs.get(name)
            if not old or not isinstance(value, cst.Call) or not tree.is_call(value, "gl.maximum"):
                continue
            if tree.text(value.args[0].value) == old:
                keep = tree.statements(f"{name} = gl.where({name} > {old} + {SLACK[1]}, {name}, {old})\n")
                edits[line] = cst.FlattenSentinel([line, *keep])
    return edits


def _skipped(module: cst.Module) -> Edits:
    """Return the edits that multiply what was added up only where a factor is below 1: in registers, by a converted
    factor, or in tensor memory, part by part.
    """
    edits: Edits = {}
    for loop in tree.find(module, cst.For):
        for line in tree.find(loop.body, cst.SimpleStatementLine):
            name, value = tree.assignment(line) or ("", None)
            if isinstance(value, cst.BinaryOperation) and tree.is_name(value.left, name):
                converted = tree.calls(value.right, "gl.convert_layout")
                if converted and isinstance(value.operator, cst.Multiply):
                    edits[line] = _where_below_one(f"gl.min({tree.text(converted[0].args[0].value)}, 0)", line)
        names = set(tree.assigned_names(loop))
        for call in tree.find(loop, cst.Call):
            value = call.args[0].value if call.args else None
            stored = isinstance(call.func, cst.Attribute) and call.func.attr.value == "store"
            if stored and isinstance(value, cst.BinaryOperation) and tree.is_name(value.right):
                factor = tree.text(value.right)
                if isinstance(value.operator, cst.Multiply) and factor not in names:
                    edits[loop] = _where_below_one(f"gl.min(gl.min({factor}, 1), 0)", loop)
    return edits


def _where_below_one(least: str, statement: cst.BaseStatement) -> cst.BaseStatement:
    (branch,) = tree.statements(f"if {least} < 1.0:\n    pass\n")
    return branch.with_changes(leading_lines=[], body=cst.IndentedBlock([statement]))
