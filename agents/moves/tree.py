"""Small helpers over libcst, shared by the moves, that read and rewrite syntax trees."""

import ast
import itertools
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias, TypeVar

import libcst as cst
from libcst.helpers import get_full_name_for_node

Node = TypeVar("Node", bound=cst.CSTNode)
Item = TypeVar("Item", cst.Arg, cst.Param)
Replacement: TypeAlias = cst.CSTNode | cst.FlattenSentinel[cst.BaseStatement]
Edits: TypeAlias = Mapping[cst.CSTNode, Replacement]
"""New nodes by the node they replace. A statement may become several."""


class _Replacer(cst.CSTTransformer):
    def __init__(self, edits: Edits, above: set[cst.CSTNode]) -> None:
        super().__init__()
        self._edits = edits
        self._above = above

    def on_visit(self, node: cst.CSTNode) -> bool:
        return node in self._above

    def on_leave(self, original_node: cst.CSTNodeT, updated_node: cst.CSTNodeT) -> cst.CSTNodeT:
        # libcst types a replacement by the node it replaces, which one rule for all nodes cannot express.
        return self._edits.get(original_node, updated_node)  # type: ignore[return-value]


def replace(tree: Node, edits: Edits) -> Node:
    """Return ``tree`` with every key of ``edits`` (found by identity) replaced by its value."""
    parents = _parents(tree)
    above: set[cst.CSTNode] = set()
    pending: list[cst.CSTNode] = [parent for node in edits for parent in parents.get(node, ())]
    while pending:
        node = pending.pop()
        if node not in above:
            above.add(node)
            pending += parents[node]
    return tree.visit(_Replacer(edits, above))  # type: ignore[return-value]


_LAYOUT = {cst.SimpleWhitespace, cst.Newline, cst.TrailingWhitespace, cst.Comma, cst.Dot}
"""Most nodes of a tree are of these kinds or below them, and no move looks there."""


@lru_cache(maxsize=512)
def _parents(tree: cst.CSTNode) -> Mapping[cst.CSTNode, Sequence[cst.CSTNode]]:
    """All nodes of an (immutable) tree in source order, outer ones first, each with those that it is a child of. What
    lies below ``_LAYOUT`` is left out, as are comments in it: it can be neither found nor replaced.

    Kept because a walk is slow and the same trees are searched again and again.
    """
    found: dict[cst.CSTNode, list[cst.CSTNode]] = {tree: []}
    pending = [tree]
    while pending:
        node = pending.pop()
        children = () if type(node) in _LAYOUT else node.children
        for child in children:
            found.setdefault(child, []).append(node)
        pending += reversed(children)
    return found


@lru_cache(maxsize=512)
def _by_kind(tree: cst.CSTNode) -> Mapping[type[cst.CSTNode], Sequence[cst.CSTNode]]:
    """The nodes of a tree of each class itself, in source order."""
    found: dict[type[cst.CSTNode], list[cst.CSTNode]] = {}
    for node in _parents(tree):
        found.setdefault(type(node), []).append(node)
    return found


def places(tree: cst.CSTNode) -> dict[cst.CSTNode, int]:
    """Return the place of each node in source order, outer ones first."""
    return {node: place for place, node in enumerate(_parents(tree))}


def find(tree: cst.CSTNode, kind: type[Node]) -> list[Node]:
    """Return the nodes of ``kind`` in ``tree``, in source order, outer ones first."""
    nodes = _by_kind(tree)
    kinds = {each for each in nodes if issubclass(each, kind)}
    if len(kinds) > 1:
        return [node for node in _parents(tree) if type(node) in kinds]  # type: ignore[misc]
    return [node for each in kinds for node in nodes[each]]  # type: ignore[misc]


def statement_lines(tree: cst.CSTNode) -> list[cst.BaseStatement]:
    """Return the statements in ``tree``, compound ones too, in source order, outer ones first."""
    return find(tree, cst.BaseStatement)  # type: ignore[type-abstract]


def calls(tree: cst.CSTNode, name: str) -> list[cst.Call]:
    """Return the calls of the dotted ``name``, e.g. ``tl.dot``, in source order."""
    return [call for call in find(tree, cst.Call) if is_call(call, name)]


