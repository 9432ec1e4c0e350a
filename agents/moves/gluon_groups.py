"""Edits of attention kernels in Gluon on the groups of warps that multiply: how many there are, when turns end."""

import re
from collections.abc import Iterator, Sequence

import libcst as cst

from avo.agents.moves import tree
from avo.agents.moves.anatomy import Anatomy
from avo.agents.moves.launch import constant
from avo.evaluator.target import Target

REGISTERS = {1: 232, 2: 240, 3: 160}
"""What a thread may have where so many groups of four warps, and a warp that loads, share 64 Ki registers."""

Edits = dict[cst.CSTNode, tree.Replacement]


def rows_of_keys(anatomy: Anatomy) -> dict[str, cst.Integer]:
    """Return the names that the host sets to a number and passes with both ``k`` and ``v`` but not with ``q``: the rows
    in the descriptors of keys and values. It may count blocks with the rows of queries as often.
    """
    made: dict[str, set[str]] = {"q": set(), "k": set(), "v": set()}
    for arg in anatomy.launch.args:
        mentioned = tree.names(arg.value) if isinstance(arg.value, cst.Call) else set()
        for tensor in made.keys() & mentioned:
            made[tensor] |= mentioned
    literals = {name: constant(anatomy, name) for name in sorted((made["k"] & made["v"]) - made["q"])}
    return {name: literal for name, literal in literals.items() if literal is not None}


def edit_groups(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Have one group more, or one less, each with its own rows of queries and its share of the registers.

    With one more each has fewer registers, so half as many keys in a tile come first then.
    """
    for call in tree.calls(anatomy.kernel, "gl.warp_specialize"):
        lists = [arg.value for arg in call.args if isinstance(arg.value, cst.List)]
        here = _alike(lists[0]) if len(lists) == 3 else 0
        warps = [tree.integer(each.value) for each in lists[1].elements] if here else []
        names = {tree.text(arg.value) for arg in anatomy.launch.args if tree.is_name(arg.value)}
        counts = [literal for name in names if (literal := constant(anatomy, name)) and tree.integer(literal) == here]
        if here < 2 or warps != [4] * (here - 1) + [1] or len(counts) != 1:
            continue
        for there in (here + 1, here - 1):
            if there in REGISTERS:
                edits: Edits = {counts[0]: cst.Integer(str(there)), **_with_groups(lists, here, there)}
                for other, group in _others(anatomy.module, here).items():
                    edits[other] = tree.expression(f"({group} + 1) % {there}")
                for name, literal in rows_of_keys(anatomy).items() if there > here else ():
                    half = cst.Integer(str(literal.evaluated_value // 2))
                    label = f"groups {here} -> {there}, {name} {literal.value} -> {half.value}"
                    yield label, tree.replace(anatomy.module, {**edits, literal: half})
                yield f"groups {here} -> {there}", tree.replace(anatomy.module, edits)


def _with_groups(lists: Sequence[cst.List], here: int, there: int) -> Edits:
    """Return the edits of the lists of roles, of their warps and of their registers."""
    roles, warps, registers = (each.elements for each in lists)
    groups = [_numbered(roles[0], number) for number in range(there)]
    budget = registers[0].with_changes(value=cst.Integer(str(REGISTERS[there])))
    new = ([*groups, *roles[here:]], [*[warps[0]] * (there - 1), warps[-1]], [*[budget] * (there - 1), registers[-1]])
    return {old: old.with_changes(elements=elements) for old, elements in zip(lists, new, strict=True)}


def _alike(roles: cst.List) -> int:
    """Return how many of the first roles are the same but for their last argument, which counts them."""
    alike = 0
    for role in roles.elements:
        if tree.integer(_number(role)) != alike:
            break
        if tree.text(_numbered(role, 0).value) != tree.text(roles.elements[0].value):
            break
        alike += 1
    return alike


def _number(role: cst.BaseElement) -> cst.BaseExpression | None:
    """Return the last argument of ``(function, (argument, ...))``."""
    parts = [each.value for each in role.value.elements] if isinstance(role.value, cst.Tuple) else []
    arguments = parts[1].elements if len(parts) == 2 and isinstance(parts[1], cst.Tuple) else ()
    return arguments[-1].value if arguments else None


def _numbered(role: cst.BaseElement, number: int) -> cst.BaseElement:
    old = _number(role)
    assert old is not None
    return tree.replace(role, {old: cst.Integer(str(number))})


def _constants(function: cst.FunctionDef) -> set[str]:
    """Return the parameters of a function that are known at compile time."""
    return {each.name.value for each in function.params.params if each.annotation}


def _others(module: cst.Module, groups: int) -> dict[cst.BinaryOperation, str]:
    """Return the expressions of the next group, with the constant that is the group's own number: ``1 - GROUP``, the
    other of two, and ``(GROUP + 1) % groups``.
    """
    after = re.compile(rf"1 - (\w+)|\((\w+) \+ 1\) % {groups}")
    found = {}
    for function in tree.find(module, cst.FunctionDef):
        for value in tree.find(function.body, cst.BinaryOperation):
            if (match := after.fullmatch(tree.text(value))) and (own := match[1] or match[2]) in _constants(function):
                found[value] = own
    return found


def edit_turns(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Give another group its turn earlier or later in a loop, but not as the first thing of the own turn."""
    for function in tree.find(anatomy.module, cst.FunctionDef):
        for loop in tree.find(function.body, cst.For):
            lines = list(loop.body.body)
            for here, line in enumerate(lines):
                own = _own_turn(line, lines[:here], _constants(function))
                if own is None:
                    continue
                others = [*lines[:here], *lines[here + 1 :]]
                for there in sorted(range(own + 2, len(lines)), key=lambda place: (abs(place - here), place)):
                    if there == here or tree.calls(others[there - 1], "mbarrier.arrive"):
                        continue
                    moved = loop.body.with_changes(body=[*others[:there], line, *others[there:]])
                    steps = f"{abs(there - here)} statement{'s' * (abs(there - here) > 1)}"
                    label = f"turns end {steps} {'later' if there > here else 'earlier'}"
                    yield label, tree.replace(anatomy.module, {loop.body: moved})


def _own_turn(line: cst.CSTNode, before: Sequence[cst.CSTNode], constants: set[str]) -> int | None:
    """Return which of the statements before waits for the own turn, if a statement gives another group its turn.

    It then arrives at ``barriers.index(1 - GROUP)`` or alike, and what is waited for is ``barriers.index(GROUP)``.
    """
    for arrival in tree.calls(line, "mbarrier.arrive"):
        barrier = arrival.args[0].value
        if not isinstance(barrier, cst.Call) or not barrier.args or tree.is_name(barrier.args[0].value):
            continue
        numbers = tree.names(barrier.args[0].value) & constants
        own = {f"{tree.text(barrier.func)}({number})" for number in numbers}
        for place, statement in enumerate(before):
            if own & {tree.text(wait.args[0].value) for wait in tree.calls(statement, "mbarrier.wait")}:
                return place
    return None
