"""The buffers that a kernel is given, and how messages name their elements."""

import math
from dataclasses import dataclass

import torch

from avo.evaluator.division import quotient


@dataclass(frozen=True, slots=True)
class View:
    """A tensor within a buffer, by which its elements are named. All sizes are in elements of the buffer."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    def index(self, element: int) -> tuple[int, ...] | None:
        """Return the multi-index of an element of the buffer, None if the tensor does not contain it."""
        rest = element - self.offset
        place = [0] * len(self.shape)
        for dim in sorted(range(len(self.shape)), key=lambda dim: -self.strides[dim]):
            stride = self.strides[dim]
            if stride:
                place[dim] = min(max(rest // stride, 0), self.shape[dim] - 1)
                rest -= place[dim] * stride
        return None if rest or 0 in self.shape else tuple(place)

    def spans(self, element: torch.Tensor) -> torch.Tensor:
        """Return which elements of the buffer lie between the tensor's first and last element."""
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        return (element >= self.offset) & (element <= last)


@dataclass(frozen=True, slots=True)
class Sparse:
    """A tensor that is held without the memory between its rows, in order of its indices. Sizes are in elements."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """Distances in the address space; the last is 1, and no two elements have the same place."""

    @property
    def extent(self) -> int:
        """Elements of the address space from the first element to the end of the last."""
        return 1 + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))

    def index(self, element: torch.Tensor) -> torch.Tensor:
        """Return where elements of the address space are held, -1 for those between the rows."""
        held, rest, there = torch.zeros_like(element), element, element >= 0
        for dim in sorted(range(len(self.shape)), key=lambda dim: -self.strides[dim]):
            if self.shape[dim] == 1 and self.strides[dim] != 1:
                continue
            place = rest if self.strides[dim] == 1 else quotient(rest, self.strides[dim])
            rest = rest - place * self.strides[dim]
            there &= place < self.shape[dim]
            held = held + place * math.prod(self.shape[dim + 1 :])
        return held.where(there, -1)

    def places(self, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> torch.Tensor:
        """Return where the elements of a view of the address space are held, int64 of its shape."""
        element = torch.tensor(offset)
        for dim, (extent, stride) in enumerate(zip(shape, strides, strict=True)):
            element = element + (torch.arange(extent) * stride).view(-1, *[1] * (len(shape) - 1 - dim))
        held = self.index(element)
        return held[held >= 0]


@dataclass
class Allocation:
    """One buffer that a kernel is given."""

    name: str
    data: torch.Tensor
    """The contents: flat and contiguous."""
    written: torch.Tensor | None = None
    """Whether each element was stored to, bool; None if nobody asks."""
    readonly: bool = False
    """Stores to it are faults and change nothing."""
    valid: torch.Tensor | None = None
    """Whether each element belongs to a tensor of the launch, bool; the others are padding. None: no padding."""
    initialised: torch.Tensor | None = None
    """Whether each element has a value, bool, set by stores. None: all have."""
    address: int | None = None
    """Address of the first byte. None: the executor chooses one with plenty of room on both sides."""
    views: tuple[View, ...] = ()
    """Tensors in the buffer: an element is named by the first view that has it, else by its flat index."""
    sparse: Sparse | None = None
    """Where its elements lie in the address space, if not one after another."""

    @property
    def extent(self) -> int:
        """Elements of the address space that it takes."""
        return self.data.numel() if self.sparse is None else self.sparse.extent

    def name_of(self, element: int) -> tuple[tuple[int, ...], str]:
        """Return the index of an element, and the words that name it in a message."""
        for view in self.views:
            index = view.index(element)
            if index is not None:
                return index, f"element {list(index)} of {self.name!r}"
        return (element,), f"element {element} of {self.name!r}"

    def covered(self, index: torch.Tensor, item_bytes: int) -> torch.Tensor:
        """Return the elements [..., n] that hold the items of ``item_bytes`` at the given indices [...]."""
        element_bytes = self.data.element_size()
        if item_bytes <= element_bytes:
            return (index if item_bytes == element_bytes else quotient(index * item_bytes, element_bytes)).unsqueeze(-1)
        per_item = item_bytes // element_bytes
        return index.unsqueeze(-1) * per_item + torch.arange(per_item)
