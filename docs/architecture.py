"""Draws docs/pictures/architecture.svg from the import graph, so that the picture shows what the code does.

    python -m docs.architecture

Each box is a package, each arrow an import. The layers of the outer boxes are those of the import contract in
pyproject.toml; the modules of the highest are the application, one box. An arrow is left out where a longer way of
arrows leads to the same box. A test fails when the picture is no longer that of the code.
"""

import itertools
import re
import textwrap
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from xml.sax.saxutils import escape

import grimp

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "pictures" / "architecture.svg"
LIBRARIES = ("torch", "triton", "numpy", "ray", "sqlalchemy", "openai", "mcp", "textual", "libcst")
"""Libraries that are named in the boxes of the packages that import them."""
GAP, ROW_GAP, LINE, PADDING = 26, 34, 16, 14
"""Distances in pixels: between boxes of a row, between rows, between lines of text, and within a box."""
FILLS = ("#ffffff", "#e8eefa")
"""Colours of the boxes, inner and outer ones in turn."""

Edges = set[tuple[str, str]]


@dataclass
class Box:
    """A package in the picture; without a name, the whole picture, or the place where an arrow passes a row."""

    name: str
    lines: Sequence[str] = ()
    rows: "list[list[Box]]" = field(default_factory=list)
    arrows: "list[list[Box]]" = field(default_factory=list)
    """Boxes of ``rows`` that an arrow leads through, from the package that imports to the one that is imported."""
    x: float = 0.0
    y: float = 0.0
    through: float = 0.0
    """Height in pixels of the row that an arrow passes here."""

    @property
    def head(self) -> float:
        """Height in pixels of the name and the lines of text."""
        return PADDING + LINE * (1 + len(self.lines)) if self.name else 0.0

    @property
    def width(self) -> float:
        """Width in pixels."""
        texts = (9.0 * len(self.name), *(6.6 * len(line) for line in self.lines))
        rows = (sum(box.width for box in row) + GAP * (len(row) - 1) for row in self.rows)
        return max([*texts, *rows]) + 2 * PADDING if self.name or self.rows else 4.0

    @property
    def height(self) -> float:
        """Height in pixels."""
        rows = [max(box.height for box in row) for row in self.rows]
        return self.head + sum(rows) + self.gap * len(rows)

    @property
    def gap(self) -> float:
        """Height in pixels between two rows of boxes."""
        return ROW_GAP if self.name else 1.5 * ROW_GAP

    def place(self, x: float, y: float) -> None:
        """Move the upper left corner there, with everything within."""
        self.x, self.y = x, y
        y += self.head + self.gap / 2
        for row in self.rows:
            free = self.width - 2 * PADDING - sum(box.width for box in row)
            gap = free / (len(row) + 1)
            tallest = max(box.height for box in row)
            left = x + PADDING + gap
            for box in row:
                box.place(left, y)
                box.through = 0.0 if box.name else tallest
                left += box.width + gap
            y += tallest + self.gap

    def draw(self, depth: int = 0) -> Iterable[str]:
        """Yield the elements of SVG, what lies below first."""
        if self.name:
            yield (
                f'<rect x="{self.x:.0f}" y="{self.y:.0f}" width="{self.width:.0f}" height="{self.height:.0f}" rx="6" '
                f'fill="{FILLS[depth % 2]}" stroke="#5b6b8c"/>'
            )
        for arrow in self.arrows:
            yield f'<path d="{_curve(arrow)}" fill="none" stroke="#5b6b8c" marker-end="url(#head)"/>'
        left, top = self.x + PADDING, self.y + PADDING + LINE / 2
        if self.name:
            yield f'<text x="{left:.0f}" y="{top:.0f}" font-weight="bold">{escape(self.name)}</text>'
        for number, line in enumerate(self.lines, 1):
            yield f'<text x="{left:.0f}" y="{top + LINE * number:.0f}" class="small">{escape(line)}</text>'
        for box in itertools.chain(*self.rows):
            yield from box.draw(depth + 1)


def _curve(boxes: Sequence[Box]) -> str:
    """Return the path from the lower edge of the first box to the upper edge of the last."""
    first, *rest = boxes
    x, y = first.x + first.width / 2, first.y + first.height
    path = f"M {x:.0f} {y:.0f}"
    for box in rest:
        to_x, to_y = box.x + box.width / 2, box.y - (2 if box.name else 0)
        middle = (y + to_y) / 2
        path += f" C {x:.0f} {middle:.0f} {to_x:.0f} {middle:.0f} {to_x:.0f} {to_y:.0f}"
        x, y = to_x, to_y + box.through
        path += f" V {y:.0f}" if box.through else ""
    return path


def imports(graph: grimp.ImportGraph, boxes: Mapping[str, Iterable[str]]) -> Edges:
    """Return which boxes import which; ``boxes`` are the packages and modules of each."""
    return {
        (importer, imported)
        for importer, imported in itertools.permutations(boxes, 2)
        if any(
            graph.direct_import_exists(importer=a, imported=b, as_packages=True)
            for a, b in itertools.product(boxes[importer], boxes[imported])
        )
    }


