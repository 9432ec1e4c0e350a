"""The parts of a Triton attention candidate, found by structure: kernel, launch, loops over keys, masks, softmax.

Everything here answers None, or an empty tuple, for code that it does not recognise; it never guesses.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import libcst as cst
from libcst.helpers import get_full_name_for_node

from avo.agents.moves import tree


@dataclass(frozen=True, slots=True)
class Loop:
    """``for index in range(start, stop, step)``, or ``tl.range``, around at least two products."""

    node: cst.For
    index: str
    call: cst.Call
    start: str
    stop: str
    step: str


@dataclass(frozen=True, slots=True)
class Block:
    """Numbers that count up, as those of a tile's rows do; each part is an expression."""

    first: str
    end: str
    """The number after the last one, or a later one."""
    count: str
    """How many rows have the numbers."""

    @classmethod
    def of(cls, first: str, count: str) -> "Block":
        """Return the numbers ``first + tl.arange(0, count)``."""
        return cls(first, f"{first} + {count}", count)


@dataclass(frozen=True, slots=True)
class Causal:
    """The comparison ``n <= rows + shift`` of key numbers."""

    flag: str | None
    """The constexpr that switches it on; None if it is unconditional."""
    rows: Block
    """The rows of the tile of scores."""
    shift: str


@dataclass(frozen=True, slots=True)
class Masks:
    """The comparisons of key numbers in a loop; key numbers are loop index plus 0 .. step - 1."""

    comparisons: tuple[cst.Comparison, ...]
    length: str
    """Number of keys: the comparisons ``n < length``."""
    causal: Causal | None


@dataclass(frozen=True, slots=True)
class Softmax:
    """The steps from a product to probabilities: scores, their scale, the maximum, the exponential."""

    scores: str
    scale: str
    late: bool
    """Whether the scale is applied after the maximum, in the exponential's argument."""
    scaled: cst.BinaryOperation
    """``tl.dot(...) * scale``, or ``scores * scale`` in the exponential when late."""
    product: cst.Call
    maximum: cst.Call
    """``tl.max(scores, 1)``."""
    exponent: cst.Name
    """The scores in the exponential's argument."""


