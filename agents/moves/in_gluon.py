"""Moves on attention kernels in Gluon: rings, tiles, groups, registers, order of programs, exponentials, rescaling.

The roles are written out there, so the moves of Triton's kernels do not apply.
"""

from collections.abc import Iterator

import libcst as cst

from avo.agents.moves import tree
from avo.agents.moves.anatomy import Anatomy
from avo.agents.moves.gluon_groups import edit_groups, edit_turns, rows_of_keys
from avo.agents.moves.gluon_packed import FMA, edit_packed
from avo.agents.moves.gluon_persistent import edit_persistent
from avo.agents.moves.gluon_rescaling import edit_lazy
from avo.agents.moves.move import LOADS, Move
from avo.agents.moves.order import grid_of, side_by_side
from avo.evaluator.target import Target

DEPTHS = (2, 3, 4)
KEYS = (32, 64, 128)
REGISTERS = (152, 168, 184, 192, 200, 208, 216, 224, 232, 240)
"""What a role may ask for; ptxas takes multiples of 8."""
POLYNOMIAL = "polynomial_exp2"
"""The name of the function that computes exp2 by a polynomial."""


def _near(value: int | None, allowed: tuple[int, ...]) -> list[int]:
    """Return the other allowed values, the nearest and the larger ones first; none for a value that is not allowed."""
    if value not in allowed:
        return []
    here = allowed.index(value)
    others = (i for i in range(len(allowed)) if i != here)
    return [allowed[i] for i in sorted(others, key=lambda i: (abs(i - here), -i))]


def _number(value: int) -> cst.Integer:
    return cst.Integer(str(value))