def reduced(edges: Edges) -> Edges:
    """Return the edges without those that a way of several others replaces. Raises ``ValueError`` for a circle."""
    order = TopologicalSorter({a: {b for c, b in edges if c == a} for a, _ in edges})
    try:
        below: dict[str, set[str]] = {}
        for name in order.static_order():
            direct = {b for a, b in edges if a == name}
            below[name] = direct.union(*(below[b] for b in direct))
    except CycleError as error:
        raise ValueError(f"packages import each other in a circle: {' -> '.join(error.args[1])}") from None
    return {(a, b) for a, b in edges if not any(b in below[c] for d, c in edges if d == a)}


def by_depth(names: Sequence[str], edges: Edges) -> list[list[str]]:
    """Return the names in rows, each name above all that it imports."""

    def depth(name: str) -> int:
        return max((1 + depth(b) for a, b in edges if a == name), default=0)

    rows = itertools.groupby(sorted(names, key=lambda name: (-depth(name), name)), key=depth)
    return [list(row) for _, row in rows]


def arranged(boxes: Sequence[Sequence[Box]], edges: Edges) -> tuple[list[list[Box]], list[list[Box]]]:
    """Return rows of boxes in an order with few crossings, and the boxes that each arrow leads through."""
    rows = [list(row) for row in boxes]
    at = {box.name: (number, box) for number, row in enumerate(rows) for box in row}
    arrows = []
    for importer, imported in sorted(edges):
        (top, first), (bottom, last) = at[_folder(importer)], at[_folder(imported)]
        passed = [Box("") for _ in range(top + 1, bottom)]
        for number, box in enumerate(passed, top + 1):
            rows[number].append(box)
        arrows.append([first, *passed, last])
    steps = [pair for arrow in arrows for pair in itertools.pairwise(arrow)]

    def crossings(orders: Iterable[Iterable[Box]]) -> int:
        levels = [list(row) for row in orders]
        place = {id(box): number for row in levels for number, box in enumerate(row)}
        level = {id(box): number for number, row in enumerate(levels) for box in row}
        return sum(
            level[id(a)] == level[id(c)] and (place[id(a)] - place[id(c)]) * (place[id(b)] - place[id(d)]) < 0
            for (a, b), (c, d) in itertools.combinations(steps, 2)
        )

    for number in [*range(len(rows)), *reversed(range(len(rows)))]:
        options = itertools.permutations(rows[number])
        rows[number] = list(min(options, key=lambda row: crossings([*rows[:number], row, *rows[number + 1 :]])))
    return rows, arrows


def picture() -> str:
    """Return the SVG."""
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = (each for each in linter["contracts"] if each.get("containers") == [linter["root_package"]])
    application, *layers = [re.split(r" [:|] ", layer) for layer in contract["layers"]]
    (root,) = contract["containers"]
    graph = grimp.build_graph(
        linter["root_package"], include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )
    within = {root: [f"{root}.{name}" for name in application]} | {
        f"{root}.{name}": [f"{root}.{name}"] for name in itertools.chain(*layers)
    }

    def small(package: str) -> Box:
        used = [name for name in LIBRARIES if _uses(graph, package, name)]
        return Box(_folder(package), [", ".join(used)] if used else [])

    def large(package: str) -> Box:
        children = within[root] if package == root else sorted(graph.find_children(package))
        inner = [name for name in children if (ROOT / _folder(name) / "__init__.py").exists()]
        modules = [name.rpartition(".")[2] for name in children if name not in inner]
        if package == f"{root}.seeds":  # whose folders are the problems'
            inner = []
        made = Box(_folder(package), _wrapped([name for name in modules if not name.startswith("_")]))
        if len(inner) > 1:
            edges = reduced(imports(graph, {name: [name] for name in inner}))
            made.rows, made.arrows = arranged([[small(name) for name in row] for row in by_depth(inner, edges)], edges)
        return made

    outer = Box("")
    edges = reduced(imports(graph, within))
    rows = [[root], *([f"{root}.{name}" for name in layer] for layer in layers)]
    outer.rows, outer.arrows = arranged([[large(name) for name in row] for row in rows], edges)
    outer.place(0, 0)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {outer.width:.0f} {outer.height:.0f}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="14" fill="#1d2433">\n'
        "<style>.small { font-size: 12px; fill: #5b6b8c }</style>\n"
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M 0 0 L 8 4 L 0 8 z" fill="#5b6b8c"/></marker>\n' + "\n".join(outer.draw()) + "\n</svg>\n"
    )


def _uses(graph: grimp.ImportGraph, package: str, library: str) -> bool:
    return library in graph.modules and graph.direct_import_exists(importer=package, imported=library, as_packages=True)


def _folder(package: str) -> str:
    """Return a package's folder, where the link that it is imported through leads."""
    return f"{(ROOT / package.replace('.', '/')).resolve().relative_to(ROOT.resolve())}/"


def _wrapped(names: Sequence[str]) -> list[str]:
    return textwrap.wrap(", ".join(names), 60)


if __name__ == "__main__":
    PICTURE.write_text(picture())
