"""Source locations in IR text: ``loc(...)`` at the end of a line, and the aliases they refer to."""

import os
import re
from functools import lru_cache

_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|(?<![\w$.\-@])loc\(|[()]')
_ALIAS = re.compile(r"(#loc\d*) = loc\((.*)\)\s*")
_FILE = re.compile(r'"((?:[^"\\]|\\.)*)":(\d+):\d+')
_IR_PLACE = re.compile(r"\bkernel\.ttg?ir:(\d+):\d+")
"""A place in the file that IR is compiled from."""
_COMPILED_PLACE = re.compile(r'"(?:[^"\\]|\\.)*kernel\.ttg?ir":(\d+):(\d+)')
"""The same as IR that was compiled from that file has it."""
_LIBRARIES = ("/triton/language/", "/triton/experimental/gluon/language/")
_PART = re.compile(r'"(?:[^"\\]|\\.)*":\d+:\d+|#loc\d*(?!\w)')

_STRING_OR_LOCATION = re.compile(
    r'"(?:[^"\\]|\\.)*"|(?<!\s)\s*(?<![\w$.\-@])loc\((?:[^()"]|"(?:[^"\\]|\\.)*"|\((?:[^()"]|"(?:[^"\\]|\\.)*"|\([^()]*\))*\))*\)'
    r"|^#loc\d* = .*$",
    re.MULTILINE,
)


@lru_cache(maxsize=64)
def without_locations(ttir: str) -> str:
    """Return IR text without source locations, which change line tables and no instruction. Strings stay as is."""
    return _STRING_OR_LOCATION.sub(lambda match: match[0] if match[0].startswith('"') else "", ttir)


def to_read(ir: str) -> str:
    """Return IR text for a reader: without source locations, and without the lines that hold nothing else."""
    return "\n".join(line for line in without_locations(ir).splitlines() if line.strip())


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
                if not any(library_path in match[1] for library_path in _LIBRARIES):
                    return place
                library = library or place
        return library or f"line {number} of the IR"


def source_lines(text: str) -> tuple[str, ...]:
    """Return for each line of IR, as MLIR prints it, where it was written, as ``FILE:LINE``; ``""`` for none.

    What an operation with regions is from stands after the last of them.
    """
    raw = text.splitlines()
    locations = Locations(raw)
    found: list[str] = []
    opened: list[int] = []
    for number, line in enumerate(raw):
        code, location = split_locations(line)
        found.append(locations.resolve(location, number + 1) if location else "")
        closes, opens = code.lstrip().startswith("}"), code.endswith("{")
        if closes and opened and not opens:
            found[opened.pop()] = found[number]
        elif opens and not closes:
            opened.append(number)
    return tuple(found)


def located(message: str, text: str) -> str:
    """Return what a compiler says of IR that it was given without locations, with places in the source instead."""
    lines = source_lines(text)

    def place(match: re.Match[str]) -> str:
        line = int(match[1])
        return (lines[line - 1] if 0 < line <= len(lines) else "") or match[0]

    return _IR_PLACE.sub(place, message)


def relocated(compiled: str, text: str) -> str:
    """Return IR that was compiled from ``text``, of which the compiler saw no locations, with places in the source."""
    lines = source_lines(text)

    def place(match: re.Match[str]) -> str:
        line = int(match[1])
        file, _, number = (lines[line - 1] if 0 < line <= len(lines) else "").rpartition(":")
        return f'"{file}":{number}:{match[2]}' if file else match[0]

    return _COMPILED_PLACE.sub(place, compiled)
