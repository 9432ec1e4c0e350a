"""The edit of attention kernels in Gluon that multiplies and adds two float32 by one instruction."""

from collections.abc import Iterator

import libcst as cst
from libcst.helpers import get_full_name_for_node

from avo.agents.moves import tree
from avo.agents.moves.anatomy import Anatomy
from avo.evaluator.target import Target

BLACKWELL = "triton.experimental.gluon.language.nvidia.blackwell"
FMA, MUL = "fma2", "mul2"


def edit_packed(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Scale the scores of weights, and what is rescaled in tensor memory, by pairs; Blackwell alone has these."""
    module = anatomy.module
    packed = {call: found for call in tree.find(module, cst.Call) if (found := _packed(call))}
    imports = [line for line in tree.find(module, cst.SimpleStatementLine) if _imports_blackwell(line)]
    if not packed or not imports:
        return
    edits: dict[cst.CSTNode, tree.Replacement] = {
        call.args[0].value: tree.expression(source) for call, source in packed.items()
    }
    used = [name for name in (FMA, MUL) if any(source.startswith(name) for source in packed.values())]
    line = f"from {BLACKWELL} import {', '.join(used)}\n"
    edits[imports[-1]] = cst.FlattenSentinel([imports[-1], *tree.statements(line)])
    yield "scale by pairs", tree.replace(module, edits)


def _packed(call: cst.Call) -> str | None:
    """Return the first argument of a call, ``a * b - c[:, None]`` or an ``x.load(...) * b`` that is stored, as a packed
    operation; None if it is neither.
    """
    match call:
        case cst.Call(
            args=[
                cst.Arg(
                    value=cst.BinaryOperation(
                        left=cst.BinaryOperation(left=a, operator=cst.Multiply(), right=b),
                        operator=cst.Subtract(),
                        right=cst.Subscript() as c,
                    )
                )
            ]
        ):
            return f"{FMA}({tree.text(a)}, {tree.text(b)}, -{tree.text(c)})"
        case cst.Call(
            func=cst.Attribute(attr=cst.Name(value="store")),
            args=[
                cst.Arg(
                    value=cst.BinaryOperation(
                        left=cst.Call(func=cst.Attribute(attr=cst.Name(value="load"))) as x,
                        operator=cst.Multiply(),
                        right=b,
                    )
                )
            ],
        ):
            return f"{MUL}({tree.text(x)}, {tree.text(b)})"
    return None


def _imports_blackwell(line: cst.SimpleStatementLine) -> bool:
    match line.body[0]:
        case cst.ImportFrom(module=cst.Attribute() as module):
            return get_full_name_for_node(module) == BLACKWELL
    return False
