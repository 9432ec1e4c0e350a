"""Who accessed what, and what of it is ordered: the memory of the race detector.

Programs of a launch are unordered but for what atomic operations order. Every granule of a buffer keeps stamps: which
program accessed it, and at what time of its own, as in FastTrack (Flanagan and Freund, PLDI 2009).
"""

from typing import Protocol

import torch

from evaluator.executor.faults import Ordering

Tensor = torch.Tensor

MAX_CLOCKED = 2048
"""Programs with a vector clock each, at most: their clocks are a square of this side."""
MAX_CLOCK_WORDS = 2**24
"""Words that the clocks of all places which atomic operations synchronise at may have."""


class Order(Protocol):
    """What happens before what."""

    dtype: torch.dtype
    every: bool
    """Whether it matters which of the programs that access something in one step they are, or two of them will do."""

    def stamps(self, programs: Tensor) -> Tensor:
        """Return stamps [n], at least 0, of what programs [n] do now."""

    def before(self, stamps: Tensor, programs: Tensor) -> Tensor:
        """Return whether what was stamped [n] happened before what programs [n] do now, bool [n]."""

    def program(self, stamp: int) -> int:
        """Return the program of a stamp."""


class Unordered:
    """Nothing that different programs do is ordered."""

    dtype = torch.int32
    every = False

    def stamps(self, programs: Tensor) -> Tensor:
        """Return stamps."""
        return programs.to(self.dtype)

    def before(self, stamps: Tensor, programs: Tensor) -> Tensor:
        """Return whether programs are the same."""
        return stamps == programs

    def program(self, stamp: int) -> int:
        """Return the program of a stamp."""
        return stamp


class Clocks:
    """Vector clocks, moved by atomic operations. A release joins the clock of its place, so that a release sequence
    goes on through the atomic operations of others; a relaxed operation moves nothing.
    """

    dtype = torch.int64
    every = True

    def __init__(self, programs: int) -> None:
        self._programs = programs
        self._now = torch.eye(programs, dtype=torch.int32)
        self._rows: dict[int, int] = {}
        self._places = torch.zeros(0, dtype=torch.int64)
        self._released = torch.zeros(16, programs, dtype=torch.int32)
        self.lost = False
        """Whether there were too many places to keep track of."""

    def stamps(self, programs: Tensor) -> Tensor:
        """Return stamps: program, and its own time as a multiple of the number of programs."""
        return programs + self._programs * self._now[programs, programs].to(torch.int64)

    def before(self, stamps: Tensor, programs: Tensor) -> Tensor:
        """Return whether a program knows of the time at which a stamp was made."""
        others = stamps % self._programs
        return (others == programs) | (self._now[programs, others] >= stamps // self._programs)

    def program(self, stamp: int) -> int:
        """Return the program of a stamp."""
        return stamp % self._programs

    def acquire(self, places: Tensor, programs: Tensor, order: Ordering) -> None:
        """Let programs [n] know what was released at addresses [n]."""
        if not order.acquire or order.block_only:
            return
        known = torch.isin(places, self._places)
        if bool(known.any()):
            places, programs = places[known], programs[known]
            learnt = self._released[[self._rows[place] for place in places.tolist()]]
            self._now.scatter_reduce_(0, programs[:, None].expand(learnt.shape), learnt, "amax")

    def release(self, places: Tensor, programs: Tensor, order: Ordering) -> None:
        """Leave what programs [n] know at addresses [n], which are all different."""
        if not order.release or order.block_only or self.lost:
            return
        rows = [self._rows.setdefault(place, len(self._rows)) for place in places.tolist()]
        count = len(self._rows)
        if count > self._places.numel():
            if count * self._programs > MAX_CLOCK_WORDS:
                self.lost = True
                return
            self._places = torch.tensor(list(self._rows))
            if count > len(self._released):
                grown = self._released.new_zeros(2 * count, self._programs)
                grown[: len(self._released)] = self._released
                self._released = grown
        self._released[rows] = torch.maximum(self._released[rows], self._now[programs])
        mine = programs.unique()
        self._now[mine, mine] += 1


class Trace:
    """Accesses of one kind to the granules of a buffer: those of two programs, where there are several."""

    def __init__(self, granules: int, order: Order, *, latest: bool = False) -> None:
        """Keep only the latest access if ``latest``."""
        self._order = order
        self._one = torch.full((granules,), -1, dtype=order.dtype)
        self._two: Tensor | None = None
        self._latest = latest

    def unordered(self, cells: Tensor, programs: Tensor) -> Tensor | None:
        """Return the stamp of an access to each granule [n] that is not before what programs [n] do now, else -1.

        None if there is no such access.
        """
        found: Tensor | None = None
        for slot in (self._one, self._two):
            if slot is None:
                continue
            stamps = slot[cells]
            wrong = (stamps >= 0) & ~self._order.before(stamps, programs)
            if bool(wrong.any()):
                stamps = torch.where(wrong, stamps, -1)
                found = stamps if found is None else torch.where(found < 0, stamps, found)
        return found

    def add(self, cells: Tensor, programs: Tensor) -> Tensor | None:
        """Note accesses to granules [n] by programs [n].

        Return the stamp that each granule now has, where another program's in the same step has taken its place, else
        -1; None if none has.
        """
        stamps = self._order.stamps(programs)
        if self._latest:
            self._one[cells] = stamps
            now = self._one[cells]
            taken = now != stamps
            return torch.where(taken, now, -1) if bool(taken.any()) else None
        held = self._one[cells]
        free = (held < 0) | self._order.before(held, programs)
        if bool(free.all()):
            self._one[cells] = stamps
        else:
            self._one[cells[free]] = stamps[free]
        over = self._one[cells] != stamps
        if bool(over.any()):
            if self._two is None:
                self._two = torch.full_like(self._one, -1)
            self._two[cells[over]] = stamps[over]
        return None
