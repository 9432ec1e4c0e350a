"""Parses the text of Triton IR. Private functions are expanded at each call, so a kernel is one tree."""

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

from avo.evaluator.executor.errors import IRError, UnsupportedOperation
from avo.evaluator.executor.ir import ALLOCATIONS, COMBINING, Block, Function, Op, Region, Type
from avo.evaluator.executor.lexer import Parts, split, tokens
from avo.evaluator.executor.module import MODULE, check_module
from avo.evaluator.executor.result_types import result_types
from avo.evaluator.executor.signature import FUNCTION, divisor, promises, signature, typed_names
from avo.evaluator.locations import Locations, split_locations

MAX_OPS = 200_000
"""Operations of one kernel after expansion of calls; a bound on hostile text."""
MAX_DEPTH = 64
"""Nesting of regions and calls; a bound on hostile text."""

_OP = re.compile(r'(?:(%[^=]*?) = )?"?([a-z_]\w*(?:\.\w+)+)"?(.*)', re.DOTALL)
_RESULT = re.compile(r"(%[\w$.\-]+)(?::(\d+))?")
_QUOTED_OR_COMMENT = re.compile(r'"(?:[^"\\]|\\.)*"|// ')
_LAYOUT = re.compile(r"(#\w+) = (#.*)")
_LAYOUT_NAME = re.compile(r"#\w+(?![\w.])")
_PARTITION = re.compile(r"partition\d+\((.*)\) num_warps\((\d+)\) \{")
_DOTTED = re.compile(r"[a-z_]\w*(?:\.\w+)+")

_LOOPS = ("scf.for", "scf.while")
_BY_REGISTERS = ("tt.elementwise_inline_asm", "tt.map_elementwise", "tt.reshape")
"""Operations that may depend on which registers hold which elements: what they need are the last two layouts."""
_BETWEEN_REGIONS = ("else {", "do {")
_IMPLIED_YIELD = ("scf.if", "scf.for", "scf.while")
"""Operations whose regions are printed without their terminator when it has no operands."""


def parse(text: str, known: Container[str]) -> Function:
    """Parse the public function of a module.

    Raises ``IRError`` when the text is malformed, ``UnsupportedOperation`` for an operation that is not in ``known``.
    """
    return _Parser(text, known).kernel()


@dataclass(frozen=True, slots=True)
class _Head:
    """The first line of an operation."""

    number: int
    """Counted from 1."""
    location: str
    results: str
    name: str
    rest: str
    """What follows the name."""

    @property
    def opens(self) -> bool:
        """Whether a region begins in the next line."""
        return self.rest.endswith("{")


