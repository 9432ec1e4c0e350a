"""Moves that change how tiles reach the tensor cores: tensor descriptors and warp specialisation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import libcst as cst

from agents.moves import tree
from agents.moves.anatomy import Anatomy, dissect, unconverted, unindexed
from agents.moves.launch import with_knobs
from agents.moves.move import Move
from evaluator.target import Target

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
class _Tile:
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


def _edit_descriptors(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Load tiles through descriptors made on the host, and by pointers as before if there are none."""
    loads = _tiles(anatomy, "tl.load")
    within = [
        sum(tile.statement in tree.find(loop.node, cst.SimpleStatementLine) for tile in loads) for loop in anatomy.loops
    ]
    if target.bulk_copies and within and set(within) == {2} and (module := _with_descriptors(anatomy, loads)):
        yield "load tiles through tensor descriptors", module


def _edit_store(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Store the output through a descriptor made on the host, and by pointers as before if there is none."""
    stores = [tile for tile in _tiles(anatomy, "tl.store") if not tile.transposed]
    if target.bulk_copies and len(stores) == 1 and (module := _with_descriptors(anatomy, stores)):
        yield "store the output through a tensor descriptor", module


def _with_descriptors(anatomy: Anatomy, found: Sequence[_Tile]) -> cst.Module | None:
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
    kernel = tree.replace(anatomy.kernel, {tile.statement: _choice(tile, names[tile.base]) for tile in found})
    edits: tree.Edits = {
        anatomy.kernel: tree.with_parameters(kernel, tuple(names.values())),
        statement: tree.before(tree.replace(statement, {anatomy.launch: launch}), made),
    }
    module = tree.replace(anatomy.module, edits)
    if known:
        return module
    return tree.after_imports(module, _IMPORT + _HELPER.format(name=helper))


def _choice(tile: _Tile, descriptor: str) -> cst.BaseStatement:
    """Return the access by descriptor if there is one, else by pointers; the choice is made at compile time."""
    assigned = tree.assignment(tile.statement)
    if assigned:
        turned = ".T" if tile.transposed else ""
        line = f"{assigned[0]} = {descriptor}.load([{tile.place}]).reshape({tile.rows}, {tile.columns}){turned}"
    else:
        value = f"({tree.text(tile.access.args[1].value)}).reshape(1, 1, {tile.rows}, {tile.columns})"
        line = f"{descriptor}.store([{tile.place}], {value})"
    (choice,) = tree.statements(f"if {descriptor} is not None:\n    {line}\nelse:\n    pass\n")
    assert isinstance(choice, cst.If)
    assert isinstance(choice.orelse, cst.Else)
    pointers = choice.orelse.body.with_changes(body=[tile.statement.with_changes(leading_lines=())])
    return choice.with_changes(
        leading_lines=tile.statement.leading_lines, orelse=choice.orelse.with_changes(body=pointers)
    )


def _tiles(anatomy: Anatomy, access: str) -> list[_Tile]:
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


def _tile(anatomy: Anatomy, statement: cst.SimpleStatementLine, access: str) -> _Tile | None:
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
    bounded = {tree.text(unindexed(row)), tree.text(unindexed(column))}
    mask, other = tree.keyword(load, "mask"), tree.keyword(load, "other")
    fills_zero = access == "tl.store" or (other is not None and tree.text(other.value) in ("0", "0.0"))
    if mask and not (fills_zero and all(_bounds(anatomy, term, bounded) for term in _conjuncts(mask.value))):
        return None
    first, rows = block
    place = f"{batch.value}.to(tl.int32), {head.value}.to(tl.int32), {first}, 0"
    return _Tile(statement, load, tree.text(base), place, rows, columns, tree.text(row).endswith("[None, :]"))


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


def _bounds(anatomy: Anatomy, node: cst.BaseExpression, indices: set[str]) -> bool:
    """Return whether a mask is ``index < extent``, written out or assigned to a name: a descriptor checks that by
    itself.
    """
    comparison = tree.definition(anatomy.kernel, node.value) if isinstance(node, cst.Name) else node
    return (
        isinstance(comparison, cst.Comparison)
        and len(comparison.comparisons) == 1
        and isinstance(comparison.comparisons[0].operator, cst.LessThan)
        and tree.text(unindexed(comparison.left)) in indices
        and tree.text(comparison.comparisons[0].comparator) in anatomy.parameters
    )


def _edit_specialise(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Give the first loop's loads to warps of their own, under the terms of Triton's pass (see the note)."""
    if not target.asynchronous_products or not anatomy.loops:
        return
    choices = tree.find(anatomy.loops[0].node, cst.If)
    if not any(tree.text(choice.test).endswith("is not None") for choice in choices):
        return
    if target.tensor_memory and any(tree.calls(choice.test, "tl.max") for choice in choices):
        return  # a branch on data breaks the pass there
    if any(tree.keyword(loop.call, "warp_specialize") for loop in anatomy.loops):
        return
    label, ready = "warp_specialize on the loop over keys", anatomy
    if not target.tensor_memory:
        masks = anatomy.masks(anatomy.loops[0])
        changed = with_knobs(anatomy, {masks.block_rows: 64, "num_warps": 4}) if masks and masks.causal else None
        again = dissect(changed[1].code) if changed else None
        if len(anatomy.loops) != 1 or changed is None or again is None:
            return
        label, ready = ", ".join([label, *changed[0]]), again
    call = ready.loops[0].call
    specialised = tree.with_keyword(call.with_changes(func=tree.expression("tl.range")), "warp_specialize", "True")
    yield label, tree.replace(ready.module, {call: specialised})


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
    Move(
        "specialise",
        "warps that only load run ahead of those that compute, and two groups of them overlap softmax and products",
        0.02,
        "Hopper or later, and loads of keys and values through descriptors; on Hopper one loop",
        _edit_specialise,
        frozenset({"latency", "cta_barrier"}),
    ),
)
