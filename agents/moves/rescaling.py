"""The move that rescales the output of an online softmax only when it has to."""

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from avo.agents.moves import tree
from avo.agents.moves.anatomy import Anatomy
from avo.agents.moves.move import Move
from avo.evaluator.target import Target

_SLACK = 8.0
"""How far a score may exceed the maximum that is subtracted, as in FlashAttention-4."""


def _edit_lazy(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Keep the maximum that is subtracted until a row exceeds it by ``_SLACK``; rescale only then, and only the tile.

    Exponentials grow to e^8 at most, and the sums that they enter are float32.
    """
    found = [_Online.read(walk) for walk in anatomy.walks]
    if not found or anatomy.specialised:
        return
    edits: dict[cst.CSTNode, tree.Replacement] = {}
    for online in found:
        if online is None:
            return
        old, new, latest = online.old, online.new, tree.fresh(anatomy.module, "tile_max")
        lines = f"{latest} = {online.value}\n{new} = tl.where({latest} > {old} + {_SLACK}, {latest}, {old})\n"
        edits[online.maximum] = cst.FlattenSentinel(tree.statements(lines))
        (branch,) = tree.statements(f"if tl.max(({new} > {old}).to(tl.int32), 0) > 0:\n    pass\n")
        edits[online.rescaled] = branch.with_changes(body=cst.IndentedBlock([online.rescaled]))
    yield f"rescale only beyond {_SLACK}", tree.replace(anatomy.module, edits)


@dataclass(frozen=True, slots=True)
class _Online:
    """How a loop keeps an online softmax."""

    maximum: cst.SimpleStatementLine
    """``new = tl.maximum(old, tl.max(...))``."""
    rescaled: cst.SimpleStatementLine
    """``acc = acc * rescale[:, None]``, with ``rescale`` the exponential of ``old - new``."""
    old: str
    new: str
    value: str
    """The maximum's name."""

    @classmethod
    def read(cls, walk: cst.For) -> "_Online | None":
        """Return the parts; None for any other form."""
        lines = {
            line: assigned
            for line in tree.find(walk.body, cst.SimpleStatementLine)
            if (assigned := tree.assignment(line)) is not None
        }
        maxima = [
            line
            for line, (_, value) in lines.items()
            if isinstance(value, cst.Call) and tree.is_call(value, "tl.maximum") and tree.calls(value, "tl.max")
        ]
        if len(maxima) != 1:
            return None
        new, value = lines[maxima[0]]
        assert isinstance(value, cst.Call)
        old = tree.text(value.args[0].value)
        texts = {line: (name, tree.text(value)) for line, (name, value) in lines.items()}
        factors = [
            name for name, text in texts.values() if text in (f"tl.exp({old} - {new})", f"tl.exp2({old} - {new})")
        ]
        rescaled = [line for line, (name, text) in texts.items() if text in {f"{name} * {f}[:, None]" for f in factors}]
        if len(factors) != 1 or len(rescaled) != 1 or (old, new) not in texts.values():
            return None
        return cls(maxima[0], rescaled[0], old, new, tree.text(value))


RESCALING_MOVES = (
    Move(
        "lazy",
        "a maximum that grows little need not be subtracted at once: most tiles leave the output as it is",
        0.01,
        "an online softmax that rescales the output in a line of its own; no roles for warps",
        _edit_lazy,
        frozenset({"fma", "issue", "tensor_memory"}),
    ),
)