@dataclass(frozen=True)
class Anatomy:
    """A module with one attention kernel and one launch of it."""

    module: cst.Module
    kernel: cst.FunctionDef
    host: cst.FunctionDef
    launch: cst.Call

    @cached_property
    def loops(self) -> tuple[Loop, ...]:
        """The kernel's loops over keys, in source order; empty if one of them has another form."""
        read = [_loop(walk) for walk in self.walks]
        return tuple(loop for loop in read if loop) if all(read) else ()

    @cached_property
    def walks(self) -> tuple[cst.For, ...]:
        """The innermost loops around two products or more, whatever they iterate over, in source order."""
        found = [loop for loop in tree.find(self.kernel, cst.For) if len(tree.calls(loop, "tl.dot")) >= 2]
        return tuple(outer for outer in found if not any(inner in found for inner in tree.find(outer.body, cst.For)))

    @cached_property
    def specialised(self) -> bool:
        """Whether the warps of a loop over keys have roles. What breaks the pass that gives them is no move then."""
        return any(tree.keyword(loop.call, "warp_specialize") for loop in self.loops)

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of the kernel's parameters, in order."""
        return tuple(parameter.name.value for parameter in self.kernel.params.params)

    @cached_property
    def constants(self) -> frozenset[str]:
        """Names of the kernel's parameters that are known at compile time."""
        return frozenset(
            parameter.name.value
            for parameter in self.kernel.params.params
            if parameter.annotation and get_full_name_for_node(parameter.annotation.annotation) == "tl.constexpr"
        )

    @cached_property
    def arguments(self) -> Mapping[str, str]:
        """The launch's argument for each parameter, as text; empty if it is not known.

        ``*x.stride()`` stands for ``x.stride(0)`` to ``x.stride(3)``: all tensors of attention have four axes.
        """
        positional: list[str] = []
        bound: dict[str, str] = {}
        for arg in self.launch.args:
            if arg.keyword:
                bound[arg.keyword.value] = tree.text(arg.value)
            elif not arg.star:
                positional.append(tree.text(arg.value))
            elif arg.star == "*" and tree.text(arg.value).endswith(".stride()"):
                positional += [f"{tree.text(arg.value)[:-1]}{axis})" for axis in range(4)]
            else:
                return {}
        bound |= dict(zip(self.parameters, positional, strict=False))
        return bound if len(positional) <= len(self.parameters) and set(self.parameters) <= set(bound) else {}

    @cached_property
    def causal(self) -> tuple[Causal, ...]:
        """The causal masks of the loops, in source order."""
        return tuple(masks.causal for masks in map(self.masks, self.loops) if masks and masks.causal)

    def masks(self, loop: Loop) -> Masks | None:
        """Return the masks of ``loop``; None when it has none or compares key numbers in an unknown way."""
        column = self._column(loop)
        if column is None:
            return None
        read: set[str | Causal | None] = set()
        found = []
        for comparison in tree.find(loop.node.body, cst.Comparison):
            if tree.names(comparison) & {column, loop.index}:
                found.append(comparison)
                read.add(self._read_mask(comparison, column, loop))
        lengths = [each for each in read if isinstance(each, str)]
        causal = [each for each in read if isinstance(each, Causal)]
        if None in read or len(lengths) != 1 or len(causal) > 1:
            return None
        return Masks(tuple(found), lengths[0], causal[0] if causal else None)

    def _column(self, loop: Loop) -> str | None:
        """Return the name of the key numbers: it is assigned once in the loop, as index + tl.arange(0, step)."""
        for statement in loop.node.body.body:
            name, value = tree.assignment(statement) or ("", None)
            if isinstance(value, cst.BinaryOperation) and isinstance(value.operator, cst.Add):
                others = [side for side in (value.left, value.right) if not tree.is_name(side, loop.index)]
                if len(others) == 1 and self.arange_end(others[0]) == loop.step:
                    return name if tree.definition(loop.node, name) else None
        return None

    def arange_end(self, node: cst.BaseExpression) -> str | None:
        """Return the end of ``tl.arange(0, end)``, written out or assigned to a name."""
        value = tree.definition(self.kernel, node.value) if isinstance(node, cst.Name) else node
        if isinstance(value, cst.Call) and tree.is_call(value, "tl.arange") and len(value.args) == 2:
            start, end = value.args
            return tree.text(end.value) if tree.integer(start.value) == 0 else None
        return None

    def _read_mask(self, comparison: cst.Comparison, column: str, loop: Loop) -> str | Causal | None:
        """Return what a comparison bounds key numbers by: their count, or rows. None for any other comparison."""
        if len(comparison.comparisons) != 1:
            return None
        (compared,) = comparison.comparisons
        left, operator, right = comparison.left, compared.operator, compared.comparator
        if isinstance(operator, cst.GreaterThan | cst.GreaterThanEqual):
            left, right = right, left
        strict = isinstance(operator, cst.LessThan | cst.GreaterThan)
        if not strict and not isinstance(operator, cst.LessThanEqual | cst.GreaterThanEqual):
            return None
        branches = [
            branch for branch in tree.find(loop.node.body, cst.If) if comparison in tree.find(branch, cst.Comparison)
        ]
        within, left = _within(unindexed(left), loop)
        if not tree.is_name(left, column):
            return None
        if strict:
            known = not within and tree.is_name(right) and tree.text(right) in self.parameters
            return tree.text(right) if known else None
        flag = self.flag(branches)
        rows, shift = _sum(right)
        rows_within, row = _within(unindexed(rows), loop)
        tile = self._rows(row) if rows_within == within else None
        if flag is None or tile is None or (shift and not tree.names(shift) <= set(self.parameters)):
            return None
        return Causal(flag or None, tile, tree.text(shift) if shift else "0")

    def _rows(self, node: cst.BaseExpression) -> Block | None:
        """Return the rows of a tile: a block, or a block divided by a parameter, which rows share."""
        value = tree.definition(self.kernel, node.value) if isinstance(node, cst.Name) else None
        if not isinstance(value, cst.BinaryOperation) or not isinstance(value.operator, cst.FloorDivide):
            return self.block(node)
        block, shared = self.block(value.left), tree.text(value.right)
        if block is None or shared not in self.parameters:
            return None
        return Block(f"({block.first}) // {shared}", f"({block.end} - 1) // {shared} + 1", block.count)

    def flag(self, branches: list[cst.If]) -> str | None:
        """Return the constexpr of the only branch around a mask, "" for no branch, None for anything else."""
        if not branches:
            return ""
        test = branches[0].test
        plain = len(branches) == 1 and branches[0].orelse is None and isinstance(test, cst.Name)
        return test.value if plain and isinstance(test, cst.Name) and test.value in self.constants else None

    def block(self, node: cst.BaseExpression) -> Block | None:
        """Return the numbers of a name that is defined once, in the kernel or in a loop."""
        if not isinstance(node, cst.Name):
            return None
        scopes = [scope for loop in self.loops for scope in [loop.node] if tree.assignments(scope, node.value)]
        value = tree.definition(scopes[0] if scopes else self.kernel, node.value)
        first, offsets = _sum(value) if value else (None, None)
        block_rows = self.arange_end(offsets) if offsets else None
        return Block.of(tree.text(first), block_rows) if first and block_rows else None

    def softmax(self, loop: cst.For) -> Softmax | None:
        """Return the softmax of a loop; None unless every use of the scores has the known form."""
        body = loop.body
        product = tree.calls(body, "tl.dot")[0]
        lines = filter(None, map(tree.assignment, tree.find(body, cst.SimpleStatementLine)))
        scores, value = next((line for line in lines if product in tree.find(line[1], cst.Call)), ("", None))
        uses = _uses(body, scores, value) if value else None
        if value is None or uses is None:
            return None
        maximum, exponent = uses
        scaled = _selected(value) or value
        scale = _factor(scaled, product)
        if scale and isinstance(exponent, cst.Name) and isinstance(scaled, cst.BinaryOperation):
            return Softmax(
                scores, scale, late=False, scaled=scaled, product=product, maximum=maximum, exponent=exponent
            )
        late = next((use for use in tree.find(exponent, cst.Name) if use.value == scores), None)
        scale = _factor(exponent, late) if late else None
        scaled_maximum = any(_factor(node, maximum) == scale for node in tree.find(body, cst.BinaryOperation))
        if scaled is product and late and scale and scaled_maximum and isinstance(exponent, cst.BinaryOperation):
            return Softmax(scores, scale, late=True, scaled=exponent, product=product, maximum=maximum, exponent=late)
        return None


