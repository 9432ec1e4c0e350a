"""Edits of a source by exact passages, as a model writes them."""

import ast
import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product

from avo.agents.tools.arguments import MOST_SOURCE_CHARS, BadCall, EditSource, TryVariants, Variant

_ALIKE = 0.5
"""Least share of characters in common for a passage to be pointed out as the one that was meant."""
_MOST_SHOWN = 2000
"""Most characters of a passage that is pointed out."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage that is to be replaced."""

    old: str
    new: str
    everywhere: bool = False
    """Whether it may occur more than once."""
    whole: bool = False
    """Whether ``old`` and ``new`` are whole lines, which end in a line end each."""
    parameter: bool = False
    """Whether ``old`` is a name, and each literal that it is set to becomes ``new``."""


def edited(source: str, passages: Iterable[Passage]) -> str:
    """Return ``source`` with passages replaced, one after the other; raise ``BadCall`` for one that does not fit."""
    passages = list(passages)
    source = _assigned(source, {each.old: each.new for each in passages if each.parameter})
    for passage in (each for each in passages if not each.parameter):
        searched = source if source.endswith("\n") or not passage.whole else f"{source}\n"
        found = re.compile(f"(?m:^){re.escape(passage.old)}" if passage.whole else re.escape(passage.old))
        count = len(found.findall(searched))
        if count == 0:
            raise BadCall(f"the passage does not occur: copy it exactly. {nearest(source, passage.old)}")
        if count > 1 and not passage.everywhere:
            raise BadCall(f"the passage occurs {count} times: give more of its surroundings, or everywhere: true")
        made = found.sub(lambda match, new=passage.new: new, searched)  # type: ignore[misc]
        source = made if searched == source else made.removesuffix("\n")
    if len(source) > MOST_SOURCE_CHARS:
        raise BadCall(f"the source would have {len(source)} characters, the limit is {MOST_SOURCE_CHARS}")
    return source


def passages(asked: EditSource | Variant) -> Iterator[Passage]:
    """Yield what a call replaces; raise ``BadCall`` for a patch that is none."""
    if isinstance(asked, EditSource) and asked.old is not None and asked.new is not None:
        yield Passage(asked.old, asked.new, asked.everywhere)
    yield from (Passage(each.old, each.new, each.everywhere) for each in asked.edits)
    if asked.patch:
        yield from _hunks(asked.patch)


def variants_of(asked: TryVariants) -> Iterator[tuple[str, Callable[[], Iterable[Passage]]]]:
    """Yield the name of each variant, and what returns its passages."""
    for each in asked.variants:
        yield each.name, partial(passages, each)
    names = [each.name for each in asked.grid]
    for values in product(*(each.values for each in asked.grid)) if names else ():
        chosen = list(zip(names, values, strict=True))
        made = tuple(Passage(name, value, parameter=True) for name, value in chosen)
        yield ", ".join(f"{name} {value}" for name, value in chosen), partial(iter, made)


def _hunks(patch: str) -> Iterator[Passage]:
    """Yield the hunks of a unified diff as passages, whatever their line numbers say; raise ``BadCall`` for a text that
    is none.
    """
    hunks = re.split(r"^@@.*\n?", patch.strip("\n"), flags=re.MULTILINE)[1:]
    if not hunks:
        raise BadCall("the patch has no hunk: lines that begin with @@, then lines that begin with a blank, - or +")
    for number, hunk in enumerate(hunks, 1):
        lines = [line for line in hunk.rstrip("\n").split("\n") if not line.startswith("\\")]
        if wrong := next((line for line in lines if line and line[0] not in " -+"), ""):
            raise BadCall(f"hunk {number} of the patch has a line that begins with none of blank, - and +: {wrong!r}")
        old, new = ("".join(f"{line[1:]}\n" for line in lines if line[:1] != other) for other in "+-")
        if not old.strip("\n"):
            raise BadCall(f"hunk {number} of the patch has no line of the source: give one around what is added")
        yield Passage(old, new, whole=True)


