"""The move that gives the tiles in which no comparison hides anything a loop of their own, without masks.

Where these tiles are follows from the comparisons: each is of sums of numbers that count up, as the loop's index and
the rows or keys of a tile do, and of scalars. So windows, packed sequences and backward passes need no rules of their
own.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import libcst as cst
from libcst.helpers import get_full_name_for_node

from avo.agents.moves import tree
from avo.agents.moves.anatomy import Anatomy, Loop, unconverted, unindexed
from avo.agents.moves.fold import assume_true
from avo.agents.moves.move import Move
from avo.evaluator.target import Target

_OF_SCALARS = {
    "range", "tl.range", "tl.program_id", "tl.num_programs", "tl.load", "tl.minimum", "tl.maximum", "tl.where",
    "tl.cdiv",
}  # fmt: skip
"""Functions that make a scalar of scalars."""
Sum = Mapping[str, int]
"""Expressions, each with a factor; a number stands under ``""``."""


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Numbers of rows or keys: so many times the loop's index, and between ``least`` and ``most`` more."""

    times: int
    least: Sum
    most: Sum

    def plus(self, other: "_Numbers", sign: int) -> "_Numbers":
        """Return the sum for the sign 1, and the difference for -1."""
        low, high = (other.least, other.most) if sign > 0 else (other.most, other.least)
        return _Numbers(self.times + sign * other.times, _added(self.least, low, sign), _added(self.most, high, sign))


@dataclass(frozen=True, slots=True)
class _Bound:
    """Where a comparison is true of a whole tile."""

    comparison: cst.Comparison
    flag: str
    """The constexpr that switches it on; empty if it is unconditional."""
    times: int
    """Which tiles satisfy the comparison: 1, those that end at or before ``limit``; -1, those that begin at or after
    it; 0, all of them, if the condition ``limit`` holds.
    """
    limit: str


