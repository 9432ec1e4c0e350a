"""Executes Triton IR on the CPU, all programs of a grid at once, and checks what the kernel does to memory.

    kernel = load(ttir)
    memory = [Allocation("x", x), Allocation("y", y)]
    execution = kernel.run(memory, [Pointer(0, 0), Pointer(1, 0), Scalar(64)], (8, 1, 1))

Needs numpy and torch; ``offline``, which runs other people's kernels as they launch them, needs triton. The caller sets
torch's thread count.
"""

from typing import TYPE_CHECKING, Any

from evaluator.executor.allocation import Allocation, View
from evaluator.executor.binding import aliases
from evaluator.executor.code import DEFAULT_TEMPORARIES
from evaluator.executor.errors import Deadlock, ExecutionTimeout, IRError, StuckProgram, UnsupportedOperation
from evaluator.executor.execution import Execution
from evaluator.executor.faults import MemoryFault
from evaluator.executor.kernel import Kernel
from evaluator.executor.loading import load
from evaluator.executor.progress import check_progress, decides_waits
from evaluator.executor.script import Script
from evaluator.executor.work import Loop
from evaluator.work import Counted, Trips

if TYPE_CHECKING:
    from evaluator.executor.triton_offline import offline

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
        from evaluator.executor.triton_offline import offline

        return offline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
