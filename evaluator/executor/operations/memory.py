"""Pointers, loads and stores, and tensor descriptors (TMA)."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from avo.evaluator.executor.dtypes import DTYPES
from avo.evaluator.executor.effects import BY_ALL, is_volatile
from avo.evaluator.executor.errors import UnsupportedOperation
from avo.evaluator.executor.faults import Ordering, Site
from avo.evaluator.executor.frame import Frame, Step
from avo.evaluator.executor.ir import BITS, Function, Op, Type
from avo.evaluator.executor.operations.casts import nearest_tf32
from avo.evaluator.executor.operations.registry import Types, check_variant, step
from avo.evaluator.executor.values import AddressSum, DescriptorValue, full

Tensor = torch.Tensor


_VOLATILE = Ordering(acquire=True, release=False, strong=False)


def site(frame: Frame, op: Op, order: Ordering | None = None) -> Site:
    """Return the site that faults of this operation are reported with."""
    result = op.results[0] if op.results else None
    polls, by_one = result in frame.run.polls, result in frame.run.needed_by_one
    partition = frame.run.chip.partition if frame.run.chip is not None else 0
    run, by_all = frame.run, BY_ALL in op.attributes
    whose = run.ids, frame.positions, run.grid
    return Site(op.location, *whose, order, polls, by_one, by_all, partition=partition, line=op.lines.start)


def kept_as_sums(function: Function) -> frozenset[int]:
    """Return the slots of blocks that are kept as a sum of two terms: pointers that ``tt.addptr`` makes and only loads
    and stores use, and offsets that ``arith.addi`` makes and only such a ``tt.addptr`` uses.
    """
    ops = function.body.ops

    def made(name: str, others: Callable[[Op], Sequence[int]]) -> set[int]:
        """Return the blocks that operations of a name make and that no operation has among its ``others``."""
        used = {slot for op in ops for slot in others(op)}
        used.update(slot for op in ops for _, values in op.successors for slot in values)
        found = {slot for op in ops if op.name == name for slot in op.results}
        return {slot for slot in found - used if function.types[slot].shape}

    pointers = made("tt.addptr", lambda op: op.operands[1 if op.name in ("tt.load", "tt.store") else 0 :])

    def but_offsets(op: Op) -> Sequence[int]:
        return op.operands[:1] if op.name == "tt.addptr" and not pointers.isdisjoint(op.results) else op.operands

    return frozenset(pointers | made("arith.addi", but_offsets))


def address_sum(op: Op, types: Types) -> Step:
    """Return the step of a ``tt.addptr`` whose result is kept as a sum of two terms."""
    base, offset = op.operands
    result = op.results[0]
    item = _pointee(op, types[base]).item_bytes

    def run(frame: Frame) -> None:
        start, steps = frame.tensor(base), frame.address(offset)
        if isinstance(steps, AddressSum):
            start, steps = start + steps.base.to(torch.int64) * item, steps.offset
        frame.slots[result] = AddressSum(start, steps.to(torch.int64) * item)

    return run


def offset_sum(op: Op, types: Types, added: Step) -> Step:
    """Return the step of an ``arith.addi``, by itself ``added``, whose result is kept as two terms that broadcast, as a
    column plus a row: the sum is many times their size. Where it may overflow, it is computed.
    """
    (a, b), result = op.operands, op.results[0]
    bits = BITS[types[result].element]

    def run(frame: Frame) -> None:
        x, y = frame.tensor(a), frame.tensor(b)
        if math.prod(np.broadcast_shapes(x.shape, y.shape)) > x.numel() + y.numel():
            (least, most), (low, high) = torch.aminmax(x), torch.aminmax(y)
            if int(least) + int(low) >= -(2 ** (bits - 1)) and int(most) + int(high) < 2 ** (bits - 1):
                frame.slots[result] = AddressSum(x, y)
                return
        added(frame)

    return run


@step("tt.addptr")
def _addptr(op: Op, types: Types) -> Step:
    check_variant(op)
    base, offset = op.operands
    result = op.results[0]
    item = _pointee(op, types[base]).item_bytes

    def run(frame: Frame) -> None:
        frame.slots[result] = frame.tensor(base) + frame.tensor(offset).to(torch.int64) * item

    return run


def check_blocks(op: Op, types: Types, block: Type, values: Sequence[int], masks: Sequence[int] = ()) -> None:
    """Raise ``UnsupportedOperation`` unless values have the type ``block``, and masks, at most one, its shape."""
    wanted = [block.of(block.element)] * len(values) + [block.of("i1")] * len(masks)
    if len(masks) > 1 or [types[slot] for slot in (*values, *masks)] != wanted:
        kinds = ", ".join(str(types[slot]) for slot in (*op.operands, *op.results))
        raise UnsupportedOperation(f"{op.name} of {kinds}"[:200], op.location)


def _pointee(op: Op, kind: Type) -> Type:
    if kind.element != "ptr" or kind.target is None or kind.target.element in ("ptr", "descriptor"):
        raise UnsupportedOperation(f"{op.name} on {kind}", op.location)
    return kind.target


@step("tt.load")
def _load(op: Op, types: Types) -> Step:
    check_variant(op)
    pointer = types[op.operands[0]]
    kind = Type(_pointee(op, pointer).element, pointer.shape)
    address, *optional = op.operands
    mask, other = [*optional, None, None][:2]
    result = op.results[0]
    check_blocks(op, types, kind, [result, *optional[1:]], optional[:1])
    order = _VOLATILE if is_volatile(op) else None

    def run(frame: Frame) -> None:
        frame.slots[result] = frame.run.memory.read(
            frame.address(address),
            None if mask is None else frame.tensor(mask),
            None if other is None else frame.tensor(other),
            kind,
            site(frame, op, order),
        )

    return run


@step("tt.store")
def _store(op: Op, types: Types) -> Step:
    check_variant(op, attributes=[BY_ALL])
    pointer = types[op.operands[0]]
    kind = Type(_pointee(op, pointer).element, pointer.shape)
    address, value, *optional = op.operands
    mask = optional[0] if optional else None
    check_blocks(op, types, kind, [value], optional)

    def run(frame: Frame) -> None:
        where = frame.address(address)
        frame.run.memory.write(
            where, None if mask is None else frame.tensor(mask), frame.tensor(value), kind, site(frame, op)
        )

    return run


_PADDING = {"": False, "1": False, "pad_zero": False, "2": True, "pad_nan": True}


@step("tt.make_tensor_descriptor")
def _make_descriptor(op: Op, types: Types) -> Step:
    check_variant(op, attributes=["padding"])
    block = types[op.results[0]].target
    assert block is not None
    outside = op.attributes.get("padding", "").split(" ")[0].lower()
    rank = len(block.shape)
    if outside not in _PADDING or len(op.operands) != 1 + 2 * rank:
        raise UnsupportedOperation(f"{op.name} with padding {outside[:60]}", op.location)
    base, shape, strides = op.operands[0], op.operands[1 : 1 + rank], op.operands[1 + rank :]

    def run(frame: Frame) -> None:
        made = DescriptorValue(
            frame.tensor(base),
            tuple(frame.tensor(slot).to(torch.int64) for slot in shape),
            tuple(frame.tensor(slot).to(torch.int64) for slot in strides),
            block.shape,
            _PADDING[outside],
        )
        frame.run.memory.observe_descriptor(made, block.item_bytes, site(frame, op))
        frame.slots[op.results[0]] = made

    return run


def block_addresses(
    descriptor: DescriptorValue, coordinates: Sequence[Tensor], item_bytes: int
) -> tuple[AddressSum, Tensor | None]:
    """Return the addresses of the elements at the coordinates, and which lie inside the described tensor (None: all).

    ``coordinates`` has one int64 tensor [P or 1, ...] per dimension; they broadcast to the block.
    """
    mask: Tensor | None = None
    terms: list[Tensor] = []
    dims = (1,) * (coordinates[0].dim() - 1)
    for coordinate, extent, stride in zip(coordinates, descriptor.shape, descriptor.strides, strict=True):
        terms.append(coordinate * (stride * item_bytes).view(-1, *dims))
        inside = (coordinate >= 0) & (coordinate < extent.view(-1, *dims))
        if not bool(inside.all()):
            mask = inside if mask is None else mask & inside
    base = descriptor.base.view(-1, *dims)
    for term in terms[:-1]:
        base = base + term
    return AddressSum(base, terms[-1]), mask


def _coordinates(frame: Frame, op: Op, block: tuple[int, ...]) -> list[Tensor]:
    rank = len(block)
    coordinates = []
    for dim, slot in enumerate(op.operands[1 : 1 + rank]):
        shape = [1] * rank
        shape[dim] = block[dim]
        start = frame.tensor(slot).to(torch.int64).view(-1, *[1] * rank)
        coordinates.append(start + torch.arange(block[dim]).view(1, *shape))
    return coordinates


def described_block(op: Op, types: Types) -> Type:
    kind = types[op.operands[0]]
    if kind.element != "descriptor" or kind.target is None:
        raise UnsupportedOperation(f"{op.name} on {kind}", op.location)
    return kind.target


def check_described(op: Op, types: Types, block: Type, value: int) -> None:
    """Raise ``UnsupportedOperation`` unless ``value`` has a block's elements and all other operands are coordinates."""
    indices = op.operands[1 : 1 + len(block.shape)]
    kind, others = types[value], set(op.operands[1:]) - {value}
    if (kind.element, kind.elements) != (block.element, block.elements) or others != set(indices):
        raise UnsupportedOperation(f"{op.name} of {kind} for {block}", op.location)
    if any(types[slot] not in (Type("i32"), Type("i64")) for slot in indices):
        raise UnsupportedOperation(f"{op.name} at {', '.join(str(types[slot]) for slot in indices)}"[:200], op.location)


