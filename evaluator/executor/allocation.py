"""Buffers as the executor takes them, and how their elements are named."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class View:
    """A tensor within a buffer, all in elements of the buffer: what an element is named by."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    def index(self, element: int) -> tuple[int, ...] | None:
        """Return the multi-index of an element of the buffer, None if it is not found in the tensor."""
        rest = element - self.offset
        place = [0] * len(self.shape)
        for dim in sorted(range(len(self.shape)), key=lambda dim: -self.strides[dim]):
            stride = self.strides[dim]
            if stride:
                place[dim] = min(max(rest // stride, 0), self.shape[dim] - 1)
                rest -= place[dim] * stride
        return None if rest or 0 in self.shape else tuple(place)

    def spans(self, element: torch.Tensor) -> torch.Tensor:
        """Return which elements of the buffer lie between the tensor's first and its last."""
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        return (element >= self.offset) & (element <= last)


@dataclass
class Allocation:
    """One buffer."""

    name: str
    data: torch.Tensor
    """Flat, contiguous."""
    written: torch.Tensor | None = None
    """bool per element, set by stores; None if nobody asks."""
    readonly: bool = False
    """Stores to it are faults and change nothing."""
    valid: torch.Tensor | None = None
    """bool per element: whether it belongs to a tensor that the launch was given, or is padding. None: no padding."""
    initialised: torch.Tensor | None = None
    """bool per element, set by stores: whether it has a value. None: all have."""
    address: int | None = None
    """Of the first byte; None: wherever there is plenty of room around it."""
    views: tuple[View, ...] = ()
    """How elements are named: by the first view that has them, else by their flat index."""

    def name_of(self, element: int) -> tuple[tuple[int, ...], str]:
        """Return the index of an element, and words for it."""
        for view in self.views:
            index = view.index(element)
            if index is not None:
                return index, f"element {list(index)} of {self.name!r}"
        return (element,), f"element {element} of {self.name!r}"

    def covered(self, index: torch.Tensor, item_bytes: int) -> torch.Tensor:
        """Return the elements [..., n] in which the items of a size at the given indices [...] lie."""
        element_bytes = self.data.element_size()
        if item_bytes <= element_bytes:
            return (index if item_bytes == element_bytes else index * item_bytes // element_bytes).unsqueeze(-1)
        per_item = item_bytes // element_bytes
        return index.unsqueeze(-1) * per_item + torch.arange(per_item)
