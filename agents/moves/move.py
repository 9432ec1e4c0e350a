"""Moves: each is a named edit with a hypothesis, and makes new sources from a source."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import libcst as cst

from avo.agents.moves.anatomy import Anatomy, dissections
from avo.evaluator.catalogue import kind_and_setting
from avo.evaluator.setting import Setting
from avo.evaluator.target import Target

Edit = Callable[[Anatomy, Target], Iterable[tuple[str, cst.Module]]]
"""Yields (label, new module) pairs, the most promising first."""

LOADS = frozenset({"l2", "hbm", "shared", "lsu"})
"""The resources that loads of tiles use."""
EVERYTHING = LOADS | {"fma", "alu", "exp", "tensor", "tensor_memory", "issue", "latency", "cta_barrier"}
"""Every resource that can be the critical one of a loop."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One edited source."""

    label: str
    """What changed, e.g. ``num_warps 4 -> 8``."""
    source: str


@dataclass(frozen=True, slots=True)
class Move:
    """A kind of edit that keeps a correct kernel correct. It yields nothing for a source that it does not recognise."""

    name: str
    """One word or several joined by hyphens; no colon and no semicolon, which separate changes in a record."""
    hypothesis: str
    """Why the move should make the kernel faster, in one line."""
    prior: float
    """Expected log speed-up of one try: an expert's guess, corrected by the run's attempts."""
    needs: str
    """What the move needs to find in a source, in one line."""
    edit: Edit
    relieves: frozenset[str] = frozenset()
    """Resources of the hot loop that the move relieves, in the performance model's names; empty if it helps outside the
    loop.
    """
    each: bool = False
    """Whether it is made of each kernel that multiplies matrices, where a candidate has several; other moves know only
    an attention kernel that is the only one.
    """
    gluon: bool = False
    """Whether it is one of kernels in Gluon; the others are of kernels in Triton."""
    first: "tuple[Move, ...]" = ()
    """A plan: where the move finds nothing to do, the first variants of these moves are made before it, each that
    applies, in this order. All of it is one edit.
    """
    in_setting: Callable[[Setting], Edit | None] | None = None
    """Returns the edit for a setting of the problem, or None where the move has none; else ``edit`` is for all."""

    def variants(self, source: str, target: Target, problem: str = "") -> tuple[Variant, ...]:
        """Return the distinct sources that this move makes of ``source``, in a fixed order; empty if none applies.

        ``problem`` is the name of the problem that the source solves; a name that says no setting, or none, stands for
        the setting of the paper.
        """
        return _variants(self, source, target, problem)


@lru_cache(maxsize=512)
def _variants(move: Move, source: str, target: Target, problem: str) -> tuple[Variant, ...]:
    """Return what ``Move.variants`` does. Cached, because a search edits the same few versions again and again."""
    edit = move.in_setting(kind_and_setting(problem)[1] or Setting()) if move.in_setting else move.edit
    if edit is None:
        return ()
    alone = _edited(move, edit, source, target)
    if alone or not move.first:
        return alone
    prepared, changes = source, []
    for other in move.first:
        for variant in other.variants(prepared, target, problem)[:1]:
            prepared = variant.source
            changes.append(variant.label)
    return tuple(
        Variant(", ".join([*changes, variant.label]), variant.source)
        for variant in _edited(move, edit, prepared, target)
    )


def _edited(move: Move, edit: Edit, source: str, target: Target) -> tuple[Variant, ...]:
    found = dissections(source, gluon=move.gluon)
    if len(found) > 1 and not move.each:
        return ()
    labels: dict[str, str] = {}
    for anatomy in found:
        of = f" of {anatomy.kernel.name.value}" if len(found) > 1 else ""
        for label, module in edit(anatomy, target):
            labels.setdefault(module.code, f"{label}{of}")
    labels.pop(source, None)
    return tuple(Variant(label, code) for code, label in labels.items())