def dissect(source: str) -> Anatomy | None:
    """Find the attention kernel of a candidate and its launch; None when there is none or more than one."""
    found = dissections(source)
    return found[0] if len(found) == 1 else None


@lru_cache(maxsize=32)
def dissections(source: str, *, gluon: bool = False) -> tuple[Anatomy, ...]:
    """Find all kernels of a candidate that multiply matrices, with their launches, or its only kernel; in Triton, or
    those in Gluon.

    Cached, because every move asks for those of the same source, and what one has found in them serves the others.
    """
    try:
        module = cst.parse_module(source)
    except cst.ParserSyntaxError:
        return ()
    functions = {function.name.value: function for function in tree.find(module, cst.FunctionDef)}
    kernels = {name: function for name, function in functions.items() if is_kernel(function, gluon=gluon)}
    launches = [
        (kernels[call.func.value.value], host, call)
        for host in functions.values()
        if not is_kernel(host, gluon=gluon)
        for call in tree.find(host, cst.Call)
        if isinstance(call.func, cst.Subscript)
        and isinstance(call.func.value, cst.Name)
        and call.func.value.value in kernels
    ]
    if len(launches) > 1:
        launches = [launch for launch in launches if tree.calls(launch[0], "tl.dot")]
    return tuple(Anatomy(module, *launch) for launch in launches)


