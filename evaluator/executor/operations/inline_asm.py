"""``tt.elementwise_inline_asm``: PTX applied to elements, several at a time if they are packed.

Plain loads and stores are operations of their own, with all checks of one. ``ld.global.b8 $0, [$1]; shl.b32 $0, $0, 3;
st.global.b8 [$2], $0;`` becomes a ``tt.load``, assembly with one more operand, and a ``tt.store``. What is not as plain
stays, and is unsupported.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, takewhile

import torch

from avo.evaluator.executor.dtypes import DTYPES, RAW
from avo.evaluator.executor.effects import BY_ALL
from avo.evaluator.executor.errors import UnsupportedOperation
from avo.evaluator.executor.frame import Frame, Step
from avo.evaluator.executor.ir import BITS, COMBINING, Function, Op, Region, Type
from avo.evaluator.executor.lexer import unquoted
from avo.evaluator.executor.operations.packing import in_packs
from avo.evaluator.executor.operations.ptx import PtxError, assemble
from avo.evaluator.executor.operations.registry import Types, check_variant, integer, step
from avo.evaluator.executor.values import full

Tensor = torch.Tensor

_NAME = "tt.elementwise_inline_asm"
_CONSTRAINT = re.compile(r"=?&?([hrlfd])")
_BITS = {"h": 16, "r": 32, "l": 64, "f": 32, "d": 64}
"""Width of a register by its constraint (LLVM language reference, constraints of NVPTX)."""
_REGISTER = {8: "h", 16: "h", 32: "r", 64: "l"}
"""The constraint of the register that memory of so many bits is loaded into."""
_TYPE, _VALUE = r"global\.(?P<kind>[bsuf])(?P<bits>8|16|32|64)", r"\$(?P<value>\d{1,4})"
_PLACE = r"\[\$(?P<place>\d{1,4})\]"
_LOAD, _STORE = re.compile(rf"ld\.{_TYPE} {_VALUE}, ?{_PLACE}"), re.compile(rf"st\.{_TYPE} {_PLACE}, ?{_VALUE}")
_NOT_PLAIN = re.compile(r"[\"\\]|//|/\*")
"""Comments, and what strings of the IR have to escape."""


@step(_NAME)
def _inline_asm(op: Op, types: Types) -> Step:
    """Return the step."""
    check_variant(op, words=op.words, attributes=["constraints", "packed_element", "pure"])
    text = unquoted(op.words[0]) if len(op.words) == 1 and op.words[0].startswith('"') else ""
    name = f"inline assembly {' '.join(text.split())[:60]!r}"
    pack = integer(op, "packed_element")
    operands, results = ([types[slot] for slot in slots] for slots in (op.operands, op.results))
    shape = (results or operands)[0].shape if results or operands else ()
    given = unquoted(op.attributes.get("constraints", '""')).split(",")
    constraints = [_CONSTRAINT.fullmatch(item.strip()) for item in given]
    counts = [_registers(kind, pack) for kind in (*results, *operands)]
    outputs = sum(counts[: len(results)])
    if (
        not text
        or pack < 1
        or any(pack % _per_register(kind, pack) for kind in (*operands, *results))
        or not all(constraints)
        or len(constraints) != sum(counts)
        or [match is not None and match[0].startswith("=") for match in constraints]
        != [i < outputs for i in range(sum(counts))]
        or any(kind.shape != shape or kind.element in ("i1", "descriptor") for kind in (*operands, *results))
    ):
        raise UnsupportedOperation(f"{name} with constraints {op.attributes.get('constraints', '')[:60]}", op.location)
    widths = [_BITS[match[1]] for match in constraints if match]
    try:
        code = assemble(text.replace("$$", "$"), widths, outputs)
    except PtxError as error:
        raise UnsupportedOperation(f"{name}: {' '.join(str(error).split())[:60]!r}", op.location) from None

    def apply(values: Sequence[Tensor]) -> list[Tensor]:
        programs, elements = values[0].shape if values else (1, results[0].elements if results else 1)
        inputs: list[Tensor] = []
        for value, kind in zip(values, operands, strict=True):
            inputs.extend(_packed(value, kind, pack))
        inputs = [_resized(value, bits) for value, bits in zip(inputs, widths[outputs:], strict=True)]
        made, returned = list(code(*inputs)), []
        for kind, count in zip(results, counts, strict=False):
            returned.append(_unpacked(made[:count], kind, pack, programs)[:, :elements])
            made = made[count:]
        return returned

    packed = in_packs(op, shape if operands else (), pack, name)

    def run(frame: Frame) -> None:
        values = [frame.tensor(slot) for slot in op.operands]
        programs = max([value.shape[0] for value in values], default=1)
        elements = [
            full(value, kind, programs).reshape(programs, -1) for value, kind in zip(values, operands, strict=True)
        ]
        for slot, kind, made in zip(op.results, results, packed(apply, elements), strict=True):
            frame.slots[slot] = made.contiguous().view(DTYPES[kind.element]).view(made.shape[0], *kind.shape)

    return run


def _per_register(kind: Type, pack: int) -> int:
    """Return the number of elements in one register: packed elements of less than 32 bits share registers."""
    return min(max(32 // (8 * kind.item_bytes), 1), pack)


def _registers(kind: Type, pack: int) -> int:
    return pack // _per_register(kind, pack)


def _packed(value: Tensor, kind: Type, pack: int) -> list[Tensor]:
    """Return the registers [P * packs] of an operand [P, n]; copies of the last element fill an incomplete pack."""
    together = _per_register(kind, pack)
    elements = value.view(RAW[kind.item_bytes])
    missing = -elements.shape[1] % pack
    if missing:
        elements = torch.cat([elements, elements[:, -1:].expand(-1, missing)], 1)
    columns = elements.reshape(-1, pack // together, together).contiguous()
    joined = columns.view(RAW[kind.item_bytes * together]) if together > 1 else columns
    return [column.flatten() for column in joined.unbind(1)]


def _resized(register: Tensor, bits: int) -> Tensor:
    """Extend with zeros or truncate to the register width that the constraint asks for."""
    have = register.element_size() * 8
    if bits > have:
        return register.to(torch.int64).bitwise_and((1 << have) - 1).to(RAW[bits // 8])
    return register.to(RAW[bits // 8])


def _unpacked(registers: Sequence[Tensor], kind: Type, pack: int, programs: int) -> Tensor:
    """Return the elements [P, n] in the registers of a result, as bits."""
    together = _per_register(kind, pack)
    cut = [_resized(register, 8 * kind.item_bytes * together) for register in registers]
    return torch.stack(cut, 1)[:, :, None].contiguous().view(RAW[kind.item_bytes]).reshape(programs, -1)


def with_accesses(function: Function) -> Function:
    """Return the function with loads at the start, and stores at the end, of its inline assembly as operations."""
    types = list(function.types)
    if all(op.name != _NAME for op in function.body.ops):
        return function

    def split(op: Op) -> list[Op]:
        if op.name == _NAME and len(op.words) == 1:
            return _split(op, types) or [op]
        return [op if op.name in COMBINING else replace(op, regions=tuple(map(visit, op.regions)))]

    def visit(region: Region) -> Region:
        return Region(tuple(replace(each, ops=tuple(chain(*map(split, each.ops)))) for each in region.blocks))

    body = visit(function.body)
    return replace(function, body=body, types=tuple(types))


def _split(op: Op, types: list[Type]) -> list[Op]:
    """Return the operations that stand for inline assembly with plain accesses, none for any other. Add the types of
    what is loaded.
    """
    text, given = unquoted(op.words[0]), unquoted(op.attributes.get("constraints", '""'))
    constraints = given.replace(" ", "").split(",")
    pieces = [piece for each in text.split(";") if (piece := " ".join(each.split()))]
    loads = [match for match in takewhile(bool, map(_LOAD.fullmatch, pieces)) if match]
    stores = [match for match in takewhile(bool, map(_STORE.fullmatch, reversed(pieces))) if match][::-1]
    slots, outputs = (*op.results, *op.operands), len(op.results)
    places = {int(match["place"]): int(match["bits"]) for match in (*loads, *stores)}
    used = [int(place) for place in re.findall(r"\$\{?(\d{1,4})", text)]
    if (
        not places
        or _NOT_PLAIN.search(text)
        or len(constraints) != len(slots)
        or not all(map(_CONSTRAINT.fullmatch, constraints))
        or not op.attributes.get("pure", "").startswith("false")
        or op.attributes.get("packed_element", "").split(":")[0].strip() != "1"
        or any(not outputs <= place < len(slots) or used.count(place) != 1 for place in places)
        or any(not _holds(types[slots[place]], bits) for place, bits in places.items())
        or any(int(match["value"]) >= len(slots) for match in (*loads, *stores))
        or any(outputs <= (value := int(match["value"])) and used.count(value) != 1 for match in stores)
        or any(types[slots[int(match["place"])]].elements == 1 for match in stores)
    ):
        return []
    moves, before = list[str](), list[Op]()
    for match in loads:
        target, bits, pointer = int(match["value"]), int(match["bits"]), slots[int(match["place"])]
        if target >= outputs or (width := _BITS[constraints[target][-1]]) < bits:
            return []
        sign = "s" if match["kind"] == "s" else "u"
        move = f"mov.b{bits}" if width == bits else f"cvt.{sign}{width}.{sign}{bits}"
        moves.append(f"{move} ${target}, ${len(constraints)}")
        constraints.append(_REGISTER[bits])
        loaded = replace(op, name="tt.load", operands=(pointer,), results=(len(types),), words=(), attributes={})
        types.append(replace(types[pointer].target or Type(""), shape=types[pointer].shape))
        before.append(loaded)
    rest = "; ".join((*moves, *pieces[len(loads) : len(pieces) - len(stores)], ""))
    operands = (*op.operands, *(each.results[0] for each in before))
    asm = replace(op, operands=operands, words=(f'"{rest}"',))
    asm = replace(asm, attributes={**op.attributes, "constraints": f'"{",".join(constraints)}"'})
    store = replace(op, name="tt.store", results=(), words=(), attributes={BY_ALL: "true"})
    stored = [(slots[int(match["place"])], slots[int(match["value"])]) for match in stores]
    return [*before, asm, *(replace(store, operands=each) for each in stored)]


def _holds(pointer: Type, bits: int) -> bool:
    """Whether a value is a pointer to items of so many bits."""
    return pointer.element == "ptr" and pointer.target is not None and BITS[pointer.target.element] == bits
