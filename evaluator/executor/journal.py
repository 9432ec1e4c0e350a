"""What buffers held before they were changed, to start again from."""

from collections.abc import Sequence

import torch

from evaluator.executor.allocation import Allocation

Tensor = torch.Tensor


class Journal:
    """Notes of what elements of some buffers, and their marks, held before each change.

    Once these take more memory than the buffers do, they are replaced by a copy of the buffers as they were at first.
    """

    def __init__(self, memory: Sequence[Allocation]) -> None:
        self._tensors = [each for a in memory for each in (a.data, a.written, a.initialised) if each is not None]
        self._most = sum(tensor.nbytes for tensor in self._tensors)
        self._size = 0
        self._notes: list[tuple[Tensor, Tensor, Tensor]] = []
        self._first: list[Tensor] = []

    def note(self, held: Tensor, index: Tensor) -> None:
        """Note what ``held``, a view of one of the tensors, has at an index [n], which is about to change."""
        if self._first:
            return
        self._notes.append((held, index, held[index]))
        self._size += index.nbytes + self._notes[-1][2].nbytes
        if self._size > self._most:
            now = [tensor.clone() for tensor in self._tensors]
            self.undo()
            self._first = [tensor.clone() for tensor in self._tensors]
            self._give(now)

    def undo(self) -> None:
        """Give the buffers what they held at first."""
        while self._notes:
            held, index, before = self._notes.pop()
            held[index] = before
        self._size = 0
        self._give(self._first)

    def _give(self, contents: Sequence[Tensor]) -> None:
        for tensor, content in zip(self._tensors, contents, strict=False):
            tensor.copy_(content)
