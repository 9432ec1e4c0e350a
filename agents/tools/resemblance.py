"""Near-duplicates: the earlier attempt that a candidate resembles by its syntax tree, and what that one scored.

The answer tells, and refuses nothing: a small difference may be the whole gain. To refuse, runs on record would have to
show that of the candidates refused under a threshold less than one in a hundred was a gain, and none was counted yet.
"""

import ast
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from avo.agents.operator import Brief
from avo.agents.tools.tables import short, verdict
from avo.agents.tools.workbench import Workbench
from avo.lineage_db.records import Attempt

NEAR = 0.9
"""Least similarity that is told. A statement more in a kernel of 100 lines leaves about 0.98."""
_MOST = 200
"""Number of the latest attempts that are compared."""
_GRAM = 5
"""Length of the runs of tokens that two trees are compared by."""
_KEPT = 2_000
"""Most trees that a process keeps, a few KiB each."""


@dataclass(frozen=True, slots=True)
class Tree:
    """The normalised syntax tree of a source: without docstrings, comments, layout and the names of local variables.

    Names of functions, parameters and constants stay. A local variable is called by how it is bound first.
    """

    grams: npt.NDArray[np.int64] = field(repr=False)
    """Hashes of all runs of ``_GRAM`` tokens, sorted and each once: the number of its occurrence counts too."""
    whole: int
    """Hash of all tokens."""
    skeleton: int
    """The same without numbers, which parameter variants have in common."""

    def similarity(self, other: "Tree") -> float:
        """Return the share of runs of tokens that two trees have in common, of all that one of them has, 0 to 1."""
        common = len(np.intersect1d(self.grams, other.grams, assume_unique=True))
        return common / max(1, len(self.grams) + len(other.grams) - common)


def tree_of(source: str) -> Tree | None:
    """Return the normalised tree of a source; None for one that does not parse."""
    try:
        module = ast.parse(source)
        tokens, skeleton = _tokens(module, numbers=True), _tokens(module, numbers=False)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    runs = [tuple(tokens[place : place + _GRAM]) for place in range(max(1, len(tokens) - _GRAM + 1))]
    counted = Counter[tuple[str, ...]]()
    hashes = set[int]()
    for each in runs:
        hashes.add(hash((each, counted[each])))
        counted[each] += 1
    return Tree(np.array(sorted(hashes), dtype=np.int64), hash(tuple(tokens)), hash(tuple(skeleton)))


_trees: dict[str, Tree | None] = {}
"""Trees by digest of the candidate, oldest first: attempts are compared again in every step."""


def resembled(brief: Brief, bench: Workbench, source: str, parents: Sequence[int], built_on: int | None) -> str:
    """Return in a sentence which earlier attempt or version a candidate resembles, and what that one scored.

    It is one that has the same tree, or the most similar one that is nearer than what the candidate was edited from.
    That is the attempt ``built_on``, or the first of the ``parents``. A parameter variant, which differs in numbers
    alone, is never told. Empty where there is none.
    """
    mine, digest = tree_of(source), brief.candidate(source).digest
    if mine is None:
        return ""
    versions = {version.attempt.id: version for version in brief.versions}
    base = built_on
    if base is None:
        base = next((each.attempt_id for each in brief.attempts if each.version == parents[0]), None)
    digests = {attempt.attempt_id: attempt.digest for attempt in brief.attempts[-_MOST:]}
    digests |= {number: version.attempt.digest for number, version in versions.items()}
    ids = dict.fromkeys((*digests, *(each.attempt_id for each in bench.attempts), *(() if base is None else (base,))))

    def attempt(number: int) -> Attempt:
        return versions[number].attempt if number in versions else brief.desk.attempt(number)

    near: dict[int, float] = {}
    for number in ids:
        known = digests.get(number) or attempt(number).digest
        if known not in _trees:
            while len(_trees) >= _KEPT:
                _trees.pop(next(iter(_trees)), None)
            _trees[known] = tree_of(attempt(number).source)
        theirs = _trees.get(known)
        if theirs is None or known == digest:
            continue
        if theirs.whole == mine.whole:
            return _told(attempt(number), "has the same syntax tree as")
        near[number] = mine.similarity(theirs)
        if theirs.skeleton == mine.skeleton and number != base:
            del near[number]
    of_base = near.pop(base, 1.0) if base is not None else 1.0
    number = max(near, key=lambda each: near[each], default=None)
    if number is None or near[number] < NEAR or near[number] <= of_base:
        return ""
    share = f"{near[number]:.1%}".replace("100.0%", "99.9%")
    return _told(attempt(number), f"resembles, with {share} of the syntax tree in common,")


def _told(attempt: Attempt, how: str) -> str:
    decided = f"; {attempt.decision.told}" if attempt.decision and attempt.decision.refused else ""
    found = f"{verdict(attempt.evaluation, {})}{decided}"
    return f"this {how} attempt {attempt.id}: {short(found, 200)} [{short(attempt.change, 120)}]"


def _tokens(module: ast.Module, numbers: bool) -> list[str]:
    """Return a token for each node of a tree, outer ones first; ``numbers``: whether these have their values."""
    tokens: list[str] = []
    for node in module.body:
        bound = _bound(node, numbers) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else {}
        _walk(node, bound, numbers, tokens)
    return tokens


def _walk(node: ast.AST, bound: Mapping[str, str], numbers: bool, tokens: list[str]) -> None:
    """Append the tokens of a node and all below it."""
    kind = type(node).__name__
    match node:
        case ast.Name(id=name):
            tokens.append(bound.get(name, name))
            return
        case ast.Constant(value=value):
            tokens.append("#" if isinstance(value, int | float | complex) and not numbers else repr(value))
            return
        case ast.expr_context() | ast.Expr(value=ast.Constant(value=str())):  # a docstring, or a comment as a text
            return
        case ast.Attribute(attr=name) | ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.alias(name=name):
            tokens.append(f"{kind} {name}")
        case ast.arg(arg=name) | ast.keyword(arg=name):
            tokens.append(f"{kind} {name}")
        case _:
            tokens.append(kind)
    for child in ast.iter_child_nodes(node):
        _walk(child, bound, numbers, tokens)
    if isinstance(node, ast.stmt):
        tokens.append("end")


def _bound(function: ast.AST, numbers: bool) -> Mapping[str, str]:
    """Return what the local variables of a function are called: by what each is bound to first, other variables left
    out. Parameters and names in capitals, which are constants, keep theirs.
    """
    first: dict[str, tuple[str, ast.expr]] = {}
    parameters = {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)}
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=targets, value=value):
                pairs = [(target, value) for target in targets]
            case ast.AnnAssign(target=target, value=ast.expr() as value) | ast.NamedExpr(target=target, value=value):
                pairs = [(target, value)]
            case ast.For(target=target, iter=value) | ast.comprehension(target=target, iter=value):
                pairs = [(target, value)]
            case _:
                continue
        for target, value in pairs:
            for place, name in enumerate(_names(target)):
                if name not in parameters and not name.isupper():
                    first.setdefault(name, (f"{type(node).__name__} {place}", value))
    anonymous, called = dict.fromkeys(first, "a variable"), {}
    for name, (how, value) in first.items():
        _walk(value, anonymous, numbers, tokens := [how])
        called[name] = " ".join(tokens)
    return called


def _names(target: ast.expr) -> Sequence[str]:
    return [node.id for node in ast.walk(target) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
