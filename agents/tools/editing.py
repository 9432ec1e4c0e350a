"""Edits of a source by exact passages, as a model writes them."""

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from avo.agents.tools.arguments import MOST_SOURCE_CHARS, BadCall

_LITERAL = r"-?\d[\w.]*|True|False|None|\"[^\"\n]*\"|'[^'\n]*'"
_ALIKE = 0.5
"""Least share of characters in common for a passage to be pointed out as the one that was meant."""
_MOST_SHOWN = 2000
"""Most characters of a passage that is pointed out."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage that is to be replaced."""

    old: str
    new: str
    everywhere: bool = False
    """Whether it may occur more than once."""
    parameter: bool = False
    """Whether ``old`` is a name, and each literal that it is set to becomes ``new``."""


def edited(source: str, passages: Iterable[Passage]) -> str:
    """Return ``source`` with passages replaced, one after the other; raise ``BadCall`` for one that does not fit."""
    for passage in passages:
        if passage.parameter:
            source = _assigned(source, passage.old, passage.new)
            continue
        count = source.count(passage.old)
        if count == 0:
            raise BadCall(f"the passage does not occur: copy it exactly. {nearest(source, passage.old)}")
        if count > 1 and not passage.everywhere:
            raise BadCall(f"the passage occurs {count} times: give more of its surroundings, or everywhere: true")
        source = source.replace(passage.old, passage.new)
        if len(source) > MOST_SOURCE_CHARS:
            raise BadCall(f"the source would have {len(source)} characters, the limit is {MOST_SOURCE_CHARS}")
    return source


def passages_of(patch: str) -> Iterator[Passage]:
    """Yield the hunks of a unified diff as passages, whatever their line numbers say; raise ``BadCall`` for a text that
    is none.
    """
    hunks = re.split(r"^@@.*\n?", patch.strip("\n"), flags=re.MULTILINE)[1:]
    if not hunks:
        raise BadCall("the patch has no hunk: lines that begin with @@, then lines that begin with a blank, - or +")
    for number, hunk in enumerate(hunks, 1):
        lines = [line for line in hunk.rstrip("\n").split("\n") if not line.startswith("\\")]
        if wrong := next((line for line in lines if line and line[0] not in " -+"), ""):
            raise BadCall(f"hunk {number} of the patch has a line that begins with none of blank, - and +: {wrong!r}")
        old, new = (["".join(line[1:]) for line in lines if line[:1] != other] for other in "+-")
        if not any(old):
            raise BadCall(f"hunk {number} of the patch has no line of the source: give one around what is added")
        yield Passage("\n".join(old), "\n".join(new))


def _assigned(source: str, name: str, value: str) -> str:
    """Return ``source`` with another literal for a parameter: ``BLOCK_N = 64``, ``num_stages=3``, ``"WAYS": 2``."""
    set_to = re.compile(rf"""(?<![\w.]){name}(?:(?:\s*:\s*[\w.]+)?\s*=(?!=)|["']\s*:)\s*({_LITERAL})(?![\w.])""")
    found = {match[1] for match in set_to.finditer(source)}
    if not found:
        raise BadCall(f"nothing sets {name} to a literal: use edits")
    if len(found) > 1:
        raise BadCall(f"{name} is set to {' and to '.join(sorted(found))}: use edits")
    return set_to.sub(lambda match: match[0][: match.start(1) - match.start()] + value, source)


def nearest(source: str, passage: str) -> str:
    """Return the lines of ``source`` that are most like ``passage``, which does not occur."""
    wanted, lines = passage.strip("\n").splitlines(), source.splitlines()
    starts = range(max(1, len(lines) - len(wanted) + 1))
    blocks = {"\n".join(lines[start : start + len(wanted)]): start + 1 for start in reversed(starts)}
    near = difflib.get_close_matches("\n".join(wanted), blocks, n=1, cutoff=_ALIKE)
    if not wanted or not near or len(near[0]) > _MOST_SHOWN:
        return "See view_source."
    first, last = blocks[near[0]], blocks[near[0]] + len(wanted) - 1
    if first == last:
        return f"Nearest is line {first}: {near[0]!r}"
    return f"Nearest are lines {first} to {last}:\n{near[0]}"
