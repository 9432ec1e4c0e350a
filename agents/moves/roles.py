"""Moves that give loads and products to warps of their own, and the descriptors made in the kernel that this needs."""

from collections.abc import Iterator

import libcst as cst

from avo.agents.moves import tree
from avo.agents.moves.anatomy import Anatomy, dissect
from avo.agents.moves.launch import with_knobs
from avo.agents.moves.masks import MASK_MOVES
from avo.agents.moves.memory import Tile, choice, tiles_of
from avo.agents.moves.move import Move
from avo.agents.moves.overlap import OVERLAP_MOVES
from avo.agents.moves.softmax import SOFTMAX_MOVES
from avo.evaluator.target import Target

_NAME = "describable"
_HELPER = '''

def {name}(*tensors):
    """Whether descriptors can read the tensors' last two axes: strides and offsets are multiples of 16 bytes."""
    return all(
        x.stride(3) == 1 and all(n * x.element_size() % 16 == 0 for n in (*x.stride()[:3], x.storage_offset()))
        for x in tensors
    )
'''
"""The hardware's terms, see ``avo.agents.moves.memory``."""
_MADE = """{name} = None
if {flag}:
    {name} = tl.make_tensor_descriptor({start}, [{length}, {width}], [{stride}, 1], [{rows}, {columns}])
"""
_HOPPER = ((128, 128, 4, 2), (256, 64, 4, 2), (128, 64, 4, 3))
"""Rows, keys, warps, stages. Triton gives half of the rows to each of two groups of four warps."""
_BLACKWELL = ((128, 128, 4, 3), (128, 128, 4, 2), (128, 64, 4, 3))


