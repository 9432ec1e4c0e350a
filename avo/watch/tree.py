"""The tree of versions: in which order it is drawn, and how far its rows are indented."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from avo.lineage_db.records import Version


@dataclass(frozen=True, slots=True)
class Row:
    """A version, its indentation in the tree, and the lines to its left as text."""

    version: Version
    depth: int
    lines: str


def layout(versions: Sequence[Version]) -> list[Row]:
    """Return the rows of the tree, parents before children.

    A version stands below its first parent. The line that leads to the last version, the best, stays flush with its
    parent and comes last; other lines branch off before it and are indented by two columns, so that a long chain needs
    no width.
    """
    numbers = {version.number for version in versions}
    children: dict[int | None, list[Version]] = defaultdict(list)
    for version in versions:
        parent = version.parents[0] if version.parents and version.parents[0] in numbers else None
        children[parent].append(version)
    reach = _reach(versions, children)
    rows = []
    pending = [(root, 0, "") for root in reversed(children[None])]
    while pending:
        version, depth, first = pending.pop()
        rows.append(Row(version, depth, first or "│ " * depth))
        line = sorted(children[version.number], key=lambda child: reach[child.number])
        if line:
            pending.append((line[-1], depth, ""))
        pending.extend((side, depth + 1, "│ " * depth + "├─") for side in reversed(line[:-1]))
    return rows


def _reach(versions: Sequence[Version], children: Mapping[int | None, Sequence[Version]]) -> dict[int, int]:
    """Return the number of the last version that each version leads to; children have higher numbers than parents."""
    reach: dict[int, int] = {}
    for version in sorted(versions, key=lambda version: version.number, reverse=True):
        below = (reach[child.number] for child in children.get(version.number, ()))
        reach[version.number] = max(below, default=version.number)
    return reach
