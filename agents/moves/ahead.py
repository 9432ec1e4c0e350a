"""A move that loads indices of tiles, such as page numbers, one turn of the loop before the tiles."""

from collections.abc import Iterator, Mapping

import libcst as cst

from avo.agents.moves import tree
from avo.agents.moves.anatomy import Anatomy, Loop
from avo.agents.moves.move import Move
from avo.evaluator.target import Target

_DEEPEST = 8
"""Most definitions that an index hangs on, one by the other."""


def _edit_ahead(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Load what the addresses of other loads depend on in the turn before, and for the first turn ahead of the loop."""
    edits: dict[cst.CSTNode, tree.Replacement] = {}
    labels = list[str]()
    for loop in () if anatomy.specialised else anatomy.loops:
        first, inner = "", dict[cst.CSTNode, tree.Replacement]()
        for name, line, load in _indices(loop):
            written = _written_out(loop, line, load)
            if written is None:
                continue
            labels.append(name)
            later = tree.fresh(anatomy.module, f"next_{name}")
            now, then = (
                f"{later} = {tree.text(tree.with_names(written, {loop.index: f'({start})'}))}\n"
                for start in (loop.start, f"{loop.index} + {loop.step}")
            )
            first += now
            inner[line] = cst.FlattenSentinel([tree.replace(line, {load: cst.Name(later)}), *tree.statements(then)])
        if inner:
            edits[loop.node] = tree.before(tree.replace(loop.node, inner), first)
    if edits:
        yield f"load {', '.join(dict.fromkeys(labels))} a turn ahead", tree.replace(anatomy.module, edits)


def _indices(loop: Loop) -> Iterator[tuple[str, cst.SimpleStatementLine, cst.Call]]:
    """Yield the masked loads of a loop that the addresses of its other loads depend on, each with its name and line."""
    lines = [line for line in loop.node.body.body if isinstance(line, cst.SimpleStatementLine)]
    loads = tree.calls(loop.node.body, "tl.load")
    for place, line in enumerate(lines):
        name, value = tree.assignment(line) or ("", None)
        inside = tree.calls(value, "tl.load") if value is not None else []
        if len(inside) != 1 or not tree.keyword(inside[0], "mask") or not tree.definition(loop.node, name):
            continue
        depending = {name}
        for assigned in filter(None, map(tree.assignment, lines[place + 1 :])):
            if tree.names(assigned[1]) & depending:
                depending.add(assigned[0])
        if any(tree.names(load.args[0].value) & depending for load in loads if load is not inside[0]):
            yield name, line, inside[0]


def _written_out(loop: Loop, line: cst.SimpleStatementLine, load: cst.Call) -> cst.Call | None:
    """Return a load by the loop's index alone; None where it does not depend on that, or on more that the loop makes,
    such as what another load or an earlier turn has brought.
    """
    body = loop.node.body.body
    lines = map(tree.assignment, body[: body.index(line)])
    known: Mapping[str, cst.BaseExpression] = dict(filter(None, lines))
    for _ in range(_DEEPEST):
        local = [name for name in tree.names(load) - {loop.index} if tree.assignments(loop.node, name)]
        if not local:
            return load if loop.index in tree.names(load) else None
        once = [name for name in local if name in known and tree.definition(loop.node, name) is known[name]]
        if once != local or any(tree.calls(known[name], "tl.load") for name in local):
            return None
        load = tree.with_names(load, {name: f"({tree.text(known[name])})" for name in local})
    return None


AHEAD_MOVES = (
    Move(
        "ahead",
        "the address of a tile hangs on an index, such as a page's number: loaded a turn ahead, nothing waits for it",
        0.04,
        "a loop over keys with a masked load that depends on the loop's index alone and that addresses depend on",
        _edit_ahead,
        frozenset({"hbm", "latency"}),
    ),
)