def _edit_split(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Walk with masks up to the first full tile, without up to the last one, and with masks over the rest."""
    if len(anatomy.loops) != 1 or anatomy.specialised:
        return
    (loop,) = anatomy.loops
    bounds = _bounds(anatomy, loop)
    body = assume_true(loop.node.body, [bound.comparison for bound in bounds])
    # What is no conjunction or select does not fold away.
    folded = sum(name.value == "True" for name in tree.find(body, cst.Name)) == 0
    if not folded or not any(bound.times for bound in bounds):
        return
    full = tree.fresh(anatomy.module, f"full_{loop.index.removeprefix('start').lstrip('_') or 'tiles'}")
    first = tree.fresh(anatomy.module, f"first_{full}")
    before = [bound for bound in bounds if bound.times < 0]
    lines = [*(_first(loop, first, before) if before else []), *_end(loop, full, bounds, first if before else "")]

    def walk(start: str, stop: str, **changes: object) -> cst.For:
        ends: tree.Edits = {
            arg.value: tree.expression(text) for arg, text in zip(loop.call.args, (start, stop), strict=False)
        }
        return loop.node.with_changes(iter=tree.replace(loop.call, ends), leading_lines=(), **changes)

    loops: list[cst.BaseStatement] = [walk(first if before else loop.start, full, body=body), walk(full, loop.stop)]
    if before:
        begin: cst.BaseStatement = walk(loop.start, first)
        flags = {bound.flag for bound in before}
        if flags != {""} and len(flags) == 1:
            begin = cst.If(cst.Name(flags.pop()), cst.IndentedBlock([begin]))
        loops.insert(0, begin)
    (head, *rest) = tree.statements("\n".join(lines) + "\n")
    edit = [head.with_changes(leading_lines=loop.node.leading_lines), *rest, *loops]
    yield (
        "split off a loop without masks over full blocks",
        tree.replace(anatomy.module, {loop.node: cst.FlattenSentinel(edit)}),
    )


def _first(loop: Loop, first: str, bounds: list[_Bound]) -> list[str]:
    """Return statements that set ``first`` to where the first full tile begins, at most where the last tile ends."""
    start = [] if loop.start == "0" else [_atom(loop.start)]
    step, less = _atom(loop.step), "".join(f" - {text}" for text in start)
    tiles = f"tl.cdiv(tl.maximum(tl.minimum({first}, {loop.stop}){less}, 0), {loop.step}) * {step}"
    return [
        f"{first} = {loop.start}",
        *(_switched(bound.flag, f"{first} = tl.maximum({first}, {bound.limit})") for bound in bounds),
        f"{first} = {' + '.join([*start, tiles])}",
    ]


def _end(loop: Loop, full: str, bounds: list[_Bound], first: str) -> list[str]:
    """Return statements that set ``full`` to where the last full tile ends, at least where the first one begins."""
    start = [] if loop.start == "0" else [_atom(loop.start)]
    step, less = _atom(loop.step), "".join(f" - {text}" for text in start)
    tiles = " + ".join([*start, f"tl.maximum({full}{less}, 0) // {step} * {step}"])
    lines = [f"{full} = {loop.stop}"]
    for bound in bounds:
        if bound.times == 0:
            lines.append(_switched(bound.flag, f"{full} = tl.where({bound.limit}, {full}, {loop.start})"))
        elif bound.times > 0 and bound.limit != loop.stop:
            lines.append(_switched(bound.flag, f"{full} = tl.minimum({full}, {bound.limit})"))
    return [*dict.fromkeys(lines), f"{full} = tl.maximum({first}, {tiles})" if first else f"{full} = {tiles}"]


def _switched(flag: str, statement: str) -> str:
    return f"if {flag}:\n    {statement}" if flag else statement


def _bounds(anatomy: Anatomy, loop: Loop) -> list[_Bound]:
    """Return the bounds of all comparisons of a loop's numbers; none if one of them is not understood."""
    reader = _Reader(anatomy, loop)
    found = []
    for comparison in tree.find(loop.node.body, cst.Comparison):
        moving = any(reader.moves(name) for name in tree.names(comparison))
        bound = reader.bound(comparison)
        if bound is None and moving:
            return []
        found += [bound] if bound else []
    return found


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads what is compared in a loop."""

    anatomy: Anatomy
    loop: Loop

    def moves(self, name: str) -> bool:
        """Return whether a name stands for numbers that the loop's index is in."""
        read = self.read(cst.Name(name))
        return read is not None and read.times != 0

    def bound(self, comparison: cst.Comparison) -> _Bound | None:
        """Return where a comparison is true of a whole tile; None if it is not one of rows or keys with scalars."""
        branches = [
            branch
            for branch in tree.find(self.loop.node.body, cst.If)
            if comparison in tree.find(branch, cst.Comparison)
        ]
        # Within other branches it counts always, which costs full tiles and is right.
        flag = self.anatomy.flag(branches) or ""
        if len(comparison.comparisons) != 1:
            return None
        operator, right = comparison.comparisons[0].operator, comparison.comparisons[0].comparator
        sides = [self.read(comparison.left), self.read(right)]
        if isinstance(operator, cst.GreaterThan | cst.GreaterThanEqual):
            sides.reverse()
        elif not isinstance(operator, cst.LessThan | cst.LessThanEqual):
            return None
        small, large = sides
        if small is None or large is None:
            return None
        more = {"": 1} if isinstance(operator, cst.LessThan | cst.GreaterThan) else {}
        # It is true of a whole tile where times * index + worst <= 0.
        apart = small.plus(large, -1)
        worst = _added(apart.most, more, 1)
        if apart.most == apart.least:
            return None
        if apart.times == 1:
            return _Bound(comparison, flag, 1, _written(_added({self.loop.step: 1}, worst, -1)))
        if apart.times == -1:
            return _Bound(comparison, flag, -1, _written(worst))
        if apart.times == 0 and not {*worst} - {""} <= self.anatomy.constants:
            return _Bound(comparison, flag, 0, f"{_written(worst)} <= 0")
        return None

    def read(self, node: cst.BaseExpression) -> _Numbers | None:
        """Return the numbers that an expression stands for, or a scalar; None for anything else."""
        node = unindexed(node)
        node = unconverted(node) or node
        if tree.is_name(node, self.loop.index):
            return _Numbers(1, {}, {})
        if isinstance(node, cst.Integer):
            number = {"": node.evaluated_value} if node.evaluated_value else {}
            return _Numbers(0, number, number)
        if end := self.anatomy.arange_end(node):
            return _Numbers(0, {}, {end: 1, "": -1})
        if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.Add | cst.Subtract):
            left, right = self.read(node.left), self.read(node.right)
            sign = 1 if isinstance(node.operator, cst.Add) else -1
            return left.plus(right, sign) if left and right else None
        # What is loaded in the loop may be another value before it.
        if self._scalar(node) and not tree.calls(node, "tl.load"):
            text = {tree.text(node): 1}
            return _Numbers(0, text, text)
        if isinstance(node, cst.BinaryOperation):
            return self._divided(node)
        return self._defined(node) if isinstance(node, cst.Name) else None

    def _divided(self, node: cst.BinaryOperation) -> _Numbers | None:
        """Read rows divided by a scalar, and the remainder of the first rows."""
        rows, by = self.read(node.left), tree.text(node.right)
        if rows is None or rows.times or not self._scalar(node.right):
            return None
        if isinstance(node.operator, cst.FloorDivide):
            low, high = ({f"({_written(each)}) // {_atom(by)}": 1} if each else {} for each in (rows.least, rows.most))
            return _Numbers(0, low, high)
        if isinstance(node.operator, cst.Modulo) and not rows.least:
            return _Numbers(0, {}, {by: 1, "": -1})
        return None

    def _defined(self, name: cst.Name) -> _Numbers | None:
        """Read a name of rows or keys by its only definition, whose scalars must not have changed since."""
        value = tree.definition(self.anatomy.kernel, name.value)
        if value is None:
            return None
        places = tree.places(self.anatomy.kernel)
        assigned = [each for used in tree.names(value) for each in tree.assignments(self.anatomy.kernel, used)]
        if any(places[each] > places[value] for each in assigned):
            return None
        return self.read(value)

    def _scalar(self, node: cst.BaseExpression) -> bool:
        """Return whether an expression is a scalar that the loop does not change."""
        known: set[str] = set()
        pending: list[cst.BaseExpression] = [node]
        while pending:
            value = pending.pop()
            functions = [get_full_name_for_node(call.func) or "" for call in tree.find(value, cst.Call)]
            if tree.find(value, cst.Subscript) or not all(
                name in _OF_SCALARS or name.endswith(".to") for name in functions
            ):
                return False
            attributes = {attribute.attr.value for attribute in tree.find(value, cst.Attribute)}
            for name in tree.names(value) - known - attributes - {"tl", "range"}:
                known.add(name)
                assigned = tree.assignments(self.anatomy.kernel, name)
                if not assigned and name not in self.anatomy.parameters:
                    return False
                pending += assigned
        return not any(tree.assignments(self.loop.node, name) for name in known)


