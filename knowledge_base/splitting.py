"""Splits texts into passages: markdown into sections, Python into functions and classes, other texts into pieces."""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise

_PASSAGE_CHARS = 4000
_HEADING = re.compile(r"(#{1,6})\s+(.+?)\s*#*\s*")


def split(suffix: str, text: str) -> Iterator[tuple[str, str]]:
    """Yield title and text of each passage of a file whose name ends in ``suffix``."""
    parts = {".md": _sections, ".markdown": _sections, ".py": _definitions}.get(suffix.lower(), _whole)(text)
    for title, part in parts:
        for piece in _pieces(part):
            yield title, piece


def _whole(text: str) -> list[tuple[str, str]]:
    return [("", text)]


def _sections(text: str) -> list[tuple[str, str]]:
    """Split markdown at its headings, but not within fenced code."""
    sections: list[tuple[str, list[str]]] = [("", [])]
    fenced = False
    for line in text.splitlines():
        fenced ^= line.lstrip().startswith(("```", "~~~"))
        heading = None if fenced else _HEADING.fullmatch(line)
        if heading:
            sections.append((heading[2], []))
        sections[-1][1].append(line)
    return [(title, "\n".join(lines)) for title, lines in sections]


def _definitions(text: str) -> list[tuple[str, str]]:
    """Split Python at its functions and classes; the code between them has no title."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return _whole(text)
    lines = text.splitlines()
    names = {0: ""}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names[min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1] = node.name
            names.setdefault(node.end_lineno or len(lines), "")
    return [(names[a], "\n".join(lines[a:b])) for a, b in pairwise([*sorted(names), len(lines)])]


def _pieces(text: str) -> Iterator[str]:
    """Yield pieces of at most ``_PASSAGE_CHARS``, made of whole paragraphs unless a paragraph is longer."""
    paragraphs = [
        part[start : start + _PASSAGE_CHARS]
        for part in re.split(r"\n\s*\n", text)
        for start in range(0, len(part), _PASSAGE_CHARS)
    ]
    piece = ""
    for paragraph in paragraphs:
        if piece and len(piece) + len(paragraph) + 2 > _PASSAGE_CHARS:
            yield piece
            piece = ""
        piece = f"{piece}\n\n{paragraph}" if piece else paragraph.strip("\n")
    if piece.strip():
        yield piece
