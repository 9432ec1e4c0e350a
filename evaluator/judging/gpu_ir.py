"""Triton GPU IR rewritten as Triton IR, to count the work of a kernel that only a GPU can run.

Layouts are dropped, products and copies become Triton's own, and barriers go. What a kernel reads from shared or tensor
memory is left open: it may be any value, so it must not decide how often a loop runs.

The text must be as MLIR prints it, one operation a line: see ``Compiler.canonical``.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from avo.evaluator.executor import UnsupportedOperation
from avo.evaluator.executor.effects import EFFECTS, READS, WRITES
from avo.evaluator.locations import without_locations
from avo.evaluator.work import ALL_ROLES

OPEN = "%open"
"""The last parameter: a pointer to bytes that stand for what is left open."""

_STRING_OR_VALUE = re.compile(r'"(?:[^"\\]|\\.)*"|%[\w$.\-]+(?:#\d+)?')
_VALUE = re.compile(r"%[\w$.\-]+(?:#\d+)?")
_OP = re.compile(r'(?:(%[^=]*?) = )?("?)([a-z_]\w*(?:\.\w+)+)"?(.*)')
_FUNCTION = re.compile(
    r"tt\.func public (@.+?)\((.*)\) attributes \{(?:allocation\.offset = \d+ : i32, )?noinline = false\} \{"
)
_FOR = re.compile(r"(unsigned )?(%\S+) = (.+? to .+? step \S+)(?: iter_args\((.*?)\) -> \((.*)\))?\s*: (\w+) \{")
_WHILE = re.compile(r"(?:\((.*?)\) )?: \((.*?)\) -> (?:\((.*)\)|(.+)) \{")
_IF = re.compile(r"(%\S+)(?: -> \((.*)\))? \{")
_SPECIALISED = re.compile(r"\((.*?)\).*")
_PARTITION = re.compile(r"partition\d+\((.*)\) num_warps\(\d+\) \{")
_TYPED_NAME = re.compile(r"(%[\w$.\-]+): ")
_BLOCK = re.compile(r"(?:tensor|memdesc)<((?:\d+x)+)([a-z]\w*)")
_SHARED_BLOCK = re.compile(r"memdesc<((?:\d+x)+)([a-z]\w*)")
_LAYOUT = re.compile(r",\s*#[\w.]+")
_ELEMENT = re.compile(r"i\d+|bf16|f\d\w*")

_SAME_VALUE = ("ttg.convert_layout", "ttng.warp_group_dot_wait")
_KEPT = ("arith", "math", "tt")
"""Dialects whose operations are Triton IR."""
_LEFT_OUT = ("ttg", "ttng", "gpu", "ub")
"""Dialects whose operations go; what they give is left open."""
_REFUSED = ("tt.call", "ttng.tc_gen5_mma_scaled")
_ON_CHIP = frozenset(name for name, row in EFFECTS.items() if row.on_chip)
_LOADS, _STORES = _ON_CHIP & READS, _ON_CHIP & WRITES
_PRODUCTS = frozenset(name for name in _ON_CHIP if EFFECTS[name].work == "dot").difference(_REFUSED)


@dataclass(frozen=True)
class Rewritten:
    """A kernel as Triton IR."""

    text: str
    lines: tuple[int, ...]
    """For each line the one of the kernel's own text that it stands for, both counted from 1; 0 for what was added."""
    roles: tuple[int, ...]
    """For each loop the partition of a warp-specialised region that it is in: see ``Counted.roles``."""


@lru_cache(maxsize=64)
def rewrite(ttgir: str) -> Rewritten:
    """Return the kernel as Triton IR, with the parameter ``OPEN`` after its own.

    Raises ``UnsupportedOperation`` for what has no counterpart there.
    """
    lines = map(str.strip, without_layouts(without_locations(ttgir)).splitlines())
    kept = {number: line for number, line in enumerate(lines, 1) if line and not line.startswith(("#", "//"))}
    return _Rewriter(list(kept.values()), list(kept)).module()