def is_call(node: cst.CSTNode | None, name: str) -> bool:
    """Return whether ``node`` is a call of the dotted ``name``."""
    return isinstance(node, cst.Call) and get_full_name_for_node(node.func) == name


def is_name(node: cst.CSTNode | None, name: str | None = None) -> bool:
    """Return whether ``node`` is a plain name, and the given one if one is given."""
    return isinstance(node, cst.Name) and name in (None, node.value)


def text(node: cst.CSTNode) -> str:
    """Return an expression on one line in normal form: equal text means an equal expression."""
    return ast.unparse(ast.parse(f"({cst.Module([]).code_for_node(node)}\n)", mode="eval"))


def names(tree: cst.CSTNode) -> set[str]:
    """Return every name that ``tree`` mentions."""
    return {node.value for node in find(tree, cst.Name)}


def fresh(tree: cst.CSTNode, name: str) -> str:
    """Return ``name``, or the first of ``name_2``, ``name_3``, ... that ``tree`` does not mention."""
    taken = names(tree)
    return next(new for new in itertools.chain([name], (f"{name}_{i}" for i in itertools.count(2))) if new not in taken)


def expression(source: str) -> cst.BaseExpression:
    """Parse an expression."""
    return cst.parse_expression(source)


def statements(source: str) -> list[cst.BaseStatement]:
    """Parse statements."""
    return [statement for statement in cst.parse_module(source).body if isinstance(statement, cst.BaseStatement)]


def before(statement: cst.BaseStatement, source: str) -> cst.FlattenSentinel[cst.BaseStatement]:
    """Return a replacement of ``statement`` that puts the statements of ``source`` in front of it."""
    first, *rest = statements(source)
    # The blank lines and comments above belong above what now comes first.
    leading = getattr(statement, "leading_lines", ())
    return cst.FlattenSentinel(
        [first.with_changes(leading_lines=leading), *rest, statement.with_changes(leading_lines=())]
    )


def assignment(statement: cst.CSTNode) -> tuple[str, cst.BaseExpression] | None:
    """Return (name, value) of a statement line that is one assignment to one plain name."""
    if isinstance(statement, cst.SimpleStatementLine) and len(statement.body) == 1:
        small = statement.body[0]
        if isinstance(small, cst.Assign) and len(small.targets) == 1 and isinstance(small.targets[0].target, cst.Name):
            return small.targets[0].target.value, small.value
    return None


def assignments(tree: cst.CSTNode, name: str) -> list[cst.BaseExpression]:
    """Return the values of all assignments to ``name`` in ``tree``, in tuples only its own; loop variables count."""
    return [*_assigned(tree).get(name, ())]


@lru_cache(maxsize=512)
def _assigned(tree: cst.CSTNode) -> Mapping[str, Sequence[cst.BaseExpression]]:
    """The values of all assignments in ``tree`` by the names that their targets mention, in source order."""
    found: dict[str, list[cst.BaseExpression]] = {}
    for node in _parents(tree):
        pairs: list[tuple[cst.CSTNode, cst.BaseExpression]] = []
        if isinstance(node, cst.Assign):
            pairs = [pair for target in node.targets for pair in _paired(target.target, node.value)]
        elif isinstance(node, cst.AugAssign | cst.AnnAssign | cst.NamedExpr) and node.value:
            pairs = [(node.target, node.value)]
        elif isinstance(node, cst.For):
            pairs = [(node.target, node.iter)]
        for target, value in pairs:
            for name in names(target):
                found.setdefault(name, []).append(value)
    return found


def _paired(target: cst.BaseExpression, value: cst.BaseExpression) -> list[tuple[cst.CSTNode, cst.BaseExpression]]:
    """Return what is assigned to each element of a tuple where that is written, else all to all."""
    if isinstance(target, cst.Tuple) and isinstance(value, cst.Tuple) and len(target.elements) == len(value.elements):
        return [(one.value, other.value) for one, other in zip(target.elements, value.elements, strict=True)]
    return [(target, value)]