def _edit_ring(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Set the number that the launch gives for the first extent of buffers."""
    allocations = tree.calls(anatomy.kernel, "gl.allocate_shared_memory")
    shapes = [arg.value for call in allocations for arg in call.args[1:2]]
    depths = {tree.text(s.elements[0].value) for s in shapes if isinstance(s, cst.List) and len(s.elements) > 2}
    for name in sorted(depths):
        arg = tree.keyword(anatomy.launch, name)
        for depth in _near(tree.integer(arg.value) if arg else None, DEPTHS):
            assert arg is not None
            launch = tree.with_keyword(anatomy.launch, name, str(depth))
            changed = tree.replace(anatomy.module, {anatomy.launch: launch})
            yield f"{name} {tree.text(arg.value)} -> {depth}", changed


def _edit_keys(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Set the number of rows in the descriptors of keys and values."""
    for name, literal in rows_of_keys(anatomy).items():
        for keys in _near(tree.integer(literal), KEYS):
            yield f"{name} {literal.value} -> {keys}", tree.replace(anatomy.module, {literal: _number(keys)})


def _edit_registers(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Set the registers of the roles that hold tiles; the default role gets the rest."""
    for call in tree.calls(anatomy.kernel, "gl.warp_specialize"):
        asked = call.args[2].value if len(call.args) > 2 else None
        literals = [each.value for each in asked.elements] if isinstance(asked, cst.List) else []
        kept = [each for each in literals if tree.integer(each) in REGISTERS]
        if len({tree.integer(each) for each in kept}) != 1:
            continue
        before = tree.integer(kept[0])
        for registers in _near(before, REGISTERS)[:4]:
            edits: dict[cst.CSTNode, tree.Replacement] = {each: _number(registers) for each in kept}
            yield f"registers of roles {before} -> {registers}", tree.replace(anatomy.module, edits)


def _edit_order(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Swap the axes of the grid, in the host's tuple and wherever functions ask for a program's place; or number
    programs along one axis. The axis along which programs are counted is that of blocks.
    """
    grid = grid_of(anatomy)
    asked = [*tree.calls(anatomy.module, "gl.program_id"), *tree.calls(anatomy.module, "gl.num_programs")]
    axes = {call: tree.integer(call.args[0].value) if call.args else None for call in asked}
    if grid is None or not asked or not {0, 1}.issuperset(axes.values()):
        return
    first, second = grid.elements
    edits: dict[cst.CSTNode, tree.Replacement] = {first.value: second.value, second.value: first.value}
    edits |= {call.args[0].value: cst.Integer("0" if axis else "1") for call, axis in axes.items()}
    yield "swap the axes of the grid", tree.replace(anatomy.module, edits)
    counted = tree.calls(anatomy.kernel, "gl.num_programs")
    yield from side_by_side(anatomy, {axis for call in counted if (axis := axes[call]) is not None}, "gl")


def _edit_polynomial(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Take one part of a tile more, or one less, by the polynomial, where a tile's weights are computed in parts."""
    for function in tree.find(anatomy.module, cst.FunctionDef):
        exact, rough = tree.calls(function, "gl.exp2"), tree.calls(function, POLYNOMIAL)
        exact = [
            call
            for call in exact
            if isinstance(call.args[0].value, cst.BinaryOperation) or tree.is_call(call.args[0].value, FMA)
        ]
        exact = [call for call in exact if tree.find(call.args[0].value, cst.Subscript)]
        parts = len(exact) + len(rough)
        if parts < 2:
            continue
        for calls, name, step in ((exact[-1:], POLYNOMIAL, 1), (rough[:1], "gl.exp2", -1)):
            share = len(rough) + step
            if calls and (rough or name != POLYNOMIAL):
                changed = calls[0].with_changes(func=tree.expression(name))
                yield f"{share} of {parts} parts by a polynomial", tree.replace(anatomy.module, {calls[0]: changed})


GLUON_MOVES = (
    Move(
        "gluon-ring",
        "a deeper ring of tiles hides the latency of loads, for shared memory; a shallower one leaves it to others",
        0.03,
        "a kernel in Gluon whose buffers have as first extent what the launch names as a number",
        _edit_ring,
        LOADS | {"latency"},
        gluon=True,
    ),
    Move(
        "gluon-keys",
        "larger tiles of keys wait less often, smaller ones keep fewer registers and leave room for a deeper ring",
        0.03,
        "a kernel in Gluon whose launch makes descriptors of k and v with as many rows, which the host sets by a name",
        _edit_keys,
        LOADS | {"latency", "cta_barrier"},
        gluon=True,
    ),
    Move(
        "gluon-registers",
        "registers that the roles with tiles do not need serve the default role, and those they lack are spilled",
        0.01,
        "a kernel in Gluon with gl.warp_specialize and numbers of registers",
        _edit_registers,
        frozenset({"lsu", "latency"}),
        gluon=True,
    ),
    Move(
        "gluon-groups",
        "more groups of warps share the tiles that are loaded, and one multiplies while others compute weights",
        0.05,
        "a kernel in Gluon whose first roles are one function with its number last, and a name for how many they are",
        edit_groups,
        LOADS | {"latency", "tensor"},
        gluon=True,
    ),
    Move(
        "gluon-turns",
        "when a group gives the tensor cores on decides which products wait, and what runs beside them",
        0.02,
        "a kernel in Gluon with a loop that waits for its turn at a barrier and arrives at that of another group",
        edit_turns,
        frozenset({"tensor", "latency"}),
        gluon=True,
    ),
    Move(
        "gluon-order",
        "programs that run together share tiles in L2, or have work of one length, depending on the grid's first axis",
        0.02,
        "a kernel in Gluon with a grid of two axes",
        _edit_order,
        frozenset({"l2", "hbm"}),
        gluon=True,
    ),
    Move(
        "gluon-persistent",
        "programs that walk over tiles are started once, and allocate once",
        0.005,
        "a kernel in Gluon with a grid of two axes, which initialises barriers and ends with gl.warp_specialize",
        edit_persistent,
        gluon=True,
    ),
    Move(
        "gluon-polynomial",
        "the FMA pipes compute a part of the exponentials, which the special function units would hold up",
        0.04,
        f"a kernel in Gluon that computes weights in parts, one of them by {POLYNOMIAL}",
        _edit_polynomial,
        frozenset({"exp"}),
        gluon=True,
    ),
    Move(
        "gluon-packed",
        "one instruction of Blackwell multiplies and adds two float32, which halves the issue slots of scaling",
        0.02,
        "a kernel in Gluon for Blackwell that scales scores in an exponential, or what it rescales in tensor memory",
        edit_packed,
        frozenset({"issue"}),
        gluon=True,
    ),
    Move(
        "gluon-lazy",
        "most tiles need no rescaling once the maximum may lag behind by a few powers of two",
        0.02,
        "a kernel in Gluon that keeps each row's maximum and multiplies what was added up by an exp2 of its change",
        edit_lazy,
        frozenset({"fma", "latency"}),
        gluon=True,
    ),
)
