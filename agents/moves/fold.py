"""Folds masks that are known to be true, which simplifies a loop body in which every key is visible."""

from collections.abc import Collection

import libcst as cst

from avo.agents.moves import tree
from avo.agents.moves.tree import Node

TRUE = cst.Name("True")


def assume_true(body: Node, conditions: Collection[cst.BaseExpression]) -> Node:
    """Return ``body`` simplified by the knowledge that ``conditions`` (found by identity) are true everywhere.

    Conjunctions, selects, masks of loads and stores, and names set to a true condition fold away.
    """
    return body.visit(_Folder(conditions))  # type: ignore[return-value]


def _is_true(node: cst.CSTNode) -> bool:
    return tree.is_name(node, "True")


class _Folder(cst.CSTTransformer):
    """Works from the leaves up and in source order, so a name set to True is known when its uses are reached."""

    def __init__(self, conditions: Collection[cst.BaseExpression]) -> None:
        super().__init__()
        self._conditions = conditions
        self._true_names: set[str] = set()
        self._branches = 0

    def on_leave(self, original_node: cst.CSTNodeT, updated_node: cst.CSTNodeT) -> cst.CSTNodeT:
        if original_node in self._conditions:
            return TRUE  # type: ignore[return-value]
        return super().on_leave(original_node, updated_node)  # type: ignore[return-value]

    def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.BaseExpression:  # noqa: N802
        return TRUE if updated_node.value in self._true_names else updated_node

    def leave_Subscript(self, original_node: cst.Subscript, updated_node: cst.Subscript) -> cst.BaseExpression:  # noqa: N802
        return TRUE if _is_true(updated_node.value) else updated_node

    def leave_BinaryOperation(  # noqa: N802
        self, original_node: cst.BinaryOperation, updated_node: cst.BinaryOperation
    ) -> cst.BaseExpression:
        if not isinstance(updated_node.operator, cst.BitAnd):
            return updated_node
        left, right = updated_node.left, updated_node.right
        if _is_true(left) or _is_true(right):
            return right if _is_true(left) else left
        return updated_node

    def leave_IfExp(self, original_node: cst.IfExp, updated_node: cst.IfExp) -> cst.BaseExpression:  # noqa: N802
        return TRUE if _is_true(updated_node.body) and _is_true(updated_node.orelse) else updated_node

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.BaseExpression:  # noqa: N802
        if tree.is_call(updated_node, "tl.where") and _is_true(updated_node.args[0].value):
            return updated_node.args[1].value
        mask = tree.keyword(updated_node, "mask")
        if mask and _is_true(mask.value):
            return tree.with_keyword(tree.with_keyword(updated_node, "mask", None), "other", None)
        return updated_node

    def leave_Arg(self, original_node: cst.Arg, updated_node: cst.Arg) -> cst.Arg:  # noqa: N802
        return updated_node.with_changes(keyword=original_node.keyword)

    def leave_Attribute(self, original_node: cst.Attribute, updated_node: cst.Attribute) -> cst.Attribute:  # noqa: N802
        return updated_node.with_changes(attr=original_node.attr)

    def leave_AssignTarget(  # noqa: N802
        self, original_node: cst.AssignTarget, updated_node: cst.AssignTarget
    ) -> cst.AssignTarget:
        return original_node

    def leave_SimpleStatementLine(  # noqa: N802
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.SimpleStatementLine | cst.RemovalSentinel:
        assigned = tree.assignment(updated_node)
        if assigned is None:
            return updated_node
        name, value = assigned
        if _is_true(value) and (self._branches == 0 or name in self._true_names):
            self._true_names.add(name)
            return cst.RemoveFromParent()
        self._true_names.discard(name)
        return cst.RemoveFromParent() if tree.is_name(value, name) else updated_node

    def visit_If(self, node: cst.If) -> None:  # noqa: N802
        self._branches += 1

    def leave_If(self, original_node: cst.If, updated_node: cst.If) -> cst.If | cst.RemovalSentinel:  # noqa: N802
        self._branches -= 1
        emptied = not updated_node.body.body and updated_node.orelse is None
        return cst.RemoveFromParent() if emptied else updated_node
