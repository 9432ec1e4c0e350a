"""The line tables of a binary: which source line each instruction was made from.

ptxas says which line of PTX an instruction comes from, and PTX which line of source. The table that leads to the
source at once is not used: within a piece of inline assembly LLVM counts source lines on with those of the assembly, so
that it has a load some lines below where it is written.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from evaluator.binary import Binary
from evaluator.performance.sass import FIRST, PTX_LINE

_FILE = re.compile(r'^\s*\.file\s+(\d+)\s+"([^"]*)"', re.MULTILINE)
_LOCATION = re.compile(r"^\s*\.loc\s+(\d+)\s+(\d+)\s+(\d+)(?:.*\binlined_at\s+(\d+)\s+(\d+)\s+(\d+))?")
_TABLE = re.compile(r"^\s*(\.loc\b|\$L__tmp\w*:)")
_LABEL = re.compile(r"^\s*(\$\w+):")
_BRANCH = re.compile(r"\bbra(?:\.uni)?\s+(\$\w+)\s*;")
_Place = tuple[int, int, int]
"""File, line and column, in PTX's numbering."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of source code, as reported to the compiler: neither the file nor the line need exist."""

    file: str
    number: int


@lru_cache(maxsize=16)
def read_lines(binary: Binary, file: str) -> tuple[Line | None, ...]:
    """Return the line of each instruction, in the order in which they are disassembled; None where none is known.

    What was inlined from elsewhere counts for the line of ``file`` that it was inlined at.
    """
    sources = parse_ptx(binary.ptx, file)
    numbers = parse_listing(binary.listing)
    return tuple(sources[number - 1] if number and number <= len(sources) else None for number in numbers)


def parse_listing(text: str) -> tuple[int | None, ...]:
    """Return the PTX line of each instruction, from the output of ``nvdisasm -c -hex -gp``."""
    numbers: list[int | None] = []
    number = None
    for line in text.splitlines():
        if found := PTX_LINE.search(line):
            number = int(found[1])
        elif FIRST.match(line):
            numbers.append(number)
        elif line.lstrip().startswith(".section"):
            number = None
    return tuple(numbers)


def ptx_around(binary: Binary, instructions: Iterable[int]) -> tuple[str, ...]:
    """Return the PTX that instructions of a loop, given by index, were made from, without its line tables.

    That is the loop of PTX in which most of them are, the smallest of those; where there is none, all from the first to
    the last line.
    """
    numbers = parse_listing(binary.listing)
    text = binary.ptx.split("\n")
    known = [number - 1 for index in instructions if index < len(numbers) and (number := numbers[index])]
    places = [place for place in known if place < len(text)]
    if not places:
        return ()
    loops = _loops(text) or [range(min(places), max(places) + 1)]
    best = max(loops, key=lambda loop: (sum(place in loop for place in places), -len(loop)))
    return tuple(text[place].rstrip() for place in best if text[place].strip() and not _TABLE.match(text[place]))


def _loops(ptx: Sequence[str]) -> list[range]:
    """Return the lines from each label to a branch back to it."""
    labels: dict[str, int] = {}
    loops = []
    for place, line in enumerate(ptx):
        if found := _LABEL.match(line):
            labels[found[1]] = place
        elif (found := _BRANCH.search(line)) and found[1] in labels:
            loops.append(range(labels[found[1]], place + 1))
    return loops


def parse_ptx(ptx: str, file: str) -> tuple[Line | None, ...]:
    """Return the source line of each line of PTX. A piece of inline assembly has the one that stands before it."""
    names = {int(number): name for number, name in _FILE.findall(ptx)}
    callers: dict[_Place, _Place] = {}
    lines: list[Line | None] = []
    current: Line | None = None
    inside = False
    for text in ptx.split("\n"):
        if "// begin inline asm" in text:
            inside = True
        elif "// end inline asm" in text:
            inside = False
        elif (found := _LOCATION.match(text)) and not inside:
            numbers = [int(number) for number in found.groups() if number]
            place: _Place = (numbers[0], numbers[1], numbers[2])
            if len(numbers) == 6:
                callers[place] = (numbers[3], numbers[4], numbers[5])
            else:
                callers.pop(place, None)
            current = _line(place, callers, names, file)
        lines.append(current)
    return tuple(lines)


def _line(place: _Place, callers: dict[_Place, _Place], names: dict[int, str], file: str) -> Line | None:
    """Return the innermost place of ``file`` among those that lead to ``place``, else ``place`` itself."""
    seen: dict[_Place, None] = {}
    at: _Place | None = place
    while at is not None and at not in seen:
        seen[at] = None
        if names.get(at[0]) == file:
            place = at
            break
        at = callers.get(at)
    name = names.get(place[0])
    return Line(name, place[1]) if name is not None and place[1] else None
