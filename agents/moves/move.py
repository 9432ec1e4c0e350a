"""What a move is: a named edit with a hypothesis, and the sources that it makes of a source."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import libcst as cst

from agents.moves.anatomy import Anatomy, dissect
from evaluator.target import Target

LOADS = frozenset({"l2", "hbm", "shared", "lsu"})
"""What loads of tiles take."""
EVERYTHING = LOADS | {"fma", "alu", "exp", "tensor", "tensor_memory", "issue", "latency", "cta_barrier"}
"""All that can be the critical resource of a loop."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One edited source."""

    label: str
    """What changed, e.g. ``num_warps 4 -> 8``."""
    source: str


@dataclass(frozen=True, slots=True)
class Move:
    """A kind of edit that keeps a correct kernel correct and makes nothing of a source that it does not recognise."""

    name: str
    """One word or several joined by hyphens; no colon and no semicolon, which separate changes in a record."""
    hypothesis: str
    """Why it should pay, in one line."""
    prior: float
    """Expected log of the speed-up of one try before anything was seen: an expert's guess that attempts correct."""
    needs: str
    """What it must find in a source, in one line."""
    edit: Callable[[Anatomy, Target], Iterable[tuple[str, cst.Module]]]
    """Yields (label, new module), the most promising first."""
    relieves: frozenset[str] = frozenset()
    """The resources of the hot loop that it should need less of, as the performance model calls them; none where it
    pays outside the loop."""

    def variants(self, source: str, target: Target) -> tuple[Variant, ...]:
        """Return the distinct sources this move makes of ``source``, in a fixed order; none where it does not apply."""
        return _variants(self, source, target)


@lru_cache(maxsize=512)
def _variants(move: Move, source: str, target: Target) -> tuple[Variant, ...]:
    """Kept because a search edits the same few versions again and again."""
    anatomy = dissect(source)
    if anatomy is None:
        return ()
    labels: dict[str, str] = {}
    for label, module in move.edit(anatomy, target):
        labels.setdefault(module.code, label)
    labels.pop(source, None)
    return tuple(Variant(label, code) for code, label in labels.items())