def _added(one: Sum, other: Sum, sign: int) -> Sum:
    both = {text: one.get(text, 0) + sign * other.get(text, 0) for text in {**one, **other}}
    return {text: count for text, count in both.items() if count}


def _written(terms: Sum) -> str:
    """Return a sum as text: what is added first, a number last."""
    text = ""
    for term, count in sorted(terms.items(), key=lambda each: (each[1] < 0, not each[0])):
        size = abs(count)
        written = str(size) if not term else _atom(term, ast.Mult | ast.FloorDiv | ast.Mod)
        written = f"{size} * {_atom(term)}" if term and size > 1 else written
        sign = "-" if count < 0 else "+"
        text = f"{text} {sign} {written}" if text else f"-{written}" if count < 0 else written
    return text or "0"


def _atom(text: str, bare: Any = ()) -> str:
    """Return an expression as an operand: in brackets, but for names, numbers, calls and ``bare`` operations."""
    node = ast.parse(text, mode="eval").body
    plain = isinstance(node, ast.Name | ast.Constant | ast.Call | ast.Attribute)
    return text if plain or (isinstance(node, ast.BinOp) and isinstance(node.op, bare)) else f"({text})"


SPLIT = Move(
    "split",
    "only blocks on the diagonal, at the ends of a window and in the tail need masks: comparing leaves the hot loop",
    0.25,
    "one loop whose masks compare its numbers with scalars or with rows, and no roles for its warps",
    _edit_split,
    frozenset({"issue", "alu"}),
    each=True,
)
