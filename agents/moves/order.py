"""Moves that change the order in which programs start."""

from collections.abc import Collection, Iterator, Sequence

import libcst as cst

from avo.agents.moves import tree
from avo.agents.moves.anatomy import Anatomy, dissect, dissections
from avo.agents.moves.move import Move
from avo.evaluator.target import Target


def _edit_reverse(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Start with the last block of queries, which sees the most keys."""
    if not anatomy.causal:
        return
    first_row = tree.expression(anatomy.causal[0].rows.first)
    rows = tree.names(first_row)
    for assign in tree.find(anatomy.kernel.body, cst.Assign):
        name, value, count = assign.targets[0].target, assign.value, ""
        if isinstance(value, cst.Call) and tree.is_call(value, "tl.program_id"):
            count = f"tl.num_programs({tree.text(value.args[0].value)})"
        elif isinstance(value, cst.BinaryOperation) and isinstance(value.operator, cst.Modulo):
            count = tree.text(value.right)  # of a persistent program's tile
        if count and isinstance(name, cst.Name) and name.value in rows:
            last_first = tree.expression(f"{count} - 1 - {tree.text(value)}")
            yield "longest blocks first", tree.replace(anatomy.module, {value: last_first})
    # Where the number has no name of its own, each place that asks for it gets the number from the other end.
    queries = _queries(anatomy)
    asked = [call for call, query in queries.items() if query[0] == "program_id"]
    of_rows = {tree.text(call) for call in tree.calls(first_row, "tl.program_id")}
    if len(of_rows) == 1 and len(asked) == len(queries):
        edits: dict[cst.CSTNode, tree.Replacement] = {
            call: tree.expression(f"(tl.num_programs({queries[call][1]}) - 1 - {tree.text(call)})")
            for call in asked
            if tree.text(call) in of_rows
        }
        if edits:
            yield "longest blocks first", tree.replace(anatomy.module, edits)


def _with_pair(anatomy: Anatomy) -> Anatomy | None:
    """Return the same kernel of the same module, launched by ``kernel[(a, b)]`` where it was by ``kernel[a, b]``; None
    for a kernel with several launches: with one of them a move changes the kernel for all.
    """
    name, launch = anatomy.kernel.name.value, anatomy.launch.func
    launches = [each for each in tree.find(anatomy.module, cst.Subscript) if tree.is_name(each.value, name)]
    if len(launches) != 1 or not isinstance(launch, cst.Subscript):
        return None
    if len(launch.slice) < 2:
        return anatomy
    grid = tree.expression(f"_[({', '.join(tree.text(element.slice) for element in launch.slice)})]")
    assert isinstance(grid, cst.Subscript)
    module = tree.replace(anatomy.module, {launch: launch.with_changes(slice=grid.slice)})
    return next((each for each in dissections(module.code) if each.kernel.name.value == name), None)


def _edit_swap(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Swap the two axes of the grid, in the host's tuple and in the kernel."""
    paired = _with_pair(anatomy)
    if paired is None:
        return
    anatomy, grid, queries = paired, grid_of(paired), _queries(paired)
    if grid is None or not queries:
        return
    first, second = grid.elements
    edits: dict[cst.CSTNode, tree.Replacement] = {first.value: second.value, second.value: first.value}
    for call, (_, axis) in queries.items():
        edits[call.args[0].value] = cst.Integer("0" if axis else "1")
    yield "swap the axes of the grid", tree.replace(anatomy.module, edits)


def _edit_persistent(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Launch as many programs as the SMs hold; each walks over tiles in the order in which programs started before."""
    paired = _with_pair(anatomy)
    if paired is not None and isinstance(body := paired.kernel.body, cst.IndentedBlock):
        for per_sm in (1, 2, 4, 8):
            yield from persistent(paired, per_sm * target.sms, (), body.body, "tl")


def persistent(
    anatomy: Anatomy,
    programs: int,
    once: Sequence[cst.BaseStatement],
    each: Sequence[cst.BaseStatement],
    language: str,
) -> Iterator[tuple[str, cst.Module]]:
    """Launch ``programs`` programs that run some of the kernel's statements ``once``, and others for ``each`` tile.

    Each walks over tiles in the order in which programs started before.
    """
    grid, queries = grid_of(anatomy), _queries(anatomy, language)
    if grid is None or not queries or tree.find(anatomy.kernel.body, cst.Return):
        return
    tile, first, second = (tree.fresh(anatomy.module, name) for name in ("tile", "tiles_first", "tiles_second"))
    texts = {
        ("program_id", 0): f"({tile} % {first})",
        ("program_id", 1): f"({tile} // {first})",
        ("num_programs", 0): first,
        ("num_programs", 1): second,
    }
    edits: dict[cst.CSTNode, tree.Replacement]
    edits = {call: tree.expression(texts[query]) for call, query in queries.items()}
    walk = f"range({language}.program_id(0), {first} * {second}, {language}.num_programs(0))"
    (loop,) = tree.statements(f"for {tile} in {walk}:\n    pass\n")
    loop = loop.with_changes(body=tree.replace(cst.IndentedBlock(each), edits))
    kernel = anatomy.kernel.with_changes(body=anatomy.kernel.body.with_changes(body=[*once, loop]))
    sizes = [tree.text(element.value) for element in grid.elements]
    passed = [tree.keyword_argument(name, size) for name, size in zip((first, second), sizes, strict=True)]
    launch = tree.with_arguments(anatomy.launch, [*anatomy.launch.args, *passed])
    few = tree.expression(f"(min(({sizes[0]}) * ({sizes[1]}), {programs}),)")
    edits = {anatomy.kernel: tree.with_parameters(kernel, (first, second)), grid: few}
    edits[anatomy.launch] = tree.replace(launch, {grid: few})  # where it is written out
    yield f"persistent grid of {programs} programs", tree.replace(anatomy.module, edits)


def _edit_side(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Number programs along one axis: blocks of several heads side by side, then the next blocks of these heads."""
    queries = _queries(anatomy, "tl")
    if not anatomy.causal:
        return
    rows = tree.names(tree.expression(anatomy.causal[0].rows.first))
    axes = {
        queries[call][1]
        for assign in tree.find(anatomy.kernel.body, cst.Assign)
        if isinstance(name := assign.targets[0].target, cst.Name) and name.value in rows
        for call in tree.calls(assign.value, "tl.program_id")
        if call in queries
    }
    for label, module in side_by_side(anatomy, axes, "tl"):
        again = dissect(module.code)
        for longest_first, reversed_module in _edit_reverse(again, target) if again else ():
            yield f"{label}, {longest_first}", reversed_module
        yield label, module


def side_by_side(anatomy: Anatomy, axes: Collection[int], language: str) -> Iterator[tuple[str, cst.Module]]:
    """Number programs along one axis, blocks of several heads side by side; ``axes`` has the one that numbers blocks.

    Yields nothing where it is not one.
    """
    grid, queries = grid_of(anatomy), _queries(anatomy, language)
    if grid is None or len(axes) != 1 or not queries:
        return
    (axis,) = axes
    number, blocks, lists, side = (tree.fresh(anatomy.module, name) for name in ("program", "blocks", "lists", "SIDE"))
    texts = {
        ("program_id", axis): f"({number} // {side} % {blocks})",
        ("program_id", 1 - axis): f"({number} // ({side} * {blocks}) * {side} + {number} % {side})",
        ("num_programs", axis): blocks,
        ("num_programs", 1 - axis): lists,
    }
    asked: dict[cst.CSTNode, tree.Replacement] = {
        call: tree.expression(texts[query]) for call, query in queries.items()
    }
    body = tree.replace(anatomy.kernel.body, asked)
    body = body.with_changes(body=[*tree.statements(f"{number} = {language}.program_id(0)\n"), *body.body])
    kernel = tree.with_parameters(anatomy.kernel.with_changes(body=body), (blocks, lists))
    kernel = tree.with_parameters(kernel, (side,), constant=True, language=language)
    sizes = [tree.text(element.value) for element in grid.elements]
    passed = [tree.keyword_argument(blocks, sizes[axis]), tree.keyword_argument(lists, sizes[1 - axis])]
    all_of_them = tree.expression(f"(({sizes[0]}) * ({sizes[1]}),)")
    for heads in (8, 16, 4):
        count = f"{heads} if ({sizes[1 - axis]}) % {heads} == 0 else 1"
        launch = tree.with_arguments(
            anatomy.launch, [*anatomy.launch.args, *passed, tree.keyword_argument(side, count)]
        )
        edits: dict[cst.CSTNode, tree.Replacement] = {anatomy.kernel: kernel, grid: all_of_them}
        edits[anatomy.launch] = tree.replace(launch, {grid: all_of_them})  # where it is written out
        yield f"{heads} heads side by side along one axis", tree.replace(anatomy.module, edits)


def _queries(anatomy: Anatomy, language: str = "tl") -> dict[cst.Call, tuple[str, int]]:
    """What the kernel asks of the grid: ``program_id`` or ``num_programs`` of its language, and the axis, 0 or 1.

    Nothing where a function that it may call asks, too, or where an axis cannot be told.
    """
    found: dict[cst.Call, tuple[str, int]] = {}
    for function in tree.find(anatomy.module, cst.FunctionDef):
        for name in ("program_id", "num_programs"):
            for call in tree.calls(function, f"{language}.{name}"):
                if function is not anatomy.kernel:
                    if function.name.value in tree.names(anatomy.kernel):
                        return {}
                    continue
                axis = tree.integer(call.args[0].value) if len(call.args) == 1 and not call.args[0].keyword else None
                if axis not in (0, 1):
                    return {}
                found[call] = name, axis
    return found


def grid_of(anatomy: Anatomy) -> cst.Tuple | None:
    """Return the launch's grid if it is a pair of plain elements that is written out once."""
    assert isinstance(anatomy.launch.func, cst.Subscript)
    index = anatomy.launch.func.slice[0].slice
    grid = index.value if isinstance(index, cst.Index) else None
    if isinstance(grid, cst.Name):
        uses = sum(name.value == grid.value for name in tree.find(anatomy.host, cst.Name))
        grid = tree.definition(anatomy.host, grid.value) if uses == 2 else None
    if isinstance(grid, cst.Tuple) and len(grid.elements) == 2:
        return grid if all(isinstance(element, cst.Element) for element in grid.elements) else None
    return None


ORDER_MOVES = (
    Move(
        "reverse",
        "causal blocks differ in length: the longest first leaves short ones to fill the last wave",
        0.02,
        "a causal mask, and the rows of a program by its number",
        _edit_reverse,
        each=True,
    ),
    Move(
        "swap",
        "neighbouring programs of one head share keys in the L2 cache, of several heads share block lengths",
        0.02,
        "a grid of two axes",
        _edit_swap,
        frozenset({"l2", "hbm"}),
        each=True,
    ),
    Move(
        "persistent",
        "programs that walk over tiles are started once: no gaps between waves, and two a SM overlap their ends",
        0.01,
        "a grid of two axes, and a kernel that does not return early",
        _edit_persistent,
        each=True,
    ),
    Move(
        "side",
        "blocks of several heads side by side: the longest of all start first, and few heads share the L2 cache",
        0.03,
        "a grid of two axes, one of which numbers the blocks of a causal mask's rows",
        _edit_side,
    ),
)