def descriptor(frame: Frame, op: Op, rank: int) -> DescriptorValue:
    """Return the descriptor of a tensor of ``rank`` axes in the first operand: a value, or what lies at an address."""
    value = frame.value(op.operands[0])
    if isinstance(value, DescriptorValue):
        return value
    chip = frame.run.chip
    if chip is None or not isinstance(value, Tensor):
        raise UnsupportedOperation(f"{op.name} by a descriptor that the kernel makes, without its chip", op.location)
    fields, unmade, unfenced = chip.tensormaps.at(
        chip.rows(frame.positions), value.expand(frame.programs), 2 + 2 * rank
    )
    refute, here = frame.run.memory.refute, site(frame, op)
    refute("invalid descriptor", unmade, lambda _: "the program uses a descriptor that it has not made", here)
    text = "the program uses a descriptor that it has made with no fence since"
    refute("missing fence", unfenced, lambda _: text, here)
    nan, base, *rest = fields.unbind(1)
    return DescriptorValue(base, tuple(rest[:rank]), tuple(rest[rank:]), (), bool(nan[0]))


def descriptor_block(frame: Frame, op: Op, block: Type) -> tuple[DescriptorValue, AddressSum, Tensor | None]:
    """Return the descriptor in the first operand, and addresses and mask of the block at the coordinates after it."""
    described = descriptor(frame, op, len(block.shape))
    address, mask = block_addresses(described, _coordinates(frame, op, block.shape), block.item_bytes)
    return described, address, mask