def _assigned(source: str, values: Mapping[str, str]) -> str:
    """Return ``source`` with other literals for parameters: ``BLOCK_N = 64``, ``M, N = 128, 64``, ``num_stages=3``,
    ``"WAYS": 2``, or for the variable that a call passes for one; raise ``BadCall``.
    """
    if not values:
        return source
    try:
        given = list(_given(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadCall(f"the source does not parse: {error}") from None
    text = source.encode()
    starts = [0, *(end.end() for end in re.finditer(b"\n", text))]
    places = dict[tuple[int, int], str]()
    for name, value in values.items():
        passed = {value.id for other, value in given if other == name and isinstance(value, ast.Name)}
        found = [value for other, value in given if other in {name, *passed} and isinstance(value, ast.Constant)]
        literals = sorted({repr(each.value) for each in found})
        if len(literals) != 1:
            why = f"{name} is set to {' and to '.join(literals)}" if literals else f"nothing sets {name} to a literal"
            raise BadCall(f"{why}: use edits")
        for each in found:
            place = (
                starts[each.lineno - 1] + each.col_offset,
                starts[(each.end_lineno or 1) - 1] + (each.end_col_offset or 0),
            )
            if places.setdefault(place, value) != value:
                raise BadCall(f"{name} and another parameter are set by one variable: use edits")
    for (start, stop), value in sorted(places.items(), reverse=True):
        text = text[:start] + value.encode() + text[stop:]
    return text.decode()


def _given(module: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Yield each name that is given a value, by assignment, keyword or key of a dictionary, and the value."""
    for node in ast.walk(module):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            pairs = [(target, node.value) for target in targets]
            for target, value in pairs:
                if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                    pairs += zip(target.elts, value.elts, strict=False)
                elif isinstance(target, ast.Name):
                    yield target.id, value
        elif isinstance(node, ast.keyword) and node.arg is not None:
            yield node.arg, node.value
        elif isinstance(node, ast.Dict):
            yield from (
                (key.value, value)
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant) and isinstance(key.value, str)
            )


def function_lines(source: str, name: str) -> tuple[int, int]:
    """Return the first and last line of a function with its decorators; raise ``BadCall`` where there is none."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadCall(f"the source does not parse ({error}): ask for lines by first and last") from None
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    if (found := next((each for each in functions if each.name == name), None)) is None:
        known = ", ".join(each.name for each in functions) or "none"
        raise BadCall(f"there is no function {name!r:.80}: those of the working source are {known}")
    return min(node.lineno for node in (found, *found.decorator_list)), found.end_lineno or found.lineno


def changed_lines(old: str, new: str) -> tuple[int, int, str]:
    """Return how many lines a source has lost and gained, and where: ``line 12 (-1 +1), lines 40 to 44 (-3 +5)``."""
    matcher = difflib.SequenceMatcher(None, old.splitlines(), new.splitlines(), autojunk=False)
    edits = [(i2 - i1, j1 + 1, j2 - j1) for kind, i1, i2, j1, j2 in matcher.get_opcodes() if kind != "equal"]
    places = [
        f"line{f's {first} to' if gained > 1 else ''} {first + max(gained - 1, 0)} (-{lost} +{gained})"
        for lost, first, gained in edits
    ]
    return sum(lost for lost, _, _ in edits), sum(gained for _, _, gained in edits), ", ".join(places)


def difference(old: str, new: str, old_name: str, new_name: str) -> str:
    """Return the unified diff of two sources."""
    return "\n".join(difflib.unified_diff(old.splitlines(), new.splitlines(), old_name, new_name, lineterm="", n=2))


def nearest(source: str, passage: str) -> str:
    """Return the lines of ``source`` that are most like ``passage``, which does not occur."""
    wanted, lines = passage.strip("\n").splitlines(), source.splitlines()
    starts = range(max(1, len(lines) - len(wanted) + 1))
    blocks = {"\n".join(lines[start : start + len(wanted)]): start + 1 for start in reversed(starts)}
    near = difflib.get_close_matches("\n".join(wanted), blocks, n=1, cutoff=_ALIKE)
    if not wanted or not near or len(near[0]) > _MOST_SHOWN:
        return "See view_source."
    first, last = blocks[near[0]], blocks[near[0]] + len(wanted) - 1
    if first == last:
        return f"Nearest is line {first}: {near[0]!r}"
    return f"Nearest are lines {first} to {last}:\n{near[0]}"
