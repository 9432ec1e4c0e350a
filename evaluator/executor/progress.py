"""Progress: whether all programs of a grid end on a card that holds only some of them at once.

A GPU starts programs in the order of their ids, as many as it has room for, and a further one when one of these ends.
Programs that wait for what is written by one that cannot start before they end wait for ever. So the waits of the whole
grid are played in that order: a slice of the kernel has them, and what they depend on.
"""

from collections.abc import Sequence
from functools import lru_cache

from avo.evaluator.executor.code import Code
from avo.evaluator.executor.effects import READS
from avo.evaluator.executor.errors import Deadlock
from avo.evaluator.executor.kernel import Kernel
from avo.evaluator.executor.launch import Launch
from avo.evaluator.executor.pointers import behind, touched
from avo.evaluator.executor.scripting import record, scripted
from avo.evaluator.executor.waiting import polls
from avo.evaluator.plan import Argument


@lru_cache(maxsize=16)
def _waits(kernel: Kernel) -> Code:
    return scripted(kernel.function, polls(kernel.function))


def decides_waits(kernel: Kernel, args: Sequence[Argument]) -> frozenset[int]:
    """Return the buffers whose contents decide how long programs of a kernel that ``takes_turns`` wait."""
    return behind(kernel.function, touched(_waits(kernel).function, READS), args)


def check_progress(kernel: Kernel, launch: Launch, resident: int) -> None:
    """Raise ``Deadlock`` unless all programs of the grid end where at most ``resident`` run at a time.

    ``kernel`` is one that ``takes_turns``. Memory is not changed. Otherwise raises like ``Kernel.run``.

    Programs are played in groups that go in lockstep, which is cheap but has no program wait for another of its group:
    if all end, they end on the card too. If they do not, smaller groups are played, at last single programs.
    """
    code = _waits(kernel)

    def play(resident: int, lockstep: int) -> None:
        record(code, launch, resident=resident, lockstep=lockstep)

    group = resident
    while True:
        try:
            return play(resident // group, group)
        except Deadlock:
            if group == 1:
                raise
            group = max(1, group // 4)