class _Parser:
    def __init__(self, text: str, known: Container[str]) -> None:
        raw = text.splitlines()
        self._locations = Locations(raw)
        pairs = [split_locations(line) for line in raw]
        self._lines = [_without_comment(line).strip() for line, _ in pairs]
        self._places = [location for _, location in pairs]
        named = {match[1]: match[2] for match in map(_LAYOUT.fullmatch, self._lines) if match}
        self._named_layouts = {name: _spelt(layout, named) for name, layout in named.items()}
        for number, line in enumerate(self._lines if named else ()):
            if "!ttg.memdesc<" in line or " tt.dot " in line:
                self._lines[number] = _spelt(line, self._named_layouts)
        self._known = known
        self._types: list[Type] = []
        self._loops = 0
        self._combining = 0
        self._blocks = 0
        self._ops = 0
        self._stack: list[str] = []
        self._functions: dict[str, int] = {}
        self._public: list[str] = []
        self._cluster = 1, False
        self._warps = ""
        """Number of warps of the partition that is being parsed."""
        modules = 0
        for number, line in enumerate(self._lines):
            if match := MODULE.match(line):
                modules += 1
                if modules > 1:
                    raise UnsupportedOperation("nested modules", f"line {number + 1} of the IR")
                self._cluster, self._warps = check_module(match[1] or "", f"line {number + 1} of the IR")
            elif match := FUNCTION.match(line):
                name = match[2].strip('"')
                if name in self._functions:
                    raise IRError(f"the IR has two functions {name!r}")
                self._functions[name] = number
                if match[1] != "private":
                    self._public.append(name)

    def kernel(self) -> Function:
        if len(self._public) != 1:
            raise IRError(f"the IR has {len(self._public)} public functions, not one")
        name = self._public[0]
        divisors = tuple(
            divisor(hints, f"line {self._functions[name] + 1} of the IR")
            for _, _, hints in signature(self._lines[self._functions[name]])
        )
        body = self._function(name, "")
        ctas, paired = self._cluster
        return Function(name, body, tuple(self._types), divisors, self._blocks, ctas=ctas, paired=paired)

    def _function(self, name: str, call: str) -> Region:
        """Parse a function that is called at a place, of which "" stands for the launch. What a private one promises
        of its arguments is a hint on a copy of each, so that it is checked at every call.
        """
        if name in self._stack or len(self._stack) > MAX_DEPTH:
            raise UnsupportedOperation("recursive tt.call", f"function {name}")
        if name not in self._functions:
            raise IRError(f"the IR has no function {name!r}")
        start = self._functions[name]
        names: dict[str, int] = {}
        params = signature(self._lines[start])
        args = tuple(self._define(names, arg, kind) for arg, kind, _ in params)
        copies = []
        for slot, (arg, kind, hints) in zip(args, params, strict=True):
            if call and (promised := promises(hints, kind, f"line {start + 1} of the IR")):
                copies.append(Op("tt.bitcast", (slot,), (self._define(names, arg, kind),), call, attributes=promised))
        self._stack.append(name)
        region, _, _ = self._region("tt.func", start + 1, names, args, 0)
        self._stack.pop()
        entry, *others = region.blocks
        return Region((replace(entry, ops=(*copies, *entry.ops)), *others))

    def _define(self, names: dict[str, int], name: str, kind: Type) -> int:
        self._types.append(kind)
        names[name] = len(self._types) - 1
        return names[name]

    def _block(self, label: str, args: tuple[int, ...], ops: Sequence[Op]) -> Block:
        self._blocks += 1
        return Block(label, args, tuple(ops), self._blocks - 1)

    def _region(
        self, parent: str, line: int, outer: dict[str, int], args: tuple[int, ...], depth: int
    ) -> tuple[Region, str, int]:
        """Parse a region that starts at ``line``; return it, the text after its closing brace, and the next line."""
        if depth > MAX_DEPTH:
            raise IRError(f"regions are nested more than {MAX_DEPTH} deep")
        names = dict(outer)
        blocks: list[Block] = []
        label = ""
        ops: list[Op] = []
        while line < len(self._lines):
            text = self._lines[line]
            if text.startswith("}"):
                if parent in _IMPLIED_YIELD and (not ops or ops[-1].name not in ("scf.yield", "scf.condition")):
                    ops.append(Op("scf.yield", (), (), f"line {line + 1} of the IR"))
                blocks.append(self._block(label, args, ops))
                if not all(block.ops for block in blocks):
                    raise IRError(f"a block before line {line + 1} of the IR is empty")
                return Region(tuple(blocks)), text[1:].strip(), line + 1
            if text.startswith("^"):
                if ops or label:
                    blocks.append(self._block(label, args, ops))
                    ops = []
                label, pairs = _label(text)
                args = args if label == "^bb0" and not pairs else tuple(self._define(names, *pair) for pair in pairs)
                line += 1
            elif text and not text.startswith("#"):
                op, line = self._op(line, names, depth)
                ops.append(op)
            else:
                line += 1
        raise IRError("the IR ends inside a region")

    def _op(self, line: int, names: dict[str, int], depth: int) -> tuple[Op, int]:
        """Parse an operation that starts at ``line``; return it and the next line."""
        head = self._head(line)
        name, number, location, rest = head.name, head.number, head.location, head.rest
        loop = self._loops if name in _LOOPS and not self._combining else None
        self._loops += loop is not None
        parts = _parts(head)
        parts.operands, defined = _values_of_loop(name, parts, number)
        self._note_layouts(head, parts)

        def slots(values: Sequence[str]) -> tuple[int, ...]:
            for value in values:
                if value not in names:
                    raise IRError(f"line {number} of the IR uses {value}, which is not defined before it")
            return tuple(names[value] for value in values)

        operands = slots(parts.operands)
        successors = tuple((label, slots(values)) for label, values in parts.successors)
        regions: list[Region] = []
        line += 1
        if head.opens:
            regions, rest, line = self._regions(head, parts, defined, names, depth)
        if name == "ttg.warp_specialize":
            regions, line = self._partitions(line, operands, names, parts, depth)
            operands *= len(regions) - 1
        if regions:
            location = self._locations.resolve(self._places[line - 1], number)
        if name == "tt.call":
            regions.append(self._function(parts.symbol[1:].strip('"'), location))
        given = _results(head.results)
        parts.attributes.update(self._noted(name, given, rest))
        kinds = result_types(name, parts, len(given), number)
        results = tuple(self._define(names, *pair) for pair in zip(given, kinds, strict=True))
        words, lines = tuple(parts.words), range(number, line + 1)
        op = Op(name, operands, results, location, words, parts.attributes, tuple(regions), successors, loop, lines)
        return op, line

    def _head(self, line: int) -> _Head:
        """Return the first line of an operation that is known."""
        match = _OP.fullmatch(self._lines[line])
        if match is None:
            raise IRError(f"cannot read line {line + 1} of the IR: {self._lines[line][:80]!r}")
        location = self._locations.resolve(self._places[line], line + 1)
        self._ops += 1
        if self._ops > MAX_OPS:
            raise IRError(f"the kernel has more than {MAX_OPS} operations")
        if match[2] not in self._known:
            raise UnsupportedOperation(match[2], location)
        return _Head(line + 1, location, match[1] or "", match[2], match[3].strip())

    def _note_layouts(self, head: _Head, parts: Parts) -> None:
        """Add to the attributes what layouts say: where a cluster's CTAs hold a block, and which products are FMAs."""
        if "registers" in parts.attributes:  # which is the parser's own word
            raise UnsupportedOperation(f"{head.name} with registers", head.location)
        if self._cluster[0] > 1 and (layout := _of_registers(head.rest)):
            parts.attributes["registers"] = layout
        if head.name == "tt.dot":
            if "fma" in parts.attributes:  # which is the parser's own word
                raise UnsupportedOperation("tt.dot with fma", head.location)
            if "#ttg.blocked<" in head.rest and (_layouts(head.rest) or [""])[-1].startswith("#ttg.blocked<"):
                parts.attributes["fma"] = "true"

    def _noted(self, name: str, results: Sequence[str], rest: str) -> dict[str, str]:
        """Return further attributes that are the parser's own words; ``rest`` is the text that has the types."""
        if name in _BY_REGISTERS:
            return {"registers": " -> ".join(_layouts(_spelt(rest, self._named_layouts))[-2:])}
        if name in ALLOCATIONS:
            return {"called": ", ".join(results[:1])}
        return {"warps": self._warps} if name == "ttng.async_copy_mbarrier_arrive" else {}

    def _regions(
        self, head: _Head, parts: Parts, defined: Sequence[str], names: dict[str, int], depth: int
    ) -> tuple[list[Region], str, int]:
        """Parse the regions of an operation, and what follows into ``parts``; return them, the text that follows, and
        the next line. The first region takes the values ``defined``.
        """
        regions: list[Region] = []
        line, rest = head.number, _BETWEEN_REGIONS[0]
        self._combining += head.name in COMBINING
        while rest in _BETWEEN_REGIONS:
            kinds = _types_in_loop(head.name, parts, first=not regions)
            if len(defined) != len(kinds):
                raise IRError(
                    f"line {head.number} of the IR defines {len(defined)} values and gives {len(kinds)} types"
                )
            inner = dict(names)
            args = tuple(self._define(inner, *pair) for pair in zip(defined, kinds, strict=True))
            defined = ()
            region, rest, line = self._region(head.name, line, inner, args, depth + 1)
            regions.append(region)
        if rest:
            closing = split(rest.removeprefix(")"))
            if closing.operands or closing.words not in ([], ["attributes"]):
                raise IRError(f"line {line} of the IR has more than the end of {head.name}")
            parts.attributes.update(closing.attributes)
            parts.types += closing.types
            parts.result_types += closing.result_types
        self._combining -= head.name in COMBINING
        return regions, rest, line

    def _partitions(
        self, line: int, captured: tuple[int, ...], names: dict[str, int], parts: Parts, depth: int
    ) -> tuple[list[Region], int]:
        """Parse the regions of ``ttg.warp_specialize``, the default one first, and what follows into ``parts``; return
        them and the next line. Each partition takes all that is captured; so do the operands, once for each.
        """
        if self._lines[line : line + 1] != ["default {"]:
            raise IRError(f"line {line + 1} of the IR is not the default region of ttg.warp_specialize")
        region, rest, line = self._region("ttg.warp_specialize", line + 1, names, (), depth + 1)
        regions, warps, own = [region], [], self._warps
        while not rest and line < len(self._lines) and (match := _PARTITION.fullmatch(self._lines[line])):
            inner: dict[str, int] = {}
            args = tuple(self._define(inner, *pair) for pair in typed_names(f"({match[1]})"))
            if [self._types[slot] for slot in args] != [self._types[slot] for slot in captured]:
                raise IRError(f"line {line + 1} of the IR does not take what ttg.warp_specialize captures")
            self._warps = match[2]
            region, rest, line = self._region("ttg.warp_specialize", line + 1, inner, args, depth + 1)
            regions.append(region)
            warps.append(match[2])
        self._warps = own
        parts.attributes["warps"] = " ".join(warps)
        parts.result_types += split(rest).result_types
        return regions, line


