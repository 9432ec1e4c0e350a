"""The line tables of a binary: which line of IR each instruction was made from.

ptxas says which line of PTX an instruction comes from, and PTX which line of IR. The table that leads to the IR at once
is not used: within a piece of inline assembly LLVM counts lines on with those of the assembly, so that it has a load
some lines below where it is written.
"""

import re
from collections.abc import Iterable, Sequence

from avo.evaluator.binary import Binary
from avo.evaluator.performance.sass import Instruction

_LOCATION = re.compile(r"^\s*\.loc\s+\d+\s+(\d+)\s+\d+")
_TABLE = re.compile(r"^\s*(\.loc\b|\$L__tmp\w*:)")
_LABEL = re.compile(r"^\s*(\$\w+):")
_BRANCH = re.compile(r"\bbra(?:\.uni)?\s+(\$\w+)\s*;")


def ir_lines(ptx: str) -> tuple[int | None, ...]:
    """Return the line of IR, counted from 1, of each line of PTX; None where it is not known. A piece of inline
    assembly has the one that stands before it.
    """
    lines: list[int | None] = []
    current: int | None = None
    inside = False
    for text in ptx.split("\n"):
        if "// begin inline asm" in text:
            inside = True
        elif "// end inline asm" in text:
            inside = False
        elif (found := _LOCATION.match(text)) and not inside:
            current = int(found[1]) or None
        lines.append(current)
    return tuple(lines)


def ptx_around(binary: Binary, instructions: Iterable[Instruction]) -> tuple[str, ...]:
    """Return the PTX that instructions of a loop were made from, without its line tables.

    That is the loop of PTX in which most of them are, the smallest of those; where there is none, all from the first to
    the last line.
    """
    text = binary.ptx.split("\n")
    places = [i.ptx_line - 1 for i in instructions if i.ptx_line and i.ptx_line <= len(text)]
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