def is_kernel(function: cst.FunctionDef, *, gluon: bool = False) -> bool:
    """Return whether Triton compiles a function, or Gluon does."""
    names = ("gluon.jit",) if gluon else ("triton.jit", "jit")
    return any(get_full_name_for_node(decorator.decorator) in names for decorator in function.decorators)


def _loop(node: cst.For) -> Loop | None:
    call = node.iter
    if not isinstance(call, cst.Call) or get_full_name_for_node(call.func) not in ("range", "tl.range"):
        return None
    positional = [tree.text(arg.value) for arg in call.args if not arg.keyword and not arg.star]
    if len(positional) != 3 or not isinstance(node.target, cst.Name) or node.orelse:
        return None
    return Loop(node, node.target.value, call, *positional)


def _within(node: cst.BaseExpression, loop: Loop) -> tuple[bool, cst.BaseExpression]:
    """Return (True, ``x``) for ``x - index``, the index being the loop's, else (False, the node): both sides of a
    comparison may be counted from the block's first key.
    """
    counted = isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.Subtract)
    if counted and isinstance(node, cst.BinaryOperation) and tree.is_name(node.right, loop.index):
        return True, node.left
    return False, node


def unindexed(node: cst.BaseExpression) -> cst.BaseExpression:
    """Return ``x`` for ``x[...]``, else the node itself."""
    return node.value if isinstance(node, cst.Subscript) else node


def unconverted(node: cst.BaseExpression | None) -> cst.BaseExpression | None:
    """Return ``x`` for ``x.to(...)``, else the node itself."""
    if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) and node.func.attr.value == "to":
        return node.func.value
    return node


def uses_descriptors(node: cst.CSTNode) -> bool:
    """Return whether tiles are loaded or stored through descriptors in ``node``."""
    methods = [call.func for call in tree.find(node, cst.Call) if isinstance(call.func, cst.Attribute)]
    return any(m.attr.value in ("load", "store") and not tree.is_name(m.value, "tl") for m in methods)


def _sum(node: cst.BaseExpression) -> tuple[cst.BaseExpression, cst.BaseExpression | None]:
    """Return (left, right) of a sum; (node, None) for anything else."""
    if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.Add):
        return node.left, node.right
    return node, None


def _selected(node: cst.BaseExpression) -> cst.BaseExpression | None:
    """Return ``x`` of ``tl.where(..., x, float("-inf"))``."""
    if isinstance(node, cst.Call) and tree.is_call(node, "tl.where") and len(node.args) == 3:
        return node.args[1].value if tree.text(node.args[2].value) == "float('-inf')" else None
    return None


def _uses(body: cst.BaseSuite, scores: str, value: cst.BaseExpression) -> tuple[cst.Call, cst.BaseExpression] | None:
    """Return the maximum of the scores, which ``value`` is assigned to, and what of them it is subtracted from in the
    exponential; None where they are used in any other way, but for masks.
    """
    maxima = [call for call in tree.calls(body, "tl.max") if tree.is_name(call.args[0].value, scores)]
    exponentials = [call for name in ("tl.exp", "tl.exp2") for call in tree.calls(body, name)]
    differences = [call.args[0].value for call in exponentials if scores in tree.names(call)]
    if len(maxima) != 1 or len(differences) != 1:
        return None
    (difference,) = differences
    selects = [call for call in tree.calls(body, "tl.where") if tree.is_name(_selected(call), scores)]
    targets = tree.assignments(body, scores)
    uses = sum(name.value == scores for name in tree.find(body, cst.Name))
    if {*map(id, targets)} != {id(value), *map(id, selects)} or uses != len(targets) + len(selects) + 2:
        return None
    if not isinstance(difference, cst.BinaryOperation) or not isinstance(difference.operator, cst.Subtract):
        return None
    return maxima[0], difference.left


def _factor(node: cst.BaseExpression, other: cst.BaseExpression) -> str | None:
    """Return the name that ``node`` multiplies ``other`` (found by identity) with; None for any other expression."""
    if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.Multiply):
        for factor, side in ((node.left, node.right), (node.right, node.left)):
            if side is other and isinstance(factor, cst.Name):
                return factor.value
    return None
