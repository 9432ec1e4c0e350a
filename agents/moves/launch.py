"""Moves on launch constants: tile sizes, warps, pipeline stages, registers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest

import libcst as cst

from avo.agents.moves import tree
from avo.agents.moves.anatomy import Anatomy
from avo.agents.moves.move import LOADS, Move
from avo.evaluator.target import Target

TILE_SIZES = (16, 32, 64, 128, 256)
WARPS = (1, 2, 4, 8, 16)
STAGES = (1, 2, 3, 4, 5)
SHARES = (512, 1024, 2048, 4096)
"""Every tile size is a multiple of this."""
REGISTERS = (None, 255, 224, 192, 168, 128)

_Shapes = tuple[tuple[int, int, int, int], ...]
"""Each: rows, keys, warps, stages."""
_AMPERE: _Shapes = ((128, 64, 8, 3), (128, 32, 4, 3), (64, 64, 4, 3), (128, 128, 8, 2), (128, 64, 4, 2))
_HOPPER: _Shapes = (
    (128, 64, 8, 3),
    (128, 128, 8, 2),
    (64, 64, 4, 3),
    (128, 64, 4, 2),
    (128, 128, 8, 3),
    (64, 128, 4, 2),
)
_BLACKWELL: _Shapes = ((128, 128, 8, 2), (128, 64, 8, 3), (128, 128, 4, 2), (256, 64, 8, 2), (128, 128, 8, 3))
_GRADIENTS_AMPERE: _Shapes = ((128, 32, 8, 2), (64, 64, 8, 2), (64, 32, 4, 2), (128, 64, 8, 1))
_GRADIENTS: _Shapes = ((128, 64, 8, 2), (128, 64, 8, 3), (64, 128, 8, 2), (128, 128, 8, 2), (128, 32, 8, 3))
"""Shapes for backward kernels: the rows or keys that stay, those that a loop walks over, warps, stages."""


def _shapes(target: Target, products: int) -> _Shapes:
    """Return corners of the space that Triton's fused-attention tutorial tunes over: 64 or 128 rows, 32 to 128 keys, 4
    or 8 warps, 2 to 4 stages. Tensor memory also holds 256 rows. Loops with three ``products`` or more keep one or two
    output tiles and two tiles of scores.
    """
    if products > 2:
        return _GRADIENTS if target.asynchronous_products or target.tensor_memory else _GRADIENTS_AMPERE
    if target.tensor_memory:
        return _BLACKWELL
    return _HOPPER if target.asynchronous_products else _AMPERE


_DEFAULTS = {"num_warps": 4, "num_stages": 3}
"""Defaults of Triton's CUDA backend."""


@dataclass(frozen=True, slots=True)
class _Knob:
    """An integer of the launch: where it is written, or None for the default."""

    name: str
    value: int | None
    literal: cst.Integer | None


def _tiles(anatomy: Anatomy) -> list[_Knob]:
    """Return the constexpr parameters that size a ``tl.arange`` and whose value is a literal that the host names."""
    sizes = {tree.text(arg.value) for call in tree.calls(anatomy.kernel, "tl.arange") for arg in call.args[1:]}
    knobs = [_knob(anatomy, name) for name in anatomy.parameters if name in sizes & anatomy.constants]
    return [knob for knob in knobs if knob and knob.literal and knob.value in TILE_SIZES]


def _knob(anatomy: Anatomy, name: str) -> _Knob | None:
    """Return the launch's keyword ``name``; None when its value is not known or is used elsewhere too."""
    arg = tree.keyword(anatomy.launch, name)
    literal = arg.value if arg else _unpacked(anatomy, name)
    if literal is None:
        return _Knob(name, _DEFAULTS.get(name), None)
    if isinstance(literal, cst.Name):
        return _named(anatomy, name, literal.value)
    if isinstance(literal, cst.Integer) and name not in anatomy.constants:
        return _Knob(name, tree.integer(literal), literal)
    return None


def _unpacked(anatomy: Anatomy, name: str) -> cst.BaseExpression | None:
    """Return what the launch passes for ``name`` by ``**options``, a dictionary that the host writes out."""
    for arg in anatomy.launch.args:
        options = tree.definition(anatomy.host, tree.text(arg.value)) if arg.star == "**" else None
        for element in options.elements if isinstance(options, cst.Dict) else ():
            if isinstance(element, cst.DictElement) and tree.text(element.key) == repr(name):
                return element.value
    return None


def _named(anatomy: Anatomy, name: str, value: str) -> _Knob | None:
    """Return a knob whose value is a name that the host function, or the module, sets once to a literal."""
    literal = constant(anatomy, value)
    return _Knob(name, tree.integer(literal), literal) if literal else None


def setting(anatomy: Anatomy, name: str) -> int | None:
    """Return the number that the launch passes for ``name``; None if ``with_knobs`` could not change it."""
    knob = _knob(anatomy, name)
    return knob.value if knob and knob.literal else None


def constant(anatomy: Anatomy, name: str) -> cst.Integer | None:
    """Return the literal that the host function, or the module, sets a name to, once."""
    for scope in (anatomy.host, anatomy.module):
        if len(tree.assignments(scope, name)) == 1:
            for assign in tree.find(scope, cst.Assign):
                literal = _literal(assign, name)
                if literal is not None:
                    return literal
    return None


