"""The edit of attention kernels in Gluon that lets programs walk over tiles."""

from collections.abc import Iterator

import libcst as cst
from libcst.helpers import get_full_name_for_node

from avo.agents.moves import tree
from avo.agents.moves.anatomy import Anatomy
from avo.agents.moves.order import persistent
from avo.evaluator.target import Target

_ALLOCATIONS = ("allocate_shared_memory", "allocate_tensor_memory")


def edit_persistent(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Launch a program for each SM, which allocates once. For each tile it initialises the barriers, gives the roles
    their work, and invalidates the barriers.
    """
    lines = [line for line in anatomy.kernel.body.body if isinstance(line, cst.BaseStatement)]
    once = [line for line in lines if _allocates(line) or _constant(line)]
    again = [line for line in lines if line not in once]
    made = [line for line in again if tree.calls(line, "mbarrier.init")]
    if made and tree.calls(lines[-1], "gl.warp_specialize"):
        yield from persistent(anatomy, target.sms, once, [*again, *map(_invalidated, made)], "gl")


def _constant(line: cst.BaseStatement) -> bool:
    return isinstance(line, cst.SimpleStatementLine) and all(isinstance(each, cst.AnnAssign) for each in line.body)


def _allocates(line: cst.BaseStatement) -> bool:
    _, value = tree.assignment(line) or ("", None)
    name = get_full_name_for_node(value.func) if isinstance(value, cst.Call) else None
    return name is not None and name.rpartition(".")[2] in _ALLOCATIONS


def _invalidated(line: cst.BaseStatement) -> cst.BaseStatement:
    """Return a statement with ``mbarrier.invalidate`` in place of ``mbarrier.init``."""
    edits: dict[cst.CSTNode, tree.Replacement] = {}
    for small in tree.find(line, cst.SimpleStatementLine):
        for call in tree.calls(small, "mbarrier.init"):
            edits[small] = tree.statements(f"mbarrier.invalidate({tree.text(call.args[0].value)})\n")[0]
    return tree.replace(line, edits)
