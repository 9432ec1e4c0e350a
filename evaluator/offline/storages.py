"""The memory of a launch: one allocation for all tensors that share storage, so that they alias as on a GPU."""

import ctypes
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from avo.evaluator.allocation import Allocation, View
from avo.evaluator.compiling.frontend import UnfitArgument
from avo.evaluator.executor.execution import Execution
from avo.evaluator.offline.device import is_hosted, real_device
from avo.evaluator.offline.errors import OfflineError
from avo.evaluator.offline.shadows import Shadows
from avo.evaluator.plan import Argument, Descriptor, Pointer, Scalar

_ALIGNMENT = 16
"""Alignment in bytes that the executor assumes for the start of every buffer."""


@dataclass(frozen=True)
class _Given:
    """A tensor of a launch and its address."""

    name: str
    tensor: torch.Tensor
    address: int

    @property
    def range(self) -> tuple[int, int]:
        """Address of the storage's first byte, and of the first byte after it."""
        storage = self.tensor.untyped_storage()
        return storage.data_ptr(), storage.data_ptr() + storage.nbytes()


class Storages:
    """Collects the tensors among a launch's arguments, then lays out memory for them."""

    def __init__(self, shadows: Shadows | None, check_padding: bool) -> None:
        self._shadows = shadows
        self._check_padding = check_padding
        self._given: list[_Given] = []
        self._converted: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._members: list[list[int]] = []
        self.name = ""
        """Name of the parameter whose argument is being processed."""

    def pointer(self, value: Any) -> Pointer:
        """Return a provisional pointer to the start of ``value``; ``lay_out`` makes it final."""
        tensor = _backing(value)
        device = real_device(tensor)
        if device.type != "cpu":
            raise OfflineError(f"argument {self.name} is on {device}: offline kernels take tensors on the CPU")
        if is_hosted(tensor):
            raise ValueError(f"Pointer argument {self.name} cannot be accessed from Triton (cpu tensor?)")
        address = int(value.data_ptr()) if tensor.numel() else 0
        self._given.append(_Given(self.name, tensor, address))
        return Pointer(len(self._given) - 1, 0)

    def lay_out(self, args: Sequence[Argument]) -> tuple[list[Allocation], list[Argument]]:
        """Return the allocations, and the arguments with pointers into them."""
        allocations: list[Allocation] = []
        pointers: dict[int, Pointer] = {}
        described = [arg for arg in args if isinstance(arg, Descriptor)]
        self._members = list(self._spans())
        for members in self._members:
            start, data = _flat([self._given[i] for i in members])
            allocation = Allocation(self.names(len(allocations)), data)
            for i in members:
                given = self._given[i]
                pointers[i] = Pointer(len(allocations), given.address - start if given.tensor.numel() else 0)
            allocation.views = tuple(self._views(members, pointers, data, described))
            if self._check_padding and data.numel() and self._padded(members):
                allocation.valid = _valid(allocation)
            if self._shadows is not None:
                allocation.initialised = self._initialised(members, data)
            allocations.append(allocation)
        return allocations, [_final(arg, pointers) for arg in args]

    def tensors(self, buffer: int) -> list[torch.Tensor]:
        """Return the tensors that lie in an allocation."""
        return [self._given[i].tensor for i in self._members[buffer]]

    def names(self, buffer: int) -> str:
        """Return the names of the parameters that an allocation was given for."""
        return ", ".join(dict.fromkeys(map(self._name, self._members[buffer])))

    def ran(self) -> None:
        """Record what the launch has written, where the record uses another unit than the executor."""
        for kept, used in self._converted:
            _spread(used, kept)

    def _padded(self, members: Sequence[int]) -> bool:
        return self._shadows is None or all(self._shadows.padded(self._given[i].tensor) for i in members)

    def _name(self, i: int) -> str:
        name = self._given[i].name
        same = [j for j, other in enumerate(self._given) if other.name == name]
        return name if len(same) == 1 else f"{name}[{same.index(i)}]"

    def _spans(self) -> Iterator[list[int]]:
        """Yield groups of tensors whose storages overlap."""
        order = sorted(range(len(self._given)), key=lambda i: self._given[i].range)
        group: list[int] = []
        end = -1
        for i in order:
            first, after = self._given[i].range
            if group and (first >= end or first == after):
                yield group
                group = []
            group.append(i)
            end = after if len(group) == 1 else max(end, after)
        if group:
            yield group

    def _views(
        self,
        members: Sequence[int],
        pointers: dict[int, Pointer],
        data: torch.Tensor,
        described: Sequence[Descriptor],
    ) -> Iterator[View]:
        unit = data.element_size()
        for i in members:
            tensor, offset = self._given[i].tensor, pointers[i].byte_offset
            if tensor.numel() == 0 or offset % unit:
                continue
            yield _view(tuple(tensor.shape), tensor.stride(), offset, tensor.element_size(), unit)
            for argument in described:
                if argument.buffer == i:
                    yield _view(argument.shape, argument.strides, offset, tensor.element_size(), unit)

    def _initialised(self, members: Sequence[int], data: torch.Tensor) -> torch.Tensor | None:
        assert self._shadows is not None
        tensor = self._given[members[0]].tensor
        if len({self._given[i].range for i in members}) > 1 or tensor.untyped_storage().data_ptr() != data.data_ptr():
            for i in members:
                self._shadows.forget(self._given[i].tensor)
            return None
        found = self._shadows.written(tensor)
        if found is None:
            return None
        written, item_bytes = found
        if item_bytes == data.element_size():
            return written[: data.numel()]
        converted = _in_items(written, item_bytes, data.element_size())[: data.numel()].contiguous()
        self._converted.append((written, converted))
        return converted


