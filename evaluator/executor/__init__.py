"""Executes Triton IR on the CPU, all programs of a grid at once, and checks what the kernel does to memory.

    kernel = load(ttir)
    memory = [Allocation("x", x), Allocation("y", y)]
    execution = kernel.run(Launch(memory, [Pointer(0, 0), Pointer(1, 0), Scalar(64)], (8, 1, 1)))

Needs numpy and torch. The caller sets torch's thread count.
"""

from avo.evaluator.allocation import Allocation, Sparse, View
from avo.evaluator.executor.binding import aliases
from avo.evaluator.executor.errors import Deadlock, ExecutionTimeout, IRError, StuckProgram, UnsupportedOperation
from avo.evaluator.executor.execution import Execution
from avo.evaluator.executor.faults import MemoryFault
from avo.evaluator.executor.kernel import Kernel
from avo.evaluator.executor.launch import Launch
from avo.evaluator.executor.loading import load
from avo.evaluator.executor.progress import Progress, decides_waits, progress
from avo.evaluator.executor.script import Script
from avo.evaluator.work import Counted

__all__ = [
    "Allocation",
    "Counted",
    "Deadlock",
    "Execution",
    "ExecutionTimeout",
    "IRError",
    "Kernel",
    "Launch",
    "MemoryFault",
    "Progress",
    "Script",
    "Sparse",
    "StuckProgram",
    "UnsupportedOperation",
    "View",
    "aliases",
    "decides_waits",
    "load",
    "progress",
]
