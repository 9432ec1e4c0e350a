"""The race detector's records: which programs accessed what, and which accesses are ordered.

Programs of a launch are ordered by atomic operations only. Every granule of a buffer keeps stamps: which
program accessed it, and at what time of its own, as in FastTrack (Flanagan and Freund, PLDI 2009).
"""

from typing import Protocol

import torch

from avo.evaluator.executor.faults import Ordering
from avo.evaluator.executor.rows import row_table

Tensor = torch.Tensor

MAX_CLOCKED = 2048
"""Most programs with vector clocks, whose clocks together form a square of this side."""
MAX_CLOCK_WORDS = 2**24
"""Most words for the clocks of all places where atomic operations synchronise."""


class Order(Protocol):
    """Which accesses happen before which."""

    dtype: torch.dtype
    every: bool
    """Whether all programs that access a granule in one step must be known, or two of them suffice."""

    def stamps(self, programs: Tensor) -> Tensor:
        """Return stamps [n], at least 0, for what programs [n] do now."""

    def before(self, stamps: Tensor, programs: Tensor) -> Tensor:
        """Return whether the accesses with stamps [n] happened before what programs [n] do now, bool [n]."""

    def program(self, stamp: int) -> int:
        """Return the program of a stamp."""


class Unordered:
    """The order where accesses of different programs are never ordered."""

    dtype = torch.int32
    every = False

    def stamps(self, programs: Tensor) -> Tensor:
        """Return the programs as stamps."""
        return programs.to(self.dtype)

    def before(self, stamps: Tensor, programs: Tensor) -> Tensor:
        """Return whether programs are the same."""
        return stamps == programs

    def program(self, stamp: int) -> int:
        """Return the program of a stamp."""
        return stamp


class Clocks:
    """Vector clocks that atomic operations advance.

    A release joins the clock of its place, so that a release sequence continues through the atomic operations of other
    programs; a relaxed operation changes nothing.
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
        """Whether there were too many places to track."""

    def stamps(self, programs: Tensor) -> Tensor:
        """Return stamps: the program, plus its own time as a multiple of the number of programs."""
        return programs + self._programs * self._now[programs, programs].to(torch.int64)

    def before(self, stamps: Tensor, programs: Tensor) -> Tensor:
        """Return whether programs know of the time at which stamps were made."""
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
        """Record what programs [n] know at the distinct addresses [n]."""
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
    """Accesses of one kind to the granules of a buffer, by at most two programs each."""

    def __init__(self, granules: int, order: Order, *, latest: bool = False) -> None:
        """With ``latest``, keep only the latest access to each granule."""
        self._order = order
        self._one = torch.full((granules,), -1, dtype=order.dtype)
        self._two: Tensor | None = None
        self._latest = latest

    def spread(self, granules: int, length: int, start: int) -> None:
        """Count in ``granules`` from now on, of which rows of ``length`` from ``start`` on counted as one before."""

        def spread(slot: Tensor) -> Tensor:
            wide = slot.new_full((granules,), -1)
            row_table(wide, length, start).copy_(slot[:, None])
            return wide

        self._one, self._two = spread(self._one), None if self._two is None else spread(self._two)

    def unordered(self, cells: Tensor, programs: Tensor) -> Tensor | None:
        """Return, for each granule [n], the stamp of an access not ordered before what programs [n] do now, or -1.

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
        """Record accesses of programs [n] to granules [n].

        Return, for each granule, the stamp of another program of the same step that was recorded in place of this one,
        or -1; None if there is no such granule.
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