def read_described(
    frame: Frame, op: Op, descriptor: DescriptorValue, address: AddressSum, mask: Tensor | None, block: Type
) -> Tensor:
    """Return a block that TMA reads: 0 or NaN outside of the described tensor, rounded to tf32 if the descriptor says
    so.

    Source: CUtensorMapFloatOOBfill and CU_TENSOR_MAP_DATA_TYPE_TFLOAT32 of the CUDA driver; that it rounds to nearest,
    ties to even, is what Triton's tests expect (test_gluon_tma_round_f32_to_tf32).
    """
    outside = None
    if descriptor.nan_padding:
        outside = torch.full((1,) * (1 + len(block.shape)), float("nan")).to(DTYPES[block.element])
    value = frame.run.memory.read(address, mask, outside, block, site(frame, op))
    return nearest_tf32(value) if descriptor.rounds_tf32 else value


@step("tt.descriptor_load")
def _descriptor_load(op: Op, types: Types) -> Step:
    check_variant(op)
    block = described_block(op, types)
    result = types[op.results[0]]
    check_described(op, types, block, op.results[0])

    def run(frame: Frame) -> None:
        descriptor, address, mask = descriptor_block(frame, op, block)
        value = read_described(frame, op, descriptor, address, mask, block)
        if result.shape != block.shape:
            value = full(value, block).reshape(value.shape[0], *result.shape)
        frame.slots[op.results[0]] = value

    return run


@step("tt.descriptor_store")
def _descriptor_store(op: Op, types: Types) -> Step:
    check_variant(op)
    block = described_block(op, types)
    source = op.operands[-1]
    check_described(op, types, block, source)

    def run(frame: Frame) -> None:
        _, address, mask = descriptor_block(frame, op, block)
        value = full(frame.tensor(source), types[source])
        frame.run.memory.write(address, mask, value.reshape(value.shape[0], *block.shape), block, site(frame, op))

    return run


@step("tt.descriptor_gather", "tt.descriptor_scatter")
def _descriptor_rows(op: Op, types: Types) -> Step:
    """Return the step that reads or writes n rows ``x`` [n] of the described tensor, from column ``y`` on."""
    check_variant(op)
    described = described_block(op, types)
    rows, start = op.operands[1:3]
    value_slot = op.results[0] if op.results else op.operands[3]
    block = types[value_slot]
    if (
        block != Type(described.element, (types[rows].elements, described.shape[-1]))
        or types[rows] not in (Type("i16", block.shape[:1]), Type("i32", block.shape[:1]))
        or types[start] != Type("i32")
        or len(described.shape) != 2
    ):
        raise UnsupportedOperation(f"{op.name} of {block} for {described}", op.location)

    def run(frame: Frame) -> None:
        descriptor = frame.value(op.operands[0])
        assert isinstance(descriptor, DescriptorValue)
        x = full(frame.tensor(rows), types[rows]).to(torch.int64).unsqueeze(2)
        y = frame.tensor(start).to(torch.int64).view(-1, 1, 1) + torch.arange(block.shape[1])
        address, mask = block_addresses(descriptor, [x, y], block.item_bytes)
        if op.results:
            frame.slots[value_slot] = read_described(frame, op, descriptor, address, mask, block)
        else:
            frame.run.memory.write(address, mask, frame.tensor(value_slot), block, site(frame, op))

    return run
