"""What threads of a program tell each other through memory: between store and load there must be a barrier, and between
load and store.

A GPU runs the threads of a program side by side, and Triton synchronises them for shared memory only. Which element of
a block belongs to which thread is the layout's business; the same element of blocks of one shape counts as the same
thread's, unless two partitions have them. Elements of a scalar belong to no thread: one stores it, all load it. Where
one is loaded and then stored, the others rarely need its old value, so that is not reported, nor is a load whose value
only the thread that stores needs. A block of one element is stored as a scalar is.
"""

import math
from collections.abc import Collection

import torch

from avo.evaluator.executor.effects import effects
from avo.evaluator.executor.ir import Function, Op

Tensor = torch.Tensor

_NOBODY, _SEVERAL, _SENT, _SCALAR, _LONE = -1, -2, -3, -4, -(2**20)
"""Threads without a number. A scalar of partition p belongs to ``_SCALAR - p``, a block of one element to
``_LONE - p``.
"""


def needed_by_one(function: Function) -> frozenset[int]:
    """Return the scalars from which nothing but the values of scalar stores is computed: one thread needs them."""
    types = function.types
    needed = {slot for op in function.body.ops for slot in op.results if not types[slot].shape}

    def spreads(op: Op) -> bool:
        """Whether an operation lets other threads act on its operands."""
        row = effects(op.name)
        computes = not (row.accesses or row.control or row.on_chip or op.regions)
        return not (computes and op.results and needed.issuperset(op.results))

    while found := {
        slot
        for op in function.body.ops
        for given in (op.operands, *(values for _, values in op.successors))
        for i, slot in enumerate(given)
        if slot in needed and not (op.name == "tt.store" and i == 1) and spreads(op)
    }:
        needed -= found
    return frozenset(needed)


class Barriers:
    """Which threads accessed the granules of some buffers last, and before which of their program's barriers."""

    def __init__(self, buffers: Collection[int], programs: int) -> None:
        """Watch ``buffers`` in a run of ``programs`` programs."""
        self._buffers = frozenset(buffers)
        self._passed = torch.zeros(programs, dtype=torch.int64)
        self._stored: dict[int, Tensor] = {}
        """For each buffer [3, granules]: the program, the thread, and how many barriers the program had passed."""
        self._loaded: dict[int, Tensor] = {}
        self._first: dict[tuple[int, tuple[int, ...]], int] = {}
        """The number of the first thread of blocks of each partition and shape."""
        self._threads = 0
        self.between_partitions = False
        """Whether a partition beside the default one has accessed a watched buffer."""

    def watches(self, buffer: int) -> bool:
        """Whether accesses to a buffer are watched."""
        return buffer in self._buffers

    def passed(self, programs: Tensor) -> None:
        """Note that programs, positions [n], reach a barrier."""
        self._passed[programs] += 1

    def arrived(self, programs: Tensor) -> None:
        """Note that programs, positions [n], have waited until all that they sent was written."""
        for stored in self._stored.values():
            own = (stored[1] == _SENT) & torch.isin(stored[0], programs.int())
            stored[1, own], stored[2, own] = _SEVERAL, self._passed[stored[0, own].long()].int()

    def threads(self, shape: tuple[int, ...], partition: int, *, sent: bool = False) -> Tensor:
        """Return a number for the thread of each element of a partition's block, int64 [elements]; all the same if TMA
        sends it.
        """
        if sent:
            return torch.full((math.prod(shape),), _SENT)
        self.between_partitions |= partition > 0
        if math.prod(shape) == 1:
            return torch.full(shape or (1,), (_LONE if shape else _SCALAR) - partition).flatten()
        if (key := (partition, shape)) not in self._first:
            self._first[key], self._threads = self._threads, self._threads + math.prod(shape)
        return torch.arange(math.prod(shape)) + self._first[key]

    def store(
        self, buffer: int, granules: int, cells: Tensor, programs: Tensor, threads: Tensor, *, by_all: bool = False
    ) -> Tensor:
        """Note stores by threads [n] of programs [n] to some of a buffer's granules, cells [n].

        Return whether other threads of the programs loaded what is stored over, with no barrier since, bool [n]. What
        is stored ``by_all`` that hold an element may have been loaded by another one of them.
        """
        now = self._now(programs, threads)
        before = self._of(self._loaded, buffer, granules)[:, cells]
        self._of(self._stored, buffer, granules)[:, cells] = now
        sent = threads == _SENT  # the compiler puts a barrier before it sends
        late = _together if by_all else _by_others
        return late(_as_scalars(before), _as_scalars(now)) & ~sent

    def send(self, buffer: int, granules: int, cells: Tensor, programs: Tensor) -> None:
        """Note that TMA updates some of a buffer's granules, cells [n], for programs [n]."""
        self._of(self._stored, buffer, granules)[:, cells] = self._now(programs, torch.full_like(programs, _SENT))

    def load(
        self, buffer: int, granules: int, cells: Tensor, programs: Tensor, threads: Tensor, *, by_one: bool = False
    ) -> Tensor:
        """Note loads. Return whether other threads of the programs stored what is loaded, with no barrier since.

        Of scalars loaded ``by_one``, only the thread that also stores scalars needs the value.
        """
        now, loaded = self._now(programs, threads), self._of(self._loaded, buffer, granules)
        several = _by_others(loaded[:, cells], now)
        loaded[:, cells] = now
        several |= _by_others(loaded[:, cells], now)
        loaded[1, cells[several]] = _SEVERAL
        stored = self._of(self._stored, buffer, granules)[:, cells]
        others = (stored[1] != now[1]) & (stored[1] != _SENT)
        by_all = (now[1] <= _SCALAR) & (now[1] > _LONE) & (not by_one)
        return _together(stored, now) & (others | by_all)

    def sent(self, buffer: int, cells: Tensor) -> Tensor:
        """Return which of a buffer's granules, cells [n], may still be written by TMA, bool [n]."""
        if buffer not in self._stored:
            return torch.zeros(len(cells), dtype=torch.bool)
        return self._stored[buffer][1, cells] == _SENT

    def _of(self, accesses: dict[int, Tensor], buffer: int, granules: int) -> Tensor:
        if buffer not in accesses:
            accesses[buffer] = torch.full((3, granules), _NOBODY, dtype=torch.int32)
        return accesses[buffer]

    def _now(self, programs: Tensor, threads: Tensor) -> Tensor:
        return torch.stack((programs, threads, self._passed[programs])).int()


def _together(before: Tensor, now: Tensor) -> Tensor:
    """Return whether accesses [3, n] are of the same programs, with no barrier between, bool [n]."""
    same: Tensor = (before[0] == now[0]) & (before[2] == now[2])
    return same


def _as_scalars(accesses: Tensor) -> Tensor:
    """Return accesses [3, n] with blocks of one element taken for scalars."""
    program, thread, passed = accesses
    return torch.stack((program, torch.where(thread <= _LONE, thread + (_SCALAR - _LONE), thread), passed))


def _by_others(before: Tensor, now: Tensor) -> Tensor:
    """Return whether accesses are those of ``_together``, but of different threads, bool [n]."""
    return _together(before, now) & (before[1] != now[1])
