"""Launches: what a kernel is executed with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from avo.evaluator.allocation import Allocation
from avo.evaluator.executor.script import Script
from avo.evaluator.plan import Argument

DEFAULT_TEMPORARIES = 2**31
"""Default limit in bytes for the values of the programs that run together."""


@dataclass(frozen=True)
class Launch:
    """A grid of programs with their arguments, the memory that these point into, and what the execution may take."""

    memory: Sequence[Allocation]
    args: Sequence[Argument]
    grid: tuple[int, int, int]
    script: Script | None = None
    """The results of the kernel's deciding reads; None: they are found out where that is needed."""
    lockstep: int = 1
    """How many consecutive programs may take each step together where programs wait for others; see ``Progress``."""
    temporaries_bytes: int = DEFAULT_TEMPORARIES
    """Bytes that the values of programs that run together may take."""
    deadline: float | None = None
    """A ``time.process_time`` value; None: the execution may take as long as it takes."""

    @property
    def programs(self) -> int:
        """Number of programs in the grid."""
        return math.prod(self.grid)