class _Rewriter:
    def __init__(self, lines: Sequence[str], numbers: Sequence[int]) -> None:
        """``numbers`` has where in the text the lines are."""
        self._lines = lines
        self._numbers = numbers
        self._at = 0
        self._out: list[str] = []
        self._stands_for: list[int] = []
        self._names: dict[str, str] = {}
        """What each value is called in the new text; those that are left out are missing."""
        self._made = 0
        self._elements: dict[str, None] = {}
        self._handed: list[str | None] = []
        """What the default region of a warp-specialised one hands on."""
        self._role = 0
        self._roles: list[int] = []
        self._around: list[int] = []  # the loops that are open

    def module(self) -> Rewritten:
        functions = [line for line in self._lines if line.startswith("tt.func")]
        match = _FUNCTION.fullmatch(functions[0]) if len(functions) == 1 else None
        if match is None:
            raise _unsupported("a module that is not one public function")
        self._names = {name: name for name in _TYPED_NAME.findall(match[2])}
        self._at = self._lines.index(functions[0]) + 1
        self._region()
        opened = [
            line
            for element in self._elements
            for line in (
                f"{OPEN}_{element}_at = tt.bitcast {OPEN} : !tt.ptr<i8> -> !tt.ptr<{element}>",
                f"{OPEN}_{element} = tt.load {OPEN}_{element}_at : !tt.ptr<{element}>",
            )
        ]
        parameters = f"{match[2]}, {OPEN}: !tt.ptr<i8>".removeprefix(", ")
        header = f"tt.func public {match[1]}({parameters}) attributes {{noinline = false}} {{"
        made = ["module {", header, *opened]
        numbers = (*[0] * len(made), *self._stands_for, 0, 0)
        return Rewritten("\n".join([*made, *self._out, "}", "}", ""]), numbers, tuple(self._roles))

    def _next(self) -> str:
        if self._at == len(self._lines):
            raise _unsupported("a region that is never closed")
        self._at += 1
        return self._lines[self._at - 1]

    def _region(self, yielded: Sequence[bool] = (), forwarded: Sequence[bool] = ()) -> str:
        """Rewrite up to the line that closes a region and return that; say which values its end hands on."""
        while not (line := self._next()).startswith("}"):
            match = _OP.fullmatch(line)
            if match is None:
                raise _unsupported(line.partition(" ")[0])
            results, quote, name, rest = match[1] or "", match[2], match[3], match[4].strip()
            if name == "scf.yield":
                self._hand_on(name, rest, yielded)
            elif name == "scf.condition":
                condition, _, values = rest.partition(")")
                self._hand_on(f"{name}{self._renamed(condition)})", values.strip(), forwarded)
            else:
                self._op(results, f"{quote}{name}{quote}", name, rest)
        return line

    def _op(self, results: str, quoted: str, name: str, rest: str) -> None:
        dialect = name.partition(".")[0]
        if name == "scf.for":
            self._for(results, rest)
        elif name == "scf.while":
            self._while(results, rest)
        elif name == "scf.if":
            self._if(results, rest)
        elif name == "ttg.warp_specialize":
            self._specialised(results, rest)
        elif name == "ttg.warp_yield":
            values, _, kinds = rest.partition(" : ")
            pairs = zip(_VALUE.findall(values), _split_types(kinds), strict=True)
            self._handed = [self._renamed(value) if _kept_type(kind) else None for value, kind in pairs]
        elif rest.endswith("({") and dialect == "tt":
            self._combining(results, quoted + rest)
        elif name in _SAME_VALUE:
            pairs = zip(_result_names(results), _VALUE.findall(rest), strict=False)
            self._names.update((result, self._renamed(value)) for result, value in pairs)
        elif name in _PRODUCTS:
            self._product(results, rest)
        elif name in _LOADS or name in _STORES:
            self._copy(rest, store=name in _STORES)
        elif name in _REFUSED or rest.endswith("{") or dialect not in (*_KEPT, *_LEFT_OUT):
            raise _unsupported(name)
        elif dialect in _KEPT and name != "tt.elementwise_inline_asm":
            text = self._renamed(rest)
            self._emit(f"{self._define(results)}{name} {text}")
        else:
            kinds = rest.rpartition("->" if "->" in rest else " : ")[2]
            pairs = zip(_result_names(results), _split_types(kinds), strict=False)
            self._names.update((result, self._open(kind)) for result, kind in pairs if _kept_type(kind))

    def _for(self, results: str, rest: str) -> None:
        unsigned, variable, limits, bindings, carried, kind = _matched(_FOR, rest, "scf.for").groups()
        kinds = _split_types(carried or "")
        kept = list(map(_kept_type, kinds))
        header = f"{self._define(results, kept)}scf.for {unsigned or ''}"
        limits, initial = self._renamed(limits), self._bound(bindings, kept)
        header += f"{self._fresh(variable)} = {limits}"
        if any(kept):
            header += f" iter_args({self._bind(bindings, initial, kept)}) -> ({_listed(kinds, kept)})"
        self._enter()
        self._emit(f"{header} : {kind} {{")
        self._region(kept)
        self._emit("}")
        self._around.pop()

    def _while(self, results: str, rest: str) -> None:
        bindings, before, several, one = _matched(_WHILE, rest, "scf.while").groups()
        kinds, given = _split_types(before), _split_types(several if one is None else one)
        kept, forwarded = list(map(_kept_type, kinds)), list(map(_kept_type, given))
        header = f"{self._define(results, forwarded)}scf.while "
        if any(kept):
            header += f"({self._bind(bindings, self._bound(bindings, kept), kept)}) "
        self._enter()
        self._emit(f"{header}: ({_listed(kinds, kept)}) -> ({_listed(given, forwarded)}) {{")
        self._region((), forwarded)
        self._emit("} do {")
        if self._lines[self._at].startswith("^bb0"):
            names = _keep(_TYPED_NAME.findall(self._next()), forwarded)
            pairs = zip(map(self._fresh, names), _keep(given, forwarded), strict=True)
            if names:
                self._emit(f"^bb0({', '.join(f'{name}: {kind}' for name, kind in pairs)}):")
        self._region(kept)
        self._emit("}")
        self._around.pop()

    def _enter(self) -> None:
        """Note that a loop begins."""
        self._around.append(len(self._roles))
        self._roles.append(self._role)

    def _if(self, results: str, rest: str) -> None:
        condition, given = _matched(_IF, rest, "scf.if").groups()
        kinds = _split_types(given or "")
        kept = list(map(_kept_type, kinds))
        gives = f" -> ({_listed(kinds, kept)})" if any(kept) else ""
        self._emit(f"{self._define(results, kept)}scf.if {self._renamed(condition)}{gives} {{")
        while self._region(kept) == "} else {":
            self._emit("} else {")
        self._emit("}")

    def _specialised(self, results: str, rest: str) -> None:
        captured = _VALUE.findall(_matched(_SPECIALISED, rest, "ttg.warp_specialize")[1])
        outer = dict(self._names)
        for loop in self._around:
            self._roles[loop] = ALL_ROLES
        line = self._next()
        if line != "default {":
            raise _unsupported(f"ttg.warp_specialize written as {line[:60]!r}")
        while self._region() == "}":  # the type is printed after the last region
            line = self._next()
            self._role += 1
            params = _TYPED_NAME.findall(_matched(_PARTITION, line, "ttg.warp_specialize")[1])
            self._names = {param: outer[value] for param, value in zip(params, captured, strict=True) if value in outer}
        self._role = 0
        given = {name: value for name, value in zip(_result_names(results), self._handed, strict=True) if value}
        self._names = {**outer, **given}

    def _combining(self, results: str, header: str) -> None:
        """Copy an operation with a region of scalar operations."""
        header = self._renamed(header)
        self._emit(f"{self._define(results)}{header}")
        while not (line := self._next()).startswith("}"):
            if line.startswith("^bb0"):
                for name in _TYPED_NAME.findall(line):
                    self._fresh(name)
                self._emit(self._renamed(line))
            else:
                match = _matched(_OP, line, "a combining region")
                self._op(match[1] or "", match[3], match[3], match[4].strip())
        self._emit(line)

    def _product(self, results: str, rest: str) -> None:
        left, right, result = (
            f"tensor<{shape}{element}>" for shape, element in _BLOCK.findall(rest.rpartition(" : ")[2])[:3]
        )
        operands = ", ".join(map(self._open, (left, right, result)))
        product = self._fresh(results)
        self._emit(f"{product} = tt.dot {operands} : {left} * {right} -> {result}")

    def _copy(self, rest: str, *, store: bool) -> None:
        """Move as many bytes as the block in shared memory has."""
        shape, element = _SHARED_BLOCK.findall(rest)[-1]
        value = self._open(f"tensor<{shape}{element}>")
        pointers, kind = self._fresh(""), f"tensor<{shape}!tt.ptr<{element}>>"
        self._emit(f"{pointers} = tt.splat {OPEN}_{element}_at : !tt.ptr<{element}> -> {kind}")
        self._emit(
            f"tt.store {pointers}, {value} : {kind}" if store else f"{self._fresh('')} = tt.load {pointers} : {kind}"
        )

    def _open(self, kind: str) -> str:
        """Return a value of a type that may be anything."""
        block = _BLOCK.fullmatch(kind.removesuffix(">"))
        element = block[2] if block else kind
        if _ELEMENT.fullmatch(element) is None:
            raise _unsupported(f"a value of type {kind} out of shared memory")
        self._elements[element] = None
        if block is None:
            return f"{OPEN}_{element}"
        name = self._fresh("")
        self._emit(f"{name} = tt.splat {OPEN}_{element} : {element} -> {kind}")
        return name

    def _hand_on(self, name: str, rest: str, kept: Sequence[bool]) -> None:
        values, _, kinds = rest.partition(" : ")
        handed = [self._renamed(value) for value in _keep(_VALUE.findall(values), kept)]
        self._emit(f"{name} {', '.join(handed)} : {_listed(_split_types(kinds), kept)}" if handed else name)

    def _bound(self, bindings: str | None, kept: Sequence[bool]) -> list[str]:
        """Return the initial values of ``%a = %x, %b = %y``."""
        return [self._renamed(value) for value in _keep(_VALUE.findall(bindings or "")[1::2], kept)]

    def _bind(self, bindings: str | None, initial: Sequence[str], kept: Sequence[bool]) -> str:
        names = map(self._fresh, _keep(_VALUE.findall(bindings or "")[::2], kept))
        return ", ".join(f"{name} = {value}" for name, value in zip(names, initial, strict=True))

    def _define(self, results: str, kept: Sequence[bool] | None = None) -> str:
        """Return the left side of an operation that gives those of its results that are kept, by default all."""
        names = _result_names(results)
        names = names if kept is None else _keep(names, kept)
        if not names:
            return ""
        base = self._fresh(names[0])
        if len(names) == 1:
            return f"{base} = "
        self._names.update((name, f"{base}#{i}") for i, name in enumerate(names))
        return f"{base}:{len(names)} = "

    def _fresh(self, name: str) -> str:
        """Return a new name, for the value ``name`` if that is not empty."""
        self._made += 1
        if name:
            self._names[name] = f"%v{self._made}"
        return f"%v{self._made}"

    def _renamed(self, text: str) -> str:
        def rename(match: re.Match[str]) -> str:
            if match[0].startswith('"'):
                return match[0]
            if match[0] not in self._names:
                raise _unsupported(f"arithmetic on {match[0]}, which is neither a number nor a tensor")
            return self._names[match[0]]

        return _STRING_OR_VALUE.sub(rename, text)

    def _emit(self, line: str) -> None:
        self._out.append(line)
        self._stands_for.append(self._numbers[self._at - 1])


