"""Work: what a launch asks of the machine, counted from its IR. Made by the executor, read by the performance model."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluator.binary import Binary


@dataclass(frozen=True, slots=True)
class Body:
    """What one pass through a loop body, or through the code outside all loops, does; nested loops not included.

    Means over all passes of all programs: branches make some do more than others.
    """

    dot_flops: float
    """Floating-point operations of matrix products."""
    exponentials: float
    load_bytes: float
    """Bytes that loads ask for, masked elements included."""
    store_bytes: float


Trips = tuple[npt.NDArray[np.int64], ...]
"""For each loop, how often each program executes its body, int64 [programs]."""


@dataclass(frozen=True)
class LoopWork:
    """One loop of a kernel."""

    parent: int | None
    """Index of the enclosing loop, None at top level."""
    body: Body
    trips: npt.NDArray[np.int64]
    """[programs]: how often each program runs the body in all, in program order (x fastest)."""


@dataclass(frozen=True)
class LaunchWork:
    """One launch of a kernel."""

    binary: Binary
    programs: int
    loops: tuple[LoopWork, ...]
    """The loops in order of appearance in the IR, a parent before its children."""
    outside: Body
    """Work of the code outside all loops, per program."""

    def total(self, what: str) -> float:
        """Return a field of ``Body``, e.g. ``dot_flops``, added up over all programs."""
        inside = sum(float(loop.trips.sum()) * float(getattr(loop.body, what)) for loop in self.loops)
        return inside + self.programs * float(getattr(self.outside, what))


@dataclass(frozen=True)
class Counted:
    """What a launch asks of the machine, before its kernel is compiled."""

    trips: Trips
    bodies: tuple[Body, ...]
    """For each loop, the mean work of a pass through its body, without nested loops."""
    outside: Body
    """The mean work of a program outside all loops."""
    parents: tuple[int | None, ...] = ()
    """For each loop, the index of the enclosing one, None at top level."""

    def of(self, binary: Binary, programs: int) -> LaunchWork:
        """Return the work of the launch of ``programs`` programs with a compiled kernel."""
        loops = tuple(LoopWork(*each) for each in zip(self.parents, self.bodies, self.trips, strict=True))
        return LaunchWork(binary, programs, loops, self.outside)
