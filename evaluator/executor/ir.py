"""Parsed Triton IR: types, operations, blocks and regions. Values are slots, numbered per kernel."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from avo.evaluator.executor.errors import IRError

BITS = {
    "i1": 1,
    "i8": 8,
    "i16": 16,
    "i32": 32,
    "i64": 64,
    "i128": 128,
    "f16": 16,
    "bf16": 16,
    "f32": 32,
    "f64": 64,
    "f8E4M3FN": 8,
    "f8E5M2": 8,
    "ptr": 64,
    "descriptor": 64,
    "memdesc": 64,
    "token": 64,
}
"""Bits of a scalar of every element type."""

_NOT_SPELT = ("ptr", "descriptor", "memdesc", "token")
"""Element types that the text spells in another way."""

MAX_ELEMENTS = 2**20
"""Elements of the largest block; the limit of Triton's front end."""


COMBINING = ("tt.reduce", "tt.scan", "tt.map_elementwise")
"""Operations whose region is a function of single elements."""


ALLOCATIONS = ("ttg.local_alloc", "ttng.tmem_alloc")
"""Operations that allocate on-chip memory."""


@dataclass(frozen=True, slots=True)
class Type:
    """Type of a value: a scalar (shape ``()``) or a block of scalars."""

    element: str
    """Element type, a key of ``BITS``."""
    shape: tuple[int, ...] = ()
    target: "Type | None" = None
    """What a pointer points to, the block that a descriptor describes, or what an on-chip buffer or a view of one holds
    (element ``memdesc``)."""
    unsigned: bool = False
    """Whether a descriptor's integers are unsigned; no other type says."""
    layout: str = ""
    """Layout and memory of an on-chip buffer, as the IR spells them, or ``IM2COL``. Other layouts change no value and
    are dropped.
    """

    @property
    def elements(self) -> int:
        """Number of scalars."""
        return math.prod(self.shape)

    @property
    def item_bytes(self) -> int:
        """Bytes of one scalar in memory."""
        return max(BITS[self.element] // 8, 1)

    @property
    def block(self) -> "Type":
        """The block itself, or the one in on-chip memory."""
        return self.target if self.element == "memdesc" and self.target is not None else self

    @property
    def in_tensor_memory(self) -> bool:
        """Whether an on-chip buffer lies in tensor memory, not in shared memory."""
        return "#ttng.tensor_memory" in self.layout.replace("#ttng.tensor_memory_", "")

    @property
    def floating(self) -> bool:
        """Whether scalars are floating-point numbers."""
        return "f" in self.element

    def of(self, element: str) -> "Type":
        """Return the type of the same shape with another element."""
        return Type(element, self.shape)

    def __str__(self) -> str:
        name = f"{self.element}<{self.target}>" if self.target else self.element
        return f"tensor<{'x'.join(map(str, self.shape))}x{name}>" if self.shape else name


_BLOCK = re.compile(r"(?:tensor)?<((?:\d{1,9}x)+)(.+)>", re.DOTALL)
_POINTER = re.compile(r'!tt\.ptr<([^,<>]+)(?:,\s*(?:1|"constant"))?>|<([^,<>\dx]\w*)>')
_DESCRIPTOR = re.compile(r"(?:!tt\.tensordesc|!ttng\.tensordesc_(im2col))?<(tensor<.+>|(?:\d+x)+[^#,]+)>", re.DOTALL)
IM2COL = "im2col"
"""What ``Type.layout`` is for a descriptor that walks over the pixels of images."""
_BUFFER = re.compile(r"!ttg\.memdesc<((?:\d{1,9}x)+[a-zA-Z]\w*), (.+)>", re.DOTALL)
_BRACKET = re.compile(r"->|[<>(){}\[\],]")


_MOST_NESTED = 4
"""Most angle brackets that a type may open; a descriptor of a block of pointers has three."""


@lru_cache(maxsize=4096)
def parse_type(text: str) -> Type:
    """Return the type that ``text`` names, e.g. ``tensor<64x!tt.ptr<bf16>>``; raise ``IRError`` if it names none."""
    text = text.strip()
    if match := _BUFFER.fullmatch(text):
        return Type("memdesc", (), parse_type(f"tensor<{match[1]}>"), layout=match[2])
    if text == "!ttg.async.token":
        return Type("token")
    text = _without_layout(text)
    if text.count("<") > _MOST_NESTED:
        raise IRError(f"unknown type {text[:80]!r}")
    # Descriptors of integers say si32 or ui32, and are the only types to do so.
    element = text[1:] if text.startswith(("si", "ui")) else text
    if element in BITS and element not in _NOT_SPELT:
        return Type(element)
    if text == "index":
        return Type("i64")
    if match := _POINTER.fullmatch(text):
        return Type("ptr", (), parse_type(match[1] or match[2]))
    if not text.startswith("tensor") and (match := _DESCRIPTOR.fullmatch(text)):
        inner = match[2] if match[2].startswith("tensor") else f"tensor<{match[2]}>"
        return Type("descriptor", (), parse_type(inner), unsigned="xui" in inner, layout=match[1] or "")
    if match := _BLOCK.fullmatch(text):
        scalar = parse_type(match[2])
        shape = tuple(int(extent) for extent in match[1][:-1].split("x"))
        if scalar.shape or scalar.element in ("descriptor", "token") or not 0 < math.prod(shape) <= MAX_ELEMENTS:
            raise IRError(f"invalid block type {text[:80]}")
        return Type(scalar.element, shape, scalar.target)
    raise IRError(f"unknown type {text[:80]!r}")


def _without_layout(text: str) -> str:
    """Return the text of a block's type, or of a descriptor's, without the layout, which follows a comma."""
    depth = 0
    for match in _BRACKET.finditer(text) if ", #" in text else ():
        depth += (match[0] in "<({[") - (match[0] in ">)}]")
        if match[0] == "," and depth == 1:
            return text[: match.start()] + ">"
    return text


@dataclass(frozen=True, slots=True)
class Op:
    """One operation."""

    name: str
    operands: tuple[int, ...]
    results: tuple[int, ...]
    location: str
    """Where it is written: ``FILE:LINE`` in the author's source, or ``line N of the IR``."""
    words: tuple[str, ...] = ()
    """Bare keywords and literals, in order."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    regions: "tuple[Region, ...]" = ()
    successors: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """For a branch: the label of each target block and the values of its arguments."""
    loop: int | None = None
    """Index among the kernel's loops, if this is a loop outside combining regions."""
    lines: range = range(0)
    """The lines of the IR text, counted from 1, from its first to its last; empty where it is not in the text."""

    @property
    def nested(self) -> "tuple[Op, ...]":
        """Every operation in its regions; one comes before those in its own."""
        return tuple(inner for region in self.regions for inner in region.ops)


@dataclass(frozen=True, slots=True)
class Block:
    """Operations in order, the last one a terminator."""

    label: str
    args: tuple[int, ...]
    ops: tuple[Op, ...]
    index: int = 0
    """Number of the block within the kernel, in no particular order."""


@dataclass(frozen=True, slots=True)
class Region:
    """Blocks, of which the first is the entry. Only function bodies have more than one."""

    blocks: tuple[Block, ...]
    ops: tuple[Op, ...] = field(init=False, compare=False, repr=False)
    """Every operation, one before those in its own regions. Made once, as analyses pass over them again and again."""

    def __post_init__(self) -> None:
        ops = tuple(each for block in self.blocks for op in block.ops for each in (op, *op.nested))
        object.__setattr__(self, "ops", ops)

    @property
    def args(self) -> tuple[int, ...]:
        """Arguments of the entry block."""
        return self.blocks[0].args

    @property
    def terminator(self) -> Op:
        """The last operation, where a region other than a function's body ends."""
        return self.blocks[-1].ops[-1]


@dataclass(frozen=True)
class Function:
    """A kernel; private functions that it calls are regions of its ``tt.call`` operations."""

    name: str
    body: Region
    types: tuple[Type, ...]
    """Type of each slot."""
    divisors: tuple[int, ...] = ()
    """Declared divisor of each parameter; 1 where none is declared."""
    blocks: int = 0
    """Number of blocks; all their indices are smaller."""
    aliases: Mapping[int, int] = field(default_factory=dict)
    """Maps a parameter that points into the buffer of an earlier one to the first such parameter."""
    ctas: int = 1
    """CTAs of the cluster that runs one program."""
    paired: bool = False
    """Whether its tcgen05 products are those of two CTAs each."""
    sms: int = 0
    """SMs of the GPU whose registers it may ask; 0: it may not."""

    @property
    def params(self) -> tuple[int, ...]:
        """Slots of the parameters."""
        return self.body.args


def walk_blocks(region: Region) -> Iterator[Block]:
    """Yield every block of a region, except those in combining regions, which are applied to whole blocks at once."""
    for block in region.blocks:
        yield block
        for op in block.ops:
            if op.name not in COMBINING:
                for inner in op.regions:
                    yield from walk_blocks(inner)


def used_slots(ops: Iterable[Op]) -> frozenset[int]:
    """Return the slots that some of the operations use."""
    found: set[int] = set()
    for op in ops:
        found.update(op.operands, *(values for _, values in op.successors))
    return frozenset(found)


def captured(region: Region) -> tuple[int, ...]:
    """Return the slots that a region uses and does not define."""
    used: dict[int, None] = {}
    defined: set[int] = set()
    for op in region.ops:
        for slot in op.operands:
            used[slot] = None
        for _, values in op.successors:
            used.update(dict.fromkeys(values))
        defined.update(op.results)
        for inner in op.regions:
            for block in inner.blocks:
                defined.update(block.args)
    for block in region.blocks:
        defined.update(block.args)
    return tuple(slot for slot in used if slot not in defined)