def assigned_names(tree: cst.CSTNode) -> list[str]:
    """Return the plain names that the statement lines in ``tree`` assign, each once, in source order."""
    lines = find(tree, cst.SimpleStatementLine)
    return list(dict.fromkeys(assigned[0] for line in lines if (assigned := assignment(line))))


def with_names(tree: Node, names: Mapping[str, str]) -> Node:
    """Return ``tree`` with expressions in place of names; attributes and keywords of the same name stay."""
    skipped = {attribute.attr for attribute in find(tree, cst.Attribute)}
    skipped |= {arg.keyword for arg in find(tree, cst.Arg) if arg.keyword}
    edits: dict[cst.CSTNode, Replacement] = {
        name: expression(names[name.value])
        for name in find(tree, cst.Name)
        if name.value in names and name not in skipped
    }
    return edits[tree] if tree in edits else replace(tree, edits)  # type: ignore[return-value]


def after_imports(module: cst.Module, source: str) -> cst.Module:
    """Return ``module`` with the statements of ``source`` behind its last import."""
    imports = [i for i, node in enumerate(module.body) if isinstance(node, cst.SimpleStatementLine) and _imports(node)]
    end = 1 + max(imports, default=-1)
    return module.with_changes(body=[*module.body[:end], *statements(source), *module.body[end:]])


def _imports(line: cst.SimpleStatementLine) -> bool:
    return isinstance(line.body[0], cst.Import | cst.ImportFrom)


def definition(tree: cst.CSTNode, name: str) -> cst.BaseExpression | None:
    """Return the value of the only assignment to ``name``, or None when there is none or another."""
    found = assignments(tree, name)
    return found[0] if len(found) == 1 else None


def keyword(call: cst.Call, name: str) -> cst.Arg | None:
    """Return the argument that ``call`` passes by the keyword ``name``."""
    return next((arg for arg in call.args if arg.keyword and arg.keyword.value == name), None)


def with_keyword(call: cst.Call, name: str, value: str | None) -> cst.Call:
    """Return ``call`` with the keyword ``name`` set to the expression ``value``, or without it for None."""
    old = keyword(call, name)
    if value is None:
        return with_arguments(call, [arg for arg in call.args if arg is not old])
    if old:
        return with_arguments(
            call, [arg.with_changes(value=expression(value)) if arg is old else arg for arg in call.args]
        )
    return with_arguments(call, [*call.args, keyword_argument(name, value)])


def keyword_argument(name: str, value: str) -> cst.Arg:
    """Return the argument ``name=value``."""
    tight = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))
    return cst.Arg(expression(value), keyword=cst.Name(name), equal=tight)


def with_arguments(call: cst.Call, args: Sequence[cst.Arg]) -> cst.Call:
    """Return ``call`` with ``args``, laid out as the old ones were."""
    return call.with_changes(args=_laid_out(call.args, args))


def with_parameters(
    function: cst.FunctionDef, added: Sequence[str], *, constant: bool = False, language: str = "tl"
) -> cst.FunctionDef:
    """Return ``function`` with parameters named ``added`` at the end, laid out as the old ones are.

    ``constant`` ones are known at compile time.
    """
    old = function.params.params
    kind = cst.Annotation(expression(f"{language}.constexpr")) if constant else None
    new = _laid_out(old, [*old, *(cst.Param(cst.Name(name), annotation=kind) for name in added)])
    return function.with_changes(params=function.params.with_changes(params=new))


def _laid_out(old: Sequence[Item], new: Sequence[Item]) -> list[Item]:
    """Return ``new`` with the commas, and the line breaks they carry, of ``old``."""
    tight = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
    inner = old[0].comma if len(old) > 1 else tight
    last = old[-1].comma if old else cst.MaybeSentinel.DEFAULT
    laid_out = [item.with_changes(comma=inner) if item is old[-1] or item not in old else item for item in new]
    if laid_out:
        laid_out[-1] = laid_out[-1].with_changes(comma=last)
    return laid_out


def integer(node: cst.CSTNode | None) -> int | None:
    """Return the value of an integer literal."""
    return node.evaluated_value if isinstance(node, cst.Integer) else None
