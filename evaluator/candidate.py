"""Candidates: one source file for one problem, named by what it says rather than how it is written."""

import ast
import hashlib
from dataclasses import dataclass
from functools import cached_property

CANDIDATE_FILE = "candidate.py"
"""File name that a candidate's code carries in tracebacks, IR locations and line tables."""


@dataclass(frozen=True)
class Candidate:
    """Python source that defines ``problem``'s entry function."""

    problem: str
    source: str

    @cached_property
    def digest(self) -> str:
        """Hex digest of problem and normalised syntax tree: layout, comments and docstrings do not count.

        Source that does not parse is named by its text.
        """
        try:
            body = ast.dump(_without_docstrings(ast.parse(self.source)))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            body = "text:" + self.source
        return hashlib.sha256(f"{self.problem}\0{body}".encode("utf-8", "surrogatepass")).hexdigest()


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
    return tree


@dataclass(frozen=True, slots=True)
class Incumbent:
    """What a candidate is timed against where speed is measured."""

    candidate: Candidate
    alpha: float
    """Allowed probability that the comparison calls a candidate faster that is not."""
