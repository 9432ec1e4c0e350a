"""The move that changes the order of statements in the loop over keys."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import libcst as cst

from avo.agents.moves import tree
from avo.agents.moves.anatomy import Anatomy
from avo.agents.moves.move import Move
from avo.evaluator.target import Target


@dataclass(frozen=True, slots=True)
class _Line:
    """A statement of a loop's body, with the names that it assigns and those that it mentions."""

    node: cst.BaseStatement
    makes: frozenset[str]
    mentions: frozenset[str]

    @classmethod
    def read(cls, node: cst.BaseStatement) -> "_Line":
        return cls(node, frozenset(tree.assigned_names(node)), frozenset(tree.names(node)))

    def may_pass(self, other: "_Line") -> bool:
        """Return whether the two may change places: neither assigns what the other mentions."""
        return self.makes.isdisjoint(other.mentions) and other.makes.isdisjoint(self.mentions)


def _edit_reorder(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Move one assignment of the first loop as far up, or as far down, as what it depends on allows."""
    if not anatomy.walks:
        return
    walk = anatomy.walks[0]
    if not isinstance(walk.body, cst.IndentedBlock):
        return
    nodes = [line for line in walk.body.body if isinstance(line, cst.BaseStatement)]
    lines = [_Line.read(node) for node in nodes]
    known = sum(1 for line in tree.statement_lines(walk.body) if tree.assignment(line))
    if known != len(tree.find(walk.body, cst.SimpleStatementLine)) or not all(line.makes for line in lines):
        return
    if target.tensor_memory and tree.calls(walk.iter, "tl.range"):
        return  # roles take the statements apart: their order changes nothing
    # What stands last before the second product delays it alone.
    later = [(place, "later", _furthest(lines, place, down=True)) for place in reversed(range(len(lines)))]
    earlier = [(place, "earlier", _furthest(lines, place, down=False)) for place in range(len(lines))]
    for place, where, to in (*later, *earlier):
        line = lines[place]
        if to == place or not tree.find(line.node, cst.Call):
            continue
        moved = [*lines[:place], *lines[place + 1 :]]
        moved.insert(to, line)
        body = walk.body.with_changes(body=[each.node for each in moved])
        what = ", ".join(sorted(line.makes))
        yield f"{what} computed {where}", tree.replace(anatomy.module, {walk.body: body})


def _furthest(lines: Sequence[_Line], place: int, *, down: bool) -> int:
    """Return the place that the statement at ``place`` can be moved to, past those that it does not depend on."""
    step, to = (1 if down else -1), place
    while 0 <= to + step < len(lines) and lines[place].may_pass(lines[to + step]):
        to += step
    return to


STATEMENT_MOVES = (
    Move(
        "reorder",
        "what is in the way between two products keeps the tensor cores waiting, and compilers keep the order of "
        "statements around loads and products",
        0.02,
        "a loop over keys whose statements are assignments",
        _edit_reorder,
        frozenset({"latency", "tensor", "exp"}),
        each=True,
    ),
)