def distinct_bytes(allocation: Allocation) -> int:
    """Return the bytes of the tensors in an allocation; those that overlap or repeat elements count once."""
    elements = sum(
        math.prod(n for n, stride in zip(view.shape, view.strides, strict=True) if stride)
        for view in set(allocation.views)
    )
    return min(elements, allocation.data.numel()) * allocation.data.element_size()


def excuse_neighbours(execution: Execution) -> Execution:
    """Return the execution with reads before or after a tensor, within its storage, as notes.

    Host code passes ``starts[:-1]`` or ``cache[0]`` to kernels that know what lies beyond. Reads between the rows of a
    tensor remain faults, and so do writes.
    """
    excused = tuple(fault for fault in execution.faults if fault.kind == "read beside a tensor")
    faults = tuple(fault for fault in execution.faults if fault not in excused)
    return replace(execution, faults=faults, notes=(*execution.notes, *excused))


def _backing(value: Any) -> torch.Tensor:
    """Return the tensor itself, or the tensor inside a wrapper such as that of ``triton.reinterpret``."""
    if isinstance(value, torch.Tensor):
        return value
    if hasattr(value, "data_ptr"):
        address = value.data_ptr()
        for inner in vars(value).values():
            if isinstance(inner, torch.Tensor):
                storage = inner.untyped_storage()
                if storage.data_ptr() <= address <= storage.data_ptr() + storage.nbytes():
                    return inner
    raise UnfitArgument(f"a {type(value).__name__} as a pointer")


def _flat(given: Sequence[_Given]) -> tuple[int, torch.Tensor]:
    """Return memory with the storages of all tensors, in the type of the smallest element, and its start address."""
    smallest = min((member.tensor for member in given), key=torch.Tensor.element_size)
    ranges = {member.range for member in given}
    start, end = min(first for first, _ in ranges), max(after for _, after in ranges)
    items = (end - start) // smallest.element_size()
    if end == start:
        return start, torch.empty(0, dtype=smallest.dtype)
    if len(ranges) == 1 and start % _ALIGNMENT == 0:
        return start, torch.empty(0, dtype=smallest.dtype).set_(smallest.untyped_storage(), 0, (items,), (1,))
    # Foreign memory, such as numpy's: bytes before it are included for alignment, and count as padding.
    start -= start % _ALIGNMENT
    whole = (end - start) // smallest.element_size() * smallest.element_size()
    raw = torch.frombuffer((ctypes.c_uint8 * whole).from_address(start), dtype=torch.uint8)
    return start, raw.view(smallest.dtype)


def _view(shape: tuple[int, ...], strides: tuple[int, ...], byte_offset: int, item: int, unit: int) -> View:
    ratio = item // unit
    if ratio == 1:
        return View(shape, strides, byte_offset // unit)
    return View((*shape, ratio), (*(stride * ratio for stride in strides), 1), byte_offset // unit)


def _valid(allocation: Allocation) -> torch.Tensor | None:
    """Return which elements belong to a view, None if all do."""
    size = allocation.data.numel()
    if any(math.prod(view.shape) == size and 0 not in view.strides for view in allocation.views):
        return None  # a tensor with as many elements as the storage; overlapping ones are too unusual to handle
    valid = torch.zeros(size, dtype=torch.bool)
    for view in allocation.views:
        last = view.offset + sum((n - 1) * stride for n, stride in zip(view.shape, view.strides, strict=True))
        if last < size:
            valid.as_strided(view.shape, view.strides, view.offset).fill_(True)
        else:
            valid[view.offset :] = True
    return None if bool(valid.all()) else valid


def _in_items(written: torch.Tensor, have: int, want: int) -> torch.Tensor:
    """Return the flags of items of ``have`` bytes as flags of items of ``want`` bytes."""
    if have > want:
        return written.repeat_interleave(have // want)
    ratio = want // have
    return written[: written.numel() // ratio * ratio].view(-1, ratio).all(1)


def _spread(used: torch.Tensor, kept: torch.Tensor) -> None:
    """Set the flags in ``kept`` whose items overlap those of the flags set in ``used``, of smaller or larger items."""
    if used.numel() > kept.numel():
        ratio = used.numel() // kept.numel()
        kept |= used[: kept.numel() * ratio].view(-1, ratio).all(1)
    else:
        ratio = kept.numel() // max(used.numel(), 1)
        spread = used.repeat_interleave(ratio)
        kept[: spread.numel()] |= spread


def _final(arg: Argument, pointers: dict[int, Pointer]) -> Argument:
    if isinstance(arg, Scalar):
        return arg
    place = pointers[arg.buffer]
    return replace(arg, buffer=place.buffer, byte_offset=place.byte_offset)