def _edit_device_descriptors(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Load tiles through descriptors of two axes that each program makes for its batch and head, and by pointers as
    before where strides do not allow it.
    """
    plain = _without_descriptors(anatomy)
    tiles = tiles_of(plain, "tl.load") if plain else []
    if plain is None or not target.bulk_copies or not plain.loops:
        return
    lines = [tile.statement for tile in tiles]
    if any(sum(line in tree.find(loop.node, cst.SimpleStatementLine) for line in lines) != 2 for loop in plain.loops):
        return
    extents = {tile.base: tile.extents for tile in tiles if tile.extents}
    boxes = {(tile.base, tile.start, tile.stride, tile.rows, tile.columns) for tile in tiles}
    bases = {tile.base: tile for tile in tiles}
    if extents.keys() != bases.keys() or len(boxes) != len(bases):
        return
    looped = [line for loop in plain.loops for line in tree.find(loop.node, cst.SimpleStatementLine)]
    apart = [tile for tile in tiles if target.warpgroup_products and tile.statement not in looped]
    edits: dict[cst.CSTNode, tree.Replacement] = {
        tile.statement: _by_descriptor(tile, _descriptor(plain, tile), apart=tile in apart) for tile in tiles
    }
    flag = tree.fresh(plain.module, "DESCRIPTORS")
    for tile in bases.values():
        length, width = extents[tile.base] or ("", "")
        made = _MADE.format(
            name=_descriptor(plain, tile),
            flag=flag,
            start=tile.start,
            length=length,
            width=width,
            stride=tile.stride,
            rows=tile.rows,
            columns=tile.columns,
        )
        (start,) = (
            line
            for line in tree.find(plain.kernel.body, cst.SimpleStatementLine)
            if (assigned := tree.assignment(line)) and assigned[0] == tile.start
        )
        edits[start] = cst.FlattenSentinel([start, *tree.statements(made)])
    helper = tree.fresh(plain.module, _NAME)
    tensors = ", ".join(dict.fromkeys(plain.arguments[base] for base in bases))
    passed = tree.keyword_argument(flag, f"{helper}({tensors})")
    launch = tree.with_arguments(plain.launch, [*plain.launch.args, passed])
    kernel = tree.with_parameters(tree.replace(plain.kernel, edits), (flag,), constant=True)
    module = tree.replace(plain.module, {plain.kernel: kernel, plain.launch: launch})
    yield "load tiles through descriptors made in the kernel", tree.after_imports(module, _HELPER.format(name=helper))


def _descriptor(anatomy: Anatomy, tile: Tile) -> str:
    return tree.fresh(anatomy.module, f"{anatomy.arguments[tile.base]}_tiles")


def _by_descriptor(tile: Tile, descriptor: str, *, apart: bool) -> cst.BaseStatement:
    """Return the load by ``descriptor`` where there is one.

    ``apart``: its first row is no value that anything else has. Triton's pass for roles on Hopper
    (``nvgpu-warp-specialization`` of 3.9) gives each group of warps half of the rows: it moves that value, and whatever
    else is made of it is then moved twice. A stride is never below zero, which the compiler does not know.
    """
    name, _ = tree.assignment(tile.statement) or ("", None)
    first = f"{tile.first} + tl.minimum({tile.stride}, 0)" if apart else tile.first
    return choice(tile, descriptor, f"{name} = {descriptor}.load([{first}, 0]){'.T' if tile.transposed else ''}")


def _without_descriptors(anatomy: Anatomy) -> Anatomy | None:
    """Return the module with loads by pointers only, without the descriptors that the host makes for loads."""
    kernel: dict[cst.CSTNode, tree.Replacement] = {}
    dropped: set[str] = set()
    for branch in tree.find(anatomy.kernel.body, cst.If):
        name = tree.text(branch.test).removesuffix(" is not None")
        if name in anatomy.parameters and tree.calls(branch, "tl.load") and isinstance(branch.orelse, cst.Else):
            kernel[branch] = cst.FlattenSentinel(
                [line for line in branch.orelse.body.body if isinstance(line, cst.BaseStatement)]
            )
            dropped.add(name)
    if not dropped:
        return anatomy
    parameters = anatomy.kernel.params
    kept = [parameter for parameter in parameters.params if parameter.name.value not in dropped]
    without = tree.replace(anatomy.kernel, kernel).with_changes(params=parameters.with_changes(params=kept))
    args = [arg for arg in anatomy.launch.args if not (arg.keyword and arg.keyword.value in dropped)]
    edits: dict[cst.CSTNode, tree.Replacement] = {
        line: cst.FlattenSentinel([])
        for line in tree.find(anatomy.host, cst.SimpleStatementLine)
        if (assigned := tree.assignment(line)) and assigned[0] in dropped
    }
    edits |= {anatomy.kernel: without, anatomy.launch: tree.with_arguments(anatomy.launch, args)}
    return dissect(tree.replace(anatomy.module, edits).code)


def _edit_specialise(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Give the loop's loads, and on Blackwell its products, to warps of their own, under the terms of Triton's passes
    (see the note).
    """
    if not target.asynchronous_products or len(anatomy.loops) != 1:
        return
    (loop,) = anatomy.loops
    tests = [tree.text(branch.test) for branch in tree.find(loop.node, cst.If)]
    made = {test.removesuffix(" is not None") for test in tests if test.endswith(" is not None")}
    if not made or any("tl.max" in test for test in tests) or tree.keyword(loop.call, "warp_specialize"):
        return  # a branch on data breaks the pass, or makes products wait
    products = len(tree.calls(anatomy.kernel, "tl.dot"))
    if not target.tensor_memory and (made & set(anatomy.parameters) or products != 2):
        return
    if not anatomy.causal:
        return
    names = (anatomy.causal[0].rows.count, loop.step, "num_warps", "num_stages")
    for shape in _BLACKWELL if target.tensor_memory else _HOPPER:
        changed = with_knobs(anatomy, dict(zip(names, shape, strict=True)))
        if changed is None:
            continue
        label = ", ".join(["roles for the warps of the loop over keys", *changed[0]])
        if target.tensor_memory:
            for variant in _SKEW.variants(changed[1].code, target)[:1]:
                if skewed := dissect(variant.source):
                    yield f"{label}, {variant.label}", _with_roles(skewed, target)
        if sized := dissect(changed[1].code):
            yield label, _with_roles(sized, target)


def _with_roles(anatomy: Anatomy, target: Target) -> cst.Module:
    call = anatomy.loops[0].call
    specialised = tree.with_keyword(call.with_changes(func=tree.expression("tl.range")), "warp_specialize", "True")
    if target.tensor_memory:
        specialised = tree.with_keyword(specialised, "disallow_acc_multi_buffer", "True")
    return tree.replace(anatomy.module, {call: specialised})


_BY_NAME = {move.name: move for move in (*MASK_MOVES, *SOFTMAX_MOVES, *OVERLAP_MOVES)}
_SKEW = _BY_NAME["skew"]
_DEVICE_DESCRIPTORS = Move(
    "device-descriptors",
    "a descriptor that is made in the kernel can be of one head: tiles of two axes, as roles with 128 rows need",
    0.05,
    "Hopper or later, and two loads a loop of tiles of [batch, head, row, column] tensors by pointers",
    _edit_device_descriptors,
    frozenset({"issue", "alu", "lsu"}),
)

ROLE_MOVES = (
    _DEVICE_DESCRIPTORS,
    Move(
        "specialise",
        "warps that only load run ahead of those that compute, and two groups of them overlap softmax and products",
        0.6,
        "Hopper or later, a causal mask, and one loop over keys whose tiles descriptors can load",
        _edit_specialise,
        frozenset({"latency", "cta_barrier", "exp"}),
        first=(
            *(_BY_NAME[name] for name in ("merge", "skip", "exp2", "late-scale", "even", "relative")),
            _DEVICE_DESCRIPTORS,
        ),
    ),
)