def _spelt(text: str, named: Mapping[str, str]) -> str:
    """Return text with layouts in place of their names."""
    return _LAYOUT_NAME.sub(lambda match: named.get(match[0], match[0]), text)


def _of_registers(text: str) -> str:
    """Return the layout of the first block of an operation on on-chip memory, "" where there is none."""
    return next(iter(_layouts(text)), "") if "!ttg.memdesc<" in text else ""


def _layouts(text: str) -> list[str]:
    """Return the layout of each block whose type an operation names, "" for a block without one."""
    blocks = (token for kind, token in tokens(text) if kind == "word" and token.startswith("tensor<"))
    return [block.partition(", ")[2][:-1] for block in blocks]


def _label(text: str) -> tuple[str, list[tuple[str, Type]]]:
    label, _, args = text.rstrip(":").partition("(")
    return label, typed_names("(" + args) if args else []


def _without_comment(line: str) -> str:
    for match in _QUOTED_OR_COMMENT.finditer(line) if "//" in line else ():
        if match[0] == "// ":
            return line[: match.start()]
    return line


def _results(text: str) -> list[str]:
    names: list[str] = []
    for item in text.split(",") if text else ():
        match = _RESULT.fullmatch(item.strip())
        if match is None or int(match[2] or 1) > 1000:
            raise IRError(f"cannot read the results {text[:80]!r}")
        names += [match[1]] if match[2] is None else [f"{match[1]}#{i}" for i in range(int(match[2]))]
    return names


