"""Sources as they are exported: the candidate's, with the imports that it uses, laid out in the usual way.

Nothing is executed. What comes out is judged afresh before it is exported.
"""

from typing import TypeVar

import libcst as cst
from libcst.codemod import CodemodContext
from libcst.codemod.commands.remove_unused_imports import RemoveUnusedImportsCommand

from avo.export.errors import ExportError

_MOST_BLANK_LINES = 2
_Statement = TypeVar("_Statement", bound=cst.CSTNode)
_DEFINITIONS = (cst.FunctionDef, cst.ClassDef)


def tidied(source: str) -> str:
    """Return ``source`` without unused imports, comments kept; raise ``ExportError`` if it is no Python.

    Indentation, blank lines, line ends, quotes and the spaces around operators become the usual ones; lines stay as
    long as they are.
    """
    try:
        module = cst.parse_module(source)
        module = RemoveUnusedImportsCommand(CodemodContext()).transform_module(module)
    except (cst.ParserSyntaxError, RecursionError, ValueError) as error:
        raise ExportError(f"the source cannot be read: {' '.join(str(error).split())}") from None
    module = module.with_changes(default_indent="    ", default_newline="\n")
    laid_out = module.visit(_Layout())
    return laid_out.code.rstrip() + "\n"


class _Layout(cst.CSTTransformer):
    """Usual spaces and blank lines."""

    def leave_Module(self, original_node: cst.Module, updated_node: cst.Module) -> cst.Module:  # noqa: N802
        body: list[cst.SimpleStatementLine | cst.BaseCompoundStatement] = []
        for statement in updated_node.body:
            after_definition = bool(body) and isinstance(body[-1], _DEFINITIONS)
            if body and (after_definition or isinstance(statement, _DEFINITIONS)):
                statement = _with_blank_lines(statement, _MOST_BLANK_LINES)
            body.append(statement)
        return updated_node.with_changes(body=body)

    def leave_EmptyLine(self, original_node: cst.EmptyLine, updated_node: cst.EmptyLine) -> cst.EmptyLine:  # noqa: N802
        blank = cst.SimpleWhitespace("")
        return updated_node.with_changes(whitespace=blank, newline=cst.Newline(None))

    def leave_TrailingWhitespace(  # noqa: N802
        self, original_node: cst.TrailingWhitespace, updated_node: cst.TrailingWhitespace
    ) -> cst.TrailingWhitespace:
        space = cst.SimpleWhitespace("  " if updated_node.comment else "")
        return updated_node.with_changes(whitespace=space, newline=cst.Newline(None))

    def leave_IndentedBlock(  # noqa: N802
        self, original_node: cst.IndentedBlock, updated_node: cst.IndentedBlock
    ) -> cst.IndentedBlock:
        body = [_with_blank_lines(statement, None) for statement in updated_node.body]
        return updated_node.with_changes(body=[_with_blank_lines(body[0], 0), *body[1:]], indent=None)

    def leave_SimpleString(self, original_node: cst.SimpleString, updated_node: cst.SimpleString) -> cst.SimpleString:  # noqa: N802
        text = updated_node.raw_value
        if updated_node.quote == "'" and not {'"', "\\"} & set(text):
            return updated_node.with_changes(value=f'{updated_node.prefix}"{text}"')
        return updated_node

    def leave_AssignTarget(self, original_node: cst.AssignTarget, updated_node: cst.AssignTarget) -> cst.AssignTarget:  # noqa: N802
        one = cst.SimpleWhitespace(" ")
        return updated_node.with_changes(whitespace_before_equal=one, whitespace_after_equal=one)

    def on_leave(self, original_node: cst.CSTNode, updated_node: cst.CSTNode) -> cst.CSTNode:  # type: ignore[override]
        left = super().on_leave(original_node, updated_node)
        assert isinstance(left, cst.CSTNode)
        if isinstance(left, cst.Power) or not isinstance(
            left, cst.BaseBinaryOp | cst.BaseBooleanOp | cst.BaseCompOp | cst.BaseAugOp
        ):
            return left
        spaces = {
            name: cst.SimpleWhitespace(" ")
            for name in ("whitespace_before", "whitespace_after")
            if isinstance(getattr(left, name, None), cst.SimpleWhitespace)
        }
        return left.with_changes(**spaces)


def _with_blank_lines(statement: _Statement, number: int | None) -> _Statement:
    """Return ``statement`` behind so many blank lines, or for None one where it has any; comments above it stay."""
    lines = list(getattr(statement, "leading_lines", ()))
    had = 0
    while lines and lines[0].comment is None:
        lines.pop(0)
        had += 1
    blank = [cst.EmptyLine(indent=False)] * (min(had, 1) if number is None else number)
    return statement.with_changes(leading_lines=[*blank, *lines])
