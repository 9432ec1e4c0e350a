"""Progress: whether all programs of a grid end on a card that holds only some of them at once, and who waits for whom.

A GPU starts programs in the order of their ids, as many as it has room for, and a further one when one of these ends.
Programs that wait for what is written by one that cannot start before they end wait for ever. So the waits of the whole
grid are played in that order: a slice of the kernel has them, and what they depend on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from avo.evaluator.allocation import Allocation
from avo.evaluator.executor.effects import READS
from avo.evaluator.executor.errors import Deadlock
from avo.evaluator.executor.kernel import Kernel
from avo.evaluator.executor.launch import Launch
from avo.evaluator.executor.memory import Memory
from avo.evaluator.executor.pointers import behind, touched
from avo.evaluator.executor.precedence import Precedence
from avo.evaluator.executor.scripting import Certain, record
from avo.evaluator.plan import Argument
from avo.evaluator.work import Waits


@dataclass(frozen=True)
class Progress:
    """How the waits of a grid ended."""

    waits: Waits | None
    """Who waited for whom; None if nobody did."""
    lockstep: int
    """How many consecutive programs may take each step together, as none of them waits for another."""


class _CertainPrecedence(Certain, Precedence):
    """Both."""


def decides_waits(kernel: Kernel, args: Sequence[Argument]) -> frozenset[int]:
    """Return the buffers whose contents decide how long programs of a kernel that ``takes_turns`` wait."""
    return behind(kernel.function, touched(kernel.waits.function, READS), args)


def progress(kernel: Kernel, launch: Launch, resident: int | None = None) -> Progress:
    """Play the waits of all programs of the grid where at most ``resident``, all by default, run at a time.

    ``kernel`` is one that ``takes_turns``. Memory is not changed. Raises ``Deadlock`` unless all programs end, and like
    ``Kernel.run``.

    Programs are played in groups that go in lockstep, which is cheap but has no program wait for another of its group:
    if all end, they end on the card too. If they do not, smaller groups are played, at last single programs.
    """
    spaces: list[Precedence] = []

    def watched(allocations: Sequence[Allocation], *, certain: bool) -> Memory:
        spaces.append((_CertainPrecedence if certain else Precedence)(allocations, kernel.function))
        return spaces[-1]

    group = resident = min(resident or launch.programs, launch.programs)
    while True:
        try:
            record(kernel.waits, launch, memory=watched, resident=resident // group, lockstep=group)
            return Progress(spaces[-1].waits(), group)
        except Deadlock:
            if group == 1:
                raise
            group = max(1, group // 4)
