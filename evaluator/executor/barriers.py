"""What threads of a program tell each other through memory: between store and load there must be a barrier.

A GPU runs the threads of a program side by side, and Triton synchronises them for shared memory only. Which element of
a block belongs to which thread is the layout's business; the same element of blocks of one shape counts as the same
thread's. Elements of a scalar belong to no thread: one stores it, all load it.
"""

import math
from collections.abc import Collection

import torch

Tensor = torch.Tensor

_SCALAR = -1


class Barriers:
    """Which threads stored to the granules of some buffers, and before which of their program's barriers."""

    def __init__(self, buffers: Collection[int], programs: int) -> None:
        """Watch ``buffers`` in a run of ``programs`` programs."""
        self._buffers = frozenset(buffers)
        self._passed = torch.zeros(programs, dtype=torch.int64)
        self._stored: dict[int, Tensor] = {}
        self._first: dict[tuple[int, ...], int] = {}
        """The number of the first thread of blocks of each shape."""
        self._threads = 0

    def watches(self, buffer: int) -> bool:
        """Whether accesses to a buffer are watched."""
        return buffer in self._buffers

    def passed(self, programs: Tensor) -> None:
        """Note that programs, positions [n], reach a barrier."""
        self._passed[programs] += 1

    def threads(self, shape: tuple[int, ...]) -> Tensor:
        """Return a number for the thread of each element of a block, int64 [elements]."""
        if not shape:
            return torch.tensor([_SCALAR])
        if shape not in self._first:
            self._first[shape], self._threads = self._threads, self._threads + math.prod(shape)
        return torch.arange(math.prod(shape)) + self._first[shape]

    def store(self, buffer: int, granules: int, cells: Tensor, programs: Tensor, threads: Tensor) -> None:
        """Note stores by threads [n] of programs [n] to some of a buffer's granules, cells [n]."""
        if buffer not in self._stored:
            self._stored[buffer] = torch.full((3, granules), -2, dtype=torch.int32)
        self._stored[buffer][:, cells] = torch.stack((programs, threads, self._passed[programs])).int()

    def missing(self, buffer: int, cells: Tensor, programs: Tensor, threads: Tensor) -> Tensor:
        """Return whether other threads of the same programs stored what is loaded, with no barrier since, bool [n]."""
        if buffer not in self._stored:
            return torch.zeros(cells.shape, dtype=torch.bool)
        by, thread, when = self._stored[buffer][:, cells]
        others = (thread != threads) | (threads == _SCALAR)
        wrong: Tensor = (by == programs) & (when == self._passed[programs]) & others
        return wrong