def _parts(head: _Head) -> Parts:
    """Return the parts of an operation's first line."""
    parts = split(head.rest[:-1].rstrip().removesuffix("(") if head.opens else head.rest)
    scaled = head.name == "tt.dot_scaled"
    if any(_DOTTED.fullmatch(word) for word in parts.words) or (parts.scales and not scaled):
        raise IRError(f"line {head.number} of the IR has more than {head.name}")
    if scaled:
        parts.attributes["scales"] = " ".join(map(str, parts.scales))
    return parts


def _values_of_loop(name: str, parts: Parts, number: int) -> tuple[list[str], list[str]]:
    """Return the operands of an operation, and the values that a loop defines beside them, for its region.

    They are in turns in ``%i = %lo to %hi step %st iter_args(%a = %x, ...)`` and ``scf.while (%a = %x, ...)``.
    """
    values = parts.operands
    if name == "scf.while":
        return values[1::2], values[0::2]
    if name != "scf.for":
        return values, []
    if len(values) < 4 or len(values) % 2:
        raise IRError(f"cannot read the loop in line {number} of the IR")
    return values[1:4] + values[5::2], [values[0], *values[4::2]]


def _types_in_loop(name: str, parts: Parts, *, first: bool) -> Sequence[Type]:
    """Return the types of the values that a region of a loop takes; none for other operations."""
    if name == "scf.for":
        return [parts.types[0] if parts.types else Type("i64"), *parts.result_types]
    return parts.types if name == "scf.while" and first else ()
