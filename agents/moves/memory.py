"""Moves that load and store tiles through tensor descriptors made on the host."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import libcst as cst

from avo.agents.moves import tree
from avo.agents.moves.anatomy import Anatomy, unconverted, unindexed
from avo.agents.moves.move import Move
from avo.evaluator.target import Target

_IMPORT = "from triton.tools.tensor_descriptor import TensorDescriptor\n"
_NAME = "tile_descriptor"
_HELPER = '''

def {name}(x, rows, columns):
    """A descriptor of [rows, columns] tiles of x's last two axes; None where its layout does not allow one."""
    size = x.element_size()
    aligned = all(offset * size % 16 == 0 for offset in (*x.stride()[:3], x.storage_offset()))
    if not aligned or x.stride(3) != 1 or 0 in x.shape or max(rows, columns) > 256:
        return None
    return TensorDescriptor(x, list(x.shape), list(x.stride()), [1, 1, rows, columns])
'''
"""The hardware's terms: innermost stride 1, base and other strides multiples of 16 bytes, boxes of at most 256 a side
(CUDA driver API, cuTensorMapEncodeTiled)."""


@dataclass(frozen=True, slots=True)
class Tile:
    """[rows, columns] of a [batch, head, row, column] tensor, or their transpose, that a line loads or stores."""

    statement: cst.SimpleStatementLine
    access: cst.Call
    """``tl.load(...)`` or ``tl.store(...)``."""
    base: str
    place: str
    """Batch, head, row and column of the tile's start."""
    rows: str
    columns: str
    transposed: bool
    start: str
    """Name of the address of the tensor's part for this batch and head."""
    first: str
    """First row of the tile."""
    stride: str
    """Stride of the rows."""
    extents: tuple[str, str] | None
    """Rows and columns of the tensor, by which the access is masked; None where it is not masked by both."""


def _edit_descriptors(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Load tiles through descriptors made on the host, and by pointers as before if there are none."""
    loads = tiles_of(anatomy, "tl.load")
    within = [
        sum(tile.statement in tree.find(loop.node, cst.SimpleStatementLine) for tile in loads) for loop in anatomy.loops
    ]
    if target.bulk_copies and within and set(within) == {2} and (module := _with_descriptors(anatomy, loads)):
        yield "load tiles through tensor descriptors", module


def _edit_store(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Store the output through a descriptor made on the host, and by pointers as before if there is none."""
    stores = [tile for tile in tiles_of(anatomy, "tl.store") if not tile.transposed]
    if target.bulk_copies and len(stores) == 1 and (module := _with_descriptors(anatomy, stores)):
        yield "store the output through a tensor descriptor", module


def _with_descriptors(anatomy: Anatomy, found: Sequence[Tile]) -> cst.Module | None:
    """Move tiles through descriptors that the host makes next to the launch."""
    tiles = {tile.base: (anatomy.arguments[tile.base], tile.rows, tile.columns) for tile in found}
    statement = next(
        (
            line
            for line in tree.find(anatomy.host, cst.SimpleStatementLine)
            if anatomy.launch in tree.find(line, cst.Call)
        ),
        None,
    )
    if statement is None or any(tiles[tile.base][1:] != (tile.rows, tile.columns) for tile in found):
        return None
    written = cst.parse_module(_IMPORT + _HELPER.format(name=_NAME)).body
    have = [node for node in anatomy.module.body if isinstance(node, cst.FunctionDef) and node.name.value == _NAME]
    known = any(node.deep_equals(written[-1]) for node in have)
    helper = _NAME if known else tree.fresh(anatomy.module, _NAME)
    names = {base: tree.fresh(anatomy.module, f"{host}_desc") for base, (host, _, _) in tiles.items()}
    made = "".join(
        f"{names[base]} = {helper}({host}, {anatomy.arguments[rows]}, {anatomy.arguments[columns]})\n"
        for base, (host, rows, columns) in tiles.items()
    )
    passed = [tree.keyword_argument(name, name) for name in names.values()]
    launch = tree.with_arguments(anatomy.launch, [*anatomy.launch.args, *passed])
    kernel = tree.replace(anatomy.kernel, {tile.statement: _chosen(tile, names[tile.base]) for tile in found})
    edits: tree.Edits = {
        anatomy.kernel: tree.with_parameters(kernel, tuple(names.values())),
        statement: tree.before(tree.replace(statement, {anatomy.launch: launch}), made),
    }
    module = tree.replace(anatomy.module, edits)
    if known:
        return module
    return tree.after_imports(module, _IMPORT + _HELPER.format(name=helper))


def _chosen(tile: Tile, descriptor: str) -> cst.BaseStatement:
    """Return the access through a descriptor of four axes if there is one, else by pointers."""
    assigned = tree.assignment(tile.statement)
    if assigned:
        turned = ".T" if tile.transposed else ""
        line = f"{assigned[0]} = {descriptor}.load([{tile.place}]).reshape({tile.rows}, {tile.columns}){turned}"
    else:
        value = f"({tree.text(tile.access.args[1].value)}).reshape(1, 1, {tile.rows}, {tile.columns})"
        line = f"{descriptor}.store([{tile.place}], {value})"
    return choice(tile, descriptor, line)


def choice(tile: Tile, descriptor: str, line: str) -> cst.If:
    """Return ``line`` if there is a descriptor, else the access by pointers; the choice is made at compile time."""
    (choice,) = tree.statements(f"if {descriptor} is not None:\n    {line}\nelse:\n    pass\n")
    assert isinstance(choice, cst.If)
    assert isinstance(choice.orelse, cst.Else)
    pointers = choice.orelse.body.with_changes(body=[tile.statement.with_changes(leading_lines=())])
    return choice.with_changes(
        leading_lines=tile.statement.leading_lines, orelse=choice.orelse.with_changes(body=pointers)
    )


def tiles_of(anatomy: Anatomy, access: str) -> list[Tile]:
    """Return the tiles that are loaded or stored by pointers and could be by descriptors."""
    chosen = {
        line
        for choice in tree.find(anatomy.kernel, cst.If)
        if tree.text(choice.test).endswith("is not None")
        for line in tree.find(choice, cst.SimpleStatementLine)
    }
    found = (
        _tile(anatomy, line, access)
        for line in tree.find(anatomy.kernel, cst.SimpleStatementLine)
        if line not in chosen
    )
    return [tile for tile in found if tile]


def _tile(anatomy: Anatomy, statement: cst.SimpleStatementLine, access: str) -> Tile | None:
    """Read ``name = tl.load(base + row * stride + column * stride)``, base being tensor + batch and head by stride, or
    a ``tl.store(...)`` there.
    """
    (line,) = statement.body if len(statement.body) == 1 else (None,)
    load = line.value if isinstance(line, cst.Assign | cst.Expr) else None
    if not isinstance(load, cst.Call) or not tree.is_call(load, access):
        return None
    start, *inner = _terms(load.args[0].value)
    origin = tree.definition(anatomy.kernel, start.value) if isinstance(start, cst.Name) else None
    if origin is None:
        return None
    base, *outer = _terms(origin)
    host = anatomy.arguments.get(tree.text(base), "")
    index_of_axis = {anatomy.arguments.get(stride, ""): index for index, stride in map(_product, [*outer, *inner])}
    axes = [index_of_axis.get(f"{host}.stride({axis})") for axis in range(4)]
    if not host.isidentifier() or len(outer) != 2 or len(inner) != 2 or None in axes:
        return None
    batch, head, row, column = (axis for axis in axes if axis is not None)
    block = anatomy.block(unindexed(row))
    columns = anatomy.arange_end(unindexed(column))
    if block is None or columns is None or not (isinstance(batch, cst.Name) and isinstance(head, cst.Name)):
        return None
    indices = tree.text(unindexed(row)), tree.text(unindexed(column))
    mask, other = tree.keyword(load, "mask"), tree.keyword(load, "other")
    fills_zero = access == "tl.store" or (other is not None and tree.text(other.value) in ("0", "0.0"))
    bounds = dict(_bound(anatomy, term) for term in _conjuncts(mask.value)) if mask else {}
    if mask and not (fills_zero and bounds.keys() <= set(indices)):
        return None
    first, rows = block.first, block.count
    extents = (bounds[indices[0]], bounds[indices[1]]) if len(bounds) == 2 else None
    place = f"{batch.value}.to(tl.int32), {head.value}.to(tl.int32), {first}, 0"
    stride = next(stride for _, stride in map(_product, inner) if anatomy.arguments[stride] == f"{host}.stride(2)")
    turned = tree.text(row).endswith("[None, :]")
    return Tile(
        statement, load, tree.text(base), place, rows, columns, turned, tree.text(start), first, stride, extents
    )


def _terms(node: cst.BaseExpression) -> list[cst.BaseExpression]:
    """Return the summands of a sum, left to right."""
    if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.Add):
        return [*_terms(node.left), node.right]
    return [node]


def _conjuncts(node: cst.BaseExpression) -> list[cst.BaseExpression]:
    if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.BitAnd):
        return [*_conjuncts(node.left), *_conjuncts(node.right)]
    return [unindexed(node)]


def _product(node: cst.BaseExpression) -> tuple[cst.BaseExpression | None, str]:
    """Return (index, stride) of ``index * stride``, where ``index`` may be converted by ``.to(...)``."""
    if not isinstance(node, cst.BinaryOperation) or not isinstance(node.operator, cst.Multiply):
        return None, ""
    return unconverted(node.left), tree.text(node.right)


def _bound(anatomy: Anatomy, node: cst.BaseExpression) -> tuple[str, str]:
    """Return (index, extent) of a mask ``index < extent``, written out or assigned to a name: a descriptor checks that
    by itself. ("", "") for any other mask.
    """
    comparison = tree.definition(anatomy.kernel, node.value) if isinstance(node, cst.Name) else node
    known = (
        isinstance(comparison, cst.Comparison)
        and len(comparison.comparisons) == 1
        and isinstance(comparison.comparisons[0].operator, cst.LessThan)
        and tree.text(comparison.comparisons[0].comparator) in anatomy.parameters
    )
    if not known or not isinstance(comparison, cst.Comparison):
        return "", ""
    return tree.text(unindexed(comparison.left)), tree.text(comparison.comparisons[0].comparator)


MEMORY_MOVES = (
    Move(
        "descriptors",
        "the tensor memory accelerator computes addresses and checks bounds, so that warps issue fewer instructions",
        0.1,
        "Hopper or later, and two loads a loop of tiles of [batch, head, row, column] tensors by pointers",
        _edit_descriptors,
        frozenset({"issue", "alu", "lsu"}),
    ),
    Move(
        "store",
        "the tensor memory accelerator writes the output while the next tile begins",
        0.005,
        "Hopper or later, and one store of a tile of a [batch, head, row, column] tensor by pointers",
        _edit_store,
    ),
)
