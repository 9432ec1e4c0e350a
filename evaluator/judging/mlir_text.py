"""Pieces of MLIR text, of the dialects of Triton's GPU IR."""

import re
from collections.abc import Iterable, Sequence

from evaluator.executor import UnsupportedOperation

_LAYOUT = re.compile(r",\s*#[\w.]+")


def without_layouts(text: str) -> str:
    """Return IR text without the layouts in its types."""
    kept = []
    position = 0
    for match in _LAYOUT.finditer(text):
        if match.start() >= position:
            kept.append(text[position : match.start()])
            position = match.end()
            depth = 0
            while depth or text[position : position + 1] == "<":
                depth += (text[position : position + 1] == "<") - (text[position : position + 1] == ">")
                position += 1
                if position > len(text):
                    raise unsupported("a layout that is never closed")
    return "".join(kept) + text[position:]


def unsupported(what: str) -> UnsupportedOperation:
    """Return the error for what cannot be read or rewritten."""
    return UnsupportedOperation(what, "Triton GPU IR")


def matched(pattern: re.Pattern[str], text: str, name: str) -> re.Match[str]:
    """Return the match with all of ``text``, written for ``name``; raise ``UnsupportedOperation`` if there is none."""
    match = pattern.fullmatch(text)
    if match is None:
        raise unsupported(f"{name} written as {text[:60]!r}")
    return match


def result_names(results: str) -> list[str]:
    """Return the names that ``%a:2, %b`` defines."""
    names = []
    for item in results.split(", ") if results else ():
        base, _, count = item.partition(":")
        names += [f"{base}#{i}" for i in range(int(count))] if count else [base]
    return names


def split_types(text: str) -> list[str]:
    """Split a list of types at the commas that are not inside one."""
    depth = 0
    parts = [""]
    for char in text.strip().removeprefix("(").removesuffix(")"):
        depth += (char == "<") - (char == ">")
        if char == "," and not depth:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts if part.strip()]


def kept_type(kind: str) -> bool:
    """Whether Triton IR has the type."""
    return not kind.startswith(("!ttg.", "!ttng."))


def keep(items: Iterable[str], kept: Sequence[bool]) -> list[str]:
    """Return the items whose place is kept."""
    return [item for item, keep in zip(items, kept, strict=True) if keep]


def listed(kinds: Iterable[str], kept: Sequence[bool]) -> str:
    """Return the kept types as a list in the text."""
    return ", ".join(keep(kinds, kept))
