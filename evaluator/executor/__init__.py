"""Executes Triton IR on the CPU, all programs of a grid at once, and checks what the kernel does to memory.

    kernel = load(ttir)
    memory = [Allocation("x", x), Allocation("y", y)]
    execution = kernel.run(memory, [Pointer(0, 0), Pointer(1, 0), Scalar(64)], (8, 1, 1))

Needs numpy and torch; ``offline``, which runs other people's kernels as they launch them, needs triton. The caller sets
torch's thread count.
"""

from typing import TYPE_CHECKING, Any

from avo.evaluator.executor.allocation import Allocation, View
from avo.evaluator.executor.binding import aliases
from avo.evaluator.executor.code import DEFAULT_TEMPORARIES
from avo.evaluator.executor.errors import Deadlock, ExecutionTimeout, IRError, StuckProgram, UnsupportedOperation
from avo.evaluator.executor.execution import Execution
from avo.evaluator.executor.faults import MemoryFault
from avo.evaluator.executor.kernel import Kernel
from avo.evaluator.executor.loading import load
from avo.evaluator.executor.progress import check_progress, decides_waits
from avo.evaluator.executor.script import Script
from avo.evaluator.executor.work import Loop
from avo.evaluator.work import Counted, Trips

if TYPE_CHECKING:
    from avo.evaluator.executor.triton_offline import offline

__all__ = [
    "DEFAULT_TEMPORARIES",
    "Allocation",
    "Counted",
    "Deadlock",
    "Execution",
    "ExecutionTimeout",
    "IRError",
    "Kernel",
    "Loop",
    "MemoryFault",
    "Script",
    "StuckProgram",
    "Trips",
    "UnsupportedOperation",
    "View",
    "aliases",
    "check_progress",
    "decides_waits",
    "load",
    "offline",
]


def __getattr__(name: str) -> Any:
    """Import ``offline``, which needs triton, when it is first used."""
    if name == "offline":
        from avo.evaluator.executor.triton_offline import offline

        return offline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