def _literal(assign: cst.Assign, name: str) -> cst.Integer | None:
    """Return the integer that ``A = 64`` or ``A, B = 64, 32`` gives to a name."""
    target, value = assign.targets[0].target, assign.value
    pairs: list[tuple[cst.CSTNode, cst.CSTNode]] = [(target, value)]
    if isinstance(target, cst.Tuple) and isinstance(value, cst.Tuple):
        pairs = [(left.value, right.value) for left, right in zip(target.elements, value.elements, strict=False)]
    return next((v for t, v in pairs if tree.is_name(t, name) and isinstance(v, cst.Integer)), None)


def with_knobs(anatomy: Anatomy, values: Mapping[str, int | None]) -> tuple[list[str], cst.Module] | None:
    """Set constants of the launch: (what changed, e.g. ``num_warps 4 -> 8``; the module), None when one cannot be set.

    None as a value takes the keyword away.
    """
    changes: list[str] = []
    literals: dict[cst.CSTNode, tree.Replacement] = {}
    keywords: dict[str, str | None] = {}
    for name, value in values.items():
        knob = _knob(anatomy, name)
        if knob is None:
            return None
        if knob.value == value:
            continue
        changes.append(f"{name} {knob.value} -> {value}")
        if knob.literal is None or value is None:
            keywords[name] = None if value is None else str(value)
        else:
            literals[knob.literal] = cst.Integer(str(value))
    launch = tree.replace(anatomy.launch, literals)
    for name, text in keywords.items():
        launch = tree.with_keyword(launch, name, text)
    return changes, tree.replace(anatomy.module, {**literals, anatomy.launch: launch})


def _steps(anatomy: Anatomy, knob: _Knob | None, allowed: tuple[int | None, ...]) -> Iterator[tuple[str, cst.Module]]:
    """Yield one step up and one step down in ``allowed``, then the other values."""
    if knob is None or knob.value not in allowed:
        return
    here = allowed.index(knob.value)
    for index in sorted(range(len(allowed)), key=lambda index: (abs(index - here), -index)):
        changed = with_knobs(anatomy, {knob.name: allowed[index]})
        if index != here and changed:
            yield changed[0][0], changed[1]


def _edit_tiles(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Yield the nearest sizes of all tiles first."""
    for nearest in zip_longest(*(_steps(anatomy, knob, TILE_SIZES) for knob in _tiles(anatomy))):
        yield from filter(None, nearest)


def _edit_share(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Let programs take larger or smaller shares of a loop's iterations."""
    for walk in anatomy.walks:
        for name in sorted(tree.names(walk.iter) & anatomy.constants):
            knob = _knob(anatomy, name)
            if knob and knob.literal and knob.value in SHARES:
                yield from _steps(anatomy, knob, SHARES)


def _edit_warps(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    if not anatomy.specialised or target.tensor_memory:
        yield from _steps(anatomy, _knob(anatomy, "num_warps"), WARPS)


def _edit_stages(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    yield from _steps(anatomy, _knob(anatomy, "num_stages"), STAGES)


def _edit_registers(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    yield from _steps(anatomy, _knob(anatomy, "maxnreg"), REGISTERS)


def _edit_shape(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Set tiles, warps and stages together, to one of the shapes known to suit the architecture."""
    tiles = {knob.name: knob.value for knob in _tiles(anatomy)}
    steps = {loop.step for loop in anatomy.loops}
    # Where masks are of a form that is not known, the tile that no loop walks by is that of the scores' other side.
    others = {mask.rows.count for mask in anatomy.causal} or tiles.keys() - steps
    if anatomy.specialised or not steps or len(steps | others) != 2 or not steps | others <= tiles.keys():
        return
    (step,), (other,) = steps, others
    names = (other, step, "num_warps", "num_stages")
    products = max(len(tree.calls(loop.node, "tl.dot")) for loop in anatomy.loops)
    for shape in _shapes(target, products):
        changed = with_knobs(anatomy, dict(zip(names, shape, strict=True)))
        if changed:
            yield ", ".join(changed[0]), changed[1]


LAUNCH_MOVES = (
    Move(
        "shape",
        "tiles, warps and stages only pay together: a larger tile needs the registers of more warps, loads need stages",
        0.6,
        "a tile of scores whose sides are names that the host sets to numbers, and no roles for warps",
        _edit_shape,
        LOADS | {"latency"},
        each=True,
    ),
    Move(
        "stages",
        "more stages hide the latency of loads behind the matrix products of earlier tiles, for shared memory",
        0.1,
        "a launch with num_stages as a number, or without",
        _edit_stages,
        frozenset({"latency"}),
        each=True,
    ),
    Move(
        "tile",
        "larger tiles do more products per load, smaller ones leave room for a second CTA",
        0.05,
        "tiles sized by names that the host sets to numbers",
        _edit_tiles,
        LOADS,
        each=True,
    ),
    Move(
        "share",
        "small shares spread lists of unequal length over the SMs, large ones load what is shared less often",
        0.03,
        "a loop over a share of 512 to 4096 that the host sets by a name",
        _edit_share,
        LOADS,
        each=True,
    ),
    Move(
        "warps",
        "more warps spread the registers of a tile, fewer let two CTAs share an SM",
        0.04,
        "a launch with num_warps as a number, or without; on Hopper no roles for warps",
        _edit_warps,
        frozenset({"latency"}),
        each=True,
    ),
    Move(
        "registers",
        "a cap on registers can let another CTA onto the SM, at the risk of spills",
        0.005,
        "a launch with maxnreg as a number, or without",
        _edit_registers,
        frozenset({"latency"}),
        each=True,
    ),
)
