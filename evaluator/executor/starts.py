"""Which programs of a run have started. Cluster launch control lets one that runs take over one that has not."""

import torch

Tensor = torch.Tensor


class Starts:
    """The programs of a run, int64 linear ids [n], in the order in which they start or are taken over."""

    def __init__(self, ids: Tensor, together: int, *, may_be_taken: bool = False) -> None:
        """At most ``together`` start at once; if others ``may_be_taken``, at most half of all, so that some are."""
        self._ids = ids
        self._next = 0
        self._together = min(together, -(-ids.numel() // 2)) if may_be_taken else together

    def start(self) -> Tensor | None:
        """Return the positions of the programs that start next, int64 [m]; None once all have started."""
        first, self._next = self._next, min(self._next + self._together, self._ids.numel())
        return torch.arange(first, self._next) if first < self._next else None

    def take(self, wanted: int) -> Tensor:
        """Return the ids of programs that are taken over now, int64 [m]: as many as wanted, while there are some."""
        first, self._next = self._next, min(self._next + wanted, self._ids.numel())
        return self._ids[first : self._next]
