"""Source locations in IR text: ``loc(...)`` at the end of a line, and the aliases they refer to."""

import os
import re

_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|(?<![\w$.\-@])loc\(|[()]')
_ALIAS = re.compile(r"(#loc\d*) = loc\((.*)\)\s*")
_FILE = re.compile(r'"((?:[^"\\]|\\.)*)":(\d+):\d+')
_LIBRARY = "/triton/language/"
_PART = re.compile(r'"(?:[^"\\]|\\.)*":\d+:\d+|#loc\d*(?!\w)')


def split_locations(line: str) -> tuple[str, str]:
    """Return a line without its ``loc(...)`` parts, and the contents of the last of them (``""`` if none)."""
    if "loc(" not in line:
        return line.rstrip(), ""
    kept: list[str] = []
    location = ""
    depth = start = opened = 0
    for match in _PIECE.finditer(line):
        piece = match[0]
        if piece == "loc(" and depth == 0:
            kept.append(line[start : match.start()].rstrip())
            opened = match.end()
            depth = 1
        elif depth and piece in ("(", "loc("):
            depth += 1
        elif depth and piece == ")":
            depth -= 1
            if depth == 0:
                location = line[opened : match.start()]
                start = match.end()
    if depth == 0:
        kept.append(line[start:])
    return "".join(kept).rstrip(), location


class Locations:
    """Resolves locations to ``FILE:LINE``; code inlined from Triton's library counts as the line that called it."""

    def __init__(self, lines: list[str]) -> None:
        self._aliases = {match[1]: match[2] for match in map(_ALIAS.fullmatch, lines) if match}

    def resolve(self, location: str, number: int) -> str:
        """Return ``FILE:LINE`` for the contents of a ``loc(...)``; ``number`` is the line of the IR to fall back to."""
        pending = _PART.findall(location)[::-1]
        seen: set[str] = set()
        library = ""
        while pending:
            part = pending.pop()
            if part in self._aliases and part not in seen:
                seen.add(part)
                pending.extend(_PART.findall(self._aliases[part])[::-1])
            elif match := _FILE.fullmatch(part):
                place = f"{os.path.basename(match[1])}:{match[2]}"
                if _LIBRARY not in match[1]:
                    return place
                library = library or place
        return library or f"line {number} of the IR"