def without_layouts(text: str) -> str:
    """Return IR text without the layouts in its types."""
    kept = []
    position = 0
    for match in _LAYOUT.finditer(text):
        if match.start() >= position:
            kept.append(text[position : match.start()])
            position = match.end()
            depth = 0
            while depth or text[position : position + 1] == "<":
                depth += (text[position : position + 1] == "<") - (text[position : position + 1] == ">")
                position += 1
                if position > len(text):
                    raise _unsupported("a layout that is never closed")
    return "".join(kept) + text[position:]


def _unsupported(what: str) -> UnsupportedOperation:
    """Return the error for what cannot be read or rewritten."""
    return UnsupportedOperation(what, "Triton GPU IR")


def _matched(pattern: re.Pattern[str], text: str, name: str) -> re.Match[str]:
    """Return the match with all of ``text``, written for ``name``; raise ``UnsupportedOperation`` if there is none."""
    match = pattern.fullmatch(text)
    if match is None:
        raise _unsupported(f"{name} written as {text[:60]!r}")
    return match


def _result_names(results: str) -> list[str]:
    """Return the names that ``%a:2, %b`` defines."""
    names = []
    for item in results.split(", ") if results else ():
        base, _, count = item.partition(":")
        names += [f"{base}#{i}" for i in range(int(count))] if count else [base]
    return names


def _split_types(text: str) -> list[str]:
    """Split a list of types at the commas that are not inside one."""
    depth = 0
    parts = [""]
    for char in text.strip().removeprefix("(").removesuffix(")"):
        depth += (char == "<") - (char == ">")
        if char == "," and not depth:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts if part.strip()]


def _kept_type(kind: str) -> bool:
    """Whether Triton IR has the type."""
    return not kind.startswith(("!ttg.", "!ttng."))


def _keep(items: Iterable[str], kept: Sequence[bool]) -> list[str]:
    """Return the items whose place is kept."""
    return [item for item, keep in zip(items, kept, strict=True) if keep]


def _listed(kinds: Iterable[str], kept: Sequence[bool]) -> str:
    """Return the kept types as a list in the text."""
    return ", ".join(_keep(kinds, kept))
