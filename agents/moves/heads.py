"""The move that packs the query heads of one KV head into one tile."""

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from avo.agents.moves import tree
from avo.agents.moves.anatomy import Anatomy, unconverted
from avo.agents.moves.move import LOADS, Move
from avo.agents.moves.order import grid_of
from avo.evaluator.target import Target


def _edit_group(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Make the rows of a tile the query heads of one KV head, position after position."""
    edits = _of_kernel(anatomy)
    host = _of_host(anatomy)
    if edits and host:
        yield "query heads of a group in the rows of one tile", tree.replace(anatomy.module, {**edits, **host})


def _of_kernel(anatomy: Anatomy) -> tree.Edits:
    """Let programs be numbered by KV heads, and rows by position and query head; empty where that cannot be told."""
    heads = _Heads.read(anatomy)
    if not anatomy.causal or heads is None:
        return {}
    block = anatomy.causal[0].rows
    rows = [
        statement
        for statement in anatomy.kernel.body.body
        if (found := tree.assignment(statement)) and anatomy.block(cst.Name(found[0])) == block
    ]
    if len(rows) != 1:
        return {}
    row, value = tree.assignment(rows[0]) or ("", None)
    # What is said of rows elsewhere, such as where a loop ends, would not be true of their positions.
    made_of = tree.names(tree.expression(block.first)) - set(anatomy.parameters)
    if value is None or any(heads.count(name) != 2 for name in made_of):
        return {}
    packed, member = (tree.fresh(anatomy.module, name) for name in ("packed", "member"))
    lines = f"{packed} = {tree.text(value)}\n{row} = {packed} // {heads.group}\n{member} = {packed} % {heads.group}\n"
    edits: dict[cst.CSTNode, tree.Replacement] = {rows[0]: cst.FlattenSentinel(tree.statements(lines))}
    for use, place in heads.uses(row):
        edits[use] = tree.expression(place.format(member=member))
    return {**edits, heads.kv_definition: cst.Name(heads.head)} if len(edits) > 1 else {}


def _of_host(anatomy: Anatomy) -> tree.Edits:
    """Launch that many programs, and pass the number of heads."""
    heads, grid = _Heads.read(anatomy), grid_of(anatomy)
    ratio = tree.expression(anatomy.arguments[heads.group]) if heads else None
    if heads is None or grid is None or not isinstance(ratio, cst.BinaryOperation):
        return {}
    all_heads, kv_heads = tree.text(ratio.left), tree.text(ratio.right)
    sizes = [element.value for element in grid.elements]
    passed = [arg for arg in anatomy.launch.args if not arg.star and tree.text(arg.value) == all_heads]
    counts = [size for size in sizes if isinstance(size, cst.BinaryOperation) and tree.is_name(size.right, all_heads)]
    tiles = [size for size in sizes if isinstance(size, cst.Call) and tree.is_call(size, "triton.cdiv")]
    known = isinstance(ratio.operator, cst.FloorDivide) and anatomy.arguments.get(heads.heads) == all_heads
    if not known or not len(passed) == len(counts) == len(tiles) == 1:
        return {}
    length = tiles[0].args[0].value
    return {
        counts[0].right: tree.expression(kv_heads),
        length: tree.expression(f"{tree.text(length)} * ({all_heads} // {kv_heads})"),
        passed[0].value: tree.expression(kv_heads),
    }


@dataclass(frozen=True)
class _Heads:
    """How a kernel finds its heads: ``head = number % heads``, ``kv_head = head // group``."""

    kernel: cst.FunctionDef
    kv_definition: cst.BinaryOperation
    """``head // group``."""
    head: str
    group: str
    number: str
    heads: str

    @classmethod
    def read(cls, anatomy: Anatomy) -> "_Heads | None":
        """Return a kernel's heads; None if it finds them in another way."""
        for division in tree.find(anatomy.kernel.body, cst.BinaryOperation):
            head, group = tree.text(division.left), tree.text(division.right)
            value = unconverted(tree.definition(anatomy.kernel, head))
            if not isinstance(division.operator, cst.FloorDivide) or not isinstance(value, cst.BinaryOperation):
                continue
            found = cls(anatomy.kernel, division, head, group, tree.text(value.left), tree.text(value.right))
            known = isinstance(value.operator, cst.Modulo) and {group, found.heads} <= set(anatomy.arguments)
            if known and (found.count(found.heads), found.count(group)) == (2, 1):
                return found
        return None

    def count(self, name: str) -> int:
        """Return how often the kernel's body mentions a name."""
        return sum(node.value == name for node in tree.find(self.kernel.body, cst.Name))

    def uses(self, row: str) -> list[tuple[cst.CSTNode, str]]:
        """What to write where the kernel uses a query head's number, ``{member}`` being a row's place in its group.

        Empty unless all uses are ``base = tensor + ... + head * stride``, in addresses of tiles with a row's position,
        and ``number`` in the address of one value a row.
        """
        found: list[tuple[cst.CSTNode, str]] = []
        bases = 0
        addresses = [call.args[0].value for name in ("tl.load", "tl.store") for call in tree.calls(self.kernel, name)]
        for statement in tree.find(self.kernel.body, cst.SimpleStatementLine):
            base, value = tree.assignment(statement) or ("", None)
            terms = [
                product
                for product in (tree.find(value, cst.BinaryOperation) if value else ())
                if isinstance(product.operator, cst.Multiply) and tree.is_name(product.left, self.head)
            ]
            if len(terms) != 1:
                continue
            bases += 1
            stride = tree.text(terms[0].right)
            found.append((terms[0].left, f"({self.head} * {self.group})"))
            within = [(a, n) for a in addresses for n in tree.find(a, cst.Name) if n.value == base]
            if len(within) != self.count(base) - 1 or any(row not in tree.names(address) for address, _ in within):
                return []
            found += [(name, f"{base} + {{member}}[:, None] * {stride}") for _, name in within]
        single = [(a, n) for a in addresses for n in tree.find(a, cst.Name) if n.value == self.number]
        flat = all(row in tree.names(address) and not tree.find(address, cst.Subscript) for address, _ in single)
        # Besides these uses: where it is defined, and what batch and head are made of.
        if not bases or self.count(self.head) != bases + 2 or self.count(self.number) != len(single) + 3 or not flat:
            return []
        return found + [(name, f"({self.number} * {self.group} + {{member}})") for _, name in single]


HEAD_MOVES = (
    Move(
        "group",
        "query heads that share a KV head can share its tiles: fewer loads of keys and values a row",
        0.005,
        "query heads mapped to KV heads by a division, loads of queries by pointers, a whole loop over all keys",
        _edit_group,
        LOADS,
    ),
)
