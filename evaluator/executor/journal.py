"""What memory held before it was changed, to start again from."""

import torch

Tensor = torch.Tensor

_BITS = 16
_CHUNK = 1 << _BITS
"""Bytes that are kept together."""


class Journal:
    """What the parts of memory that are changed held before."""

    def __init__(self) -> None:
        self._before: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        """Each chunk that was changed and what it held, by the address of its storage and its number there."""

    def note(self, held: Tensor, index: Tensor) -> None:
        """Note that the elements of ``held``, or its rows, at an index [n] are about to change."""
        if not index.numel():
            return
        storage, size, item = held.untyped_storage(), held[0].nbytes, held.element_size()
        touched = torch.zeros((storage.nbytes() >> _BITS) + 1, dtype=torch.bool)
        for byte in {*range(0, size, _CHUNK), size - item}:
            touched[index * (held.stride(0) * item) + (held.storage_offset() * item + byte) >> _BITS] = True
        memory = torch.empty(0, dtype=torch.int8).set_(storage)
        for number in touched.nonzero().flatten().tolist():
            if (place := (storage.data_ptr(), number)) not in self._before:
                chunk = memory[number * _CHUNK : (number + 1) * _CHUNK]
                self._before[place] = chunk, chunk.clone()

    def undo(self) -> None:
        """Give all memory what it held at first."""
        for chunk, before in self._before.values():
            chunk.copy_(before)
