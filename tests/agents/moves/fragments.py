"""Whether pieces of code, with ``...`` for what is left out, stand in a program."""

import ast
import re
from itertools import groupby
from typing import Any


def sections(code: str) -> dict[str, str]:
    """Return the parts of an example by their headings: comments that begin with one of these words."""
    parts = re.split(r"^# (before|after|in Gluon)\b(.*)$", code, flags=re.M)
    return {heading + rest: part for heading, rest, part in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)}


def stand_in(code: str, program: str) -> bool:
    """Whether each piece of ``code`` stands somewhere in ``program``, its statements one after the other.

    At the top ``...`` ends a piece. Further in it stands for any statements, any elements, or any one expression; a
    call with ``...`` among its arguments may have any further keywords.
    """
    bodies = [
        body
        for node in ast.walk(ast.parse(program))
        for field in ("body", "orelse")
        if isinstance(body := getattr(node, field, None), list)
    ]
    pieces = [list(piece) for out, piece in groupby(ast.parse(code).body, _left_out) if not out]
    out = ast.Constant(...)
    return all(any(_same([out, *piece, out], body) for body in bodies) for piece in pieces)


def _left_out(node: Any) -> bool:
    if isinstance(node, ast.Expr):
        node = node.value
    return isinstance(node, ast.Constant) and node.value is ...


def _same(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, list):
        if not wanted:
            return not found
        if _left_out(wanted[0]):
            return any(_same(wanted[1:], found[skipped:]) for skipped in range(len(found) + 1))
        return bool(found) and _same(wanted[0], found[0]) and _same(wanted[1:], found[1:])
    if _left_out(wanted):
        return True
    if not isinstance(wanted, ast.AST):
        return bool(wanted == found)
    if type(wanted) is not type(found):
        return False
    if isinstance(wanted, ast.Call) and any(map(_left_out, wanted.args)):
        if not all(any(_same(keyword, other) for other in found.keywords) for keyword in wanted.keywords):
            return False
        return _same(wanted.func, found.func) and _same(wanted.args, found.args)
    return all(_same(getattr(wanted, field), getattr(found, field)) for field in wanted._fields)
