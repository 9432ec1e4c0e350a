"""What an execution of a kernel finds."""

from dataclasses import dataclass

from avo.evaluator.executor.counts import Counts
from avo.evaluator.executor.faults import MemoryFault
from avo.evaluator.work import Counted, Trips


@dataclass(frozen=True)
class Execution:
    """The findings of one execution of a kernel."""

    faults: tuple[MemoryFault, ...]
    """One fault per place, kind and buffer, at most ``faults.MAX_FAULTS`` of a kind."""
    trips: Trips
    """For each loop, how often each program that ran executed its body, int64 [programs]."""
    notes: tuple[MemoryFault, ...] = ()
    """Findings that are not faults, such as two programs storing the same value; limited alike."""
    counts: Counts | None = None
    """What each program did, if asked for."""
    work: Counted | None = None
    """What the performance model asks for, if asked for and known."""
    uncounted: str = ""
    """Why ``work`` is not known though it was asked for."""
