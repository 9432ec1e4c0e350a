"""Edits of a source by exact passages, as a model writes them."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from avo.agents.tools.arguments import MOST_SOURCE_CHARS, BadCall

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


def edited(source: str, passages: Iterable[Passage]) -> str:
    """Return ``source`` with passages replaced, one after the other; raise ``BadCall`` for one that does not fit."""
    for passage in passages:
        count = source.count(passage.old)
        if count == 0:
            raise BadCall(f"the passage does not occur: copy it exactly. {nearest(source, passage.old)}")
        if count > 1 and not passage.everywhere:
            raise BadCall(f"the passage occurs {count} times: give more of its surroundings, or everywhere: true")
        source = source.replace(passage.old, passage.new)
        if len(source) > MOST_SOURCE_CHARS:
            raise BadCall(f"the source would have {len(source)} characters, the limit is {MOST_SOURCE_CHARS}")
    return source


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
