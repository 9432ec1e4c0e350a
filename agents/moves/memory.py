"""Moves on how tiles reach the tensor cores: tensor descriptors and warp specialisation."""

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from agents.moves import tree
from agents.moves.anatomy import Anatomy, dissect, unindexed
from agents.moves.launch import with_knobs
from agents.moves.move import Move
from evaluator.target import Target

_IMPORT = "from triton.tools.tensor_descriptor import TensorDescriptor\n"
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
class _TileLoad:
    """``name = tl.load(...)`` of [rows, columns] of a [batch, head, row, column] tensor, or of their transpose."""

    statement: cst.SimpleStatementLine
    name: str
    base: str
    place: str
    """Batch, head, row and column where the tile starts."""
    rows: str
    columns: str
    transposed: bool


def _edit_descriptors(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Load tiles through descriptors made on the host, and by pointers as before where there is none."""
    loads = _tile_loads(anatomy)
    tiles = {load.base: (anatomy.arguments[load.base], load.rows, load.columns) for load in loads}
    statement = next(
        (
            line
            for line in tree.find(anatomy.host, cst.SimpleStatementLine)
            if anatomy.launch in tree.find(line, cst.Call)
        ),
        None,
    )
    if target.arch < 90 or not loads or statement is None or "TensorDescriptor" in tree.names(anatomy.module):
        return
    if any(tiles[load.base][1:] != (load.rows, load.columns) for load in loads):
        return
    helper = tree.fresh(anatomy.module, "tile_descriptor")
    names = {base: tree.fresh(anatomy.module, f"{host}_desc") for base, (host, _, _) in tiles.items()}
    made = "".join(
        f"{names[base]} = {helper}({host}, {anatomy.arguments[rows]}, {anatomy.arguments[columns]})\n"
        for base, (host, rows, columns) in tiles.items()
    )
    passed = [tree.keyword_argument(name, name) for name in names.values()]
    launch = tree.with_arguments(anatomy.launch, [*anatomy.launch.args, *passed])
    kernel = tree.replace(anatomy.kernel, {load.statement: _choice(load, names[load.base]) for load in loads})
    edits: tree.Edits = {
        anatomy.kernel: tree.with_parameters(kernel, tuple(names.values())),
        statement: tree.before(tree.replace(statement, {anatomy.launch: launch}), made),
    }
    module = tree.replace(anatomy.module, edits)
    imports_end = 1 + max(index for index, node in enumerate(module.body) if _is_import(node))
    added = tree.statements(_IMPORT + _HELPER.format(name=helper))
    body = [*module.body[:imports_end], *added, *module.body[imports_end:]]
    yield "load tiles through tensor descriptors", module.with_changes(body=body)


def _is_import(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.SimpleStatementLine) and isinstance(node.body[0], cst.Import | cst.ImportFrom)


def _choice(load: _TileLoad, descriptor: str) -> cst.BaseStatement:
    """The load by descriptor where there is one, else by pointers: decided when the kernel is compiled."""
    tile = f"{descriptor}.load([{load.place}]).reshape({load.rows}, {load.columns}){'.T' if load.transposed else ''}"
    (choice,) = tree.statements(f"if {descriptor} is not None:\n    {load.name} = {tile}\nelse:\n    pass\n")
    assert isinstance(choice, cst.If)
    assert isinstance(choice.orelse, cst.Else)
    pointers = choice.orelse.body.with_changes(body=[load.statement.with_changes(leading_lines=())])
    return choice.with_changes(
        leading_lines=load.statement.leading_lines, orelse=choice.orelse.with_changes(body=pointers)
    )


def _tile_loads(anatomy: Anatomy) -> list[_TileLoad]:
    """The loads that a descriptor can replace, where every loop over keys has two of them; else none."""
    found = [
        load
        for statement in tree.find(anatomy.kernel, cst.SimpleStatementLine)
        if (load := _tile_load(anatomy, statement)) is not None
    ]
    for loop in anatomy.loops:
        within = tree.find(loop.node, cst.SimpleStatementLine)
        if sum(load.statement in within for load in found) != 2:
            return []
    return found if anatomy.loops else []


def _tile_load(anatomy: Anatomy, statement: cst.SimpleStatementLine) -> _TileLoad | None:
    """Read ``name = tl.load(base + row * stride + column * stride)``, base being tensor + batch and head by stride."""
    assigned = tree.assignment(statement)
    if assigned is None or not isinstance(assigned[1], cst.Call) or not tree.is_call(assigned[1], "tl.load"):
        return None
    name, load = assigned
    assert isinstance(load, cst.Call)
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
    fills_zero = other is not None and tree.text(other.value) in ("0", "0.0")
    if mask and not (fills_zero and all(_bounds(anatomy, term, bounded) for term in _conjuncts(mask.value))):
        return None
    first, rows = block
    place = f"{batch.value}.to(tl.int32), {head.value}.to(tl.int32), {first}, 0"
    return _TileLoad(statement, name, tree.text(base), place, rows, columns, tree.text(row).endswith("[None, :]"))


def _terms(node: cst.BaseExpression) -> list[cst.BaseExpression]:
    """The summands of a sum, left to right."""
    if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.Add):
        return [*_terms(node.left), node.right]
    return [node]


def _conjuncts(node: cst.BaseExpression) -> list[cst.BaseExpression]:
    if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.BitAnd):
        return [*_conjuncts(node.left), *_conjuncts(node.right)]
    return [unindexed(node)]


def _product(node: cst.BaseExpression) -> tuple[cst.BaseExpression | None, str]:
    """(index, stride) of ``index * stride``, of which ``index`` may be converted by ``.to(...)``."""
    if not isinstance(node, cst.BinaryOperation) or not isinstance(node.operator, cst.Multiply):
        return None, ""
    index = node.left
    if isinstance(index, cst.Call) and isinstance(index.func, cst.Attribute) and index.func.attr.value == "to":
        index = index.func.value
    return index, tree.text(node.right)


def _bounds(anatomy: Anatomy, node: cst.BaseExpression, indices: set[str]) -> bool:
    """Whether a mask is ``index < extent``, given as such or by a name: what a descriptor checks by itself."""
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
    if target.arch < 90 or "TensorDescriptor" not in tree.names(anatomy.module) or not anatomy.loops:
        return
    if any(tree.keyword(loop.call, "warp_specialize") for loop in anatomy.loops):
        return
    label, ready = "warp_specialize on the loop over keys", anatomy
    if target.arch < 100:
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
        _edit_descriptors,
    ),
    Move(
        "specialise",
        "warps that only load run ahead of those that compute, and two groups of them overlap softmax and products",
        0.02,
        _edit_specialise,
    ),
)
