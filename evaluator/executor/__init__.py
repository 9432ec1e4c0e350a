"""Executes Triton IR on the CPU, all programs of a grid at once, and watches what the kernel does to memory.

    kernel = load(ttir)
    memory = [Allocation("x", x), Allocation("y", y)]
    execution = kernel.run(memory, [Pointer(0, 0), Pointer(1, 0), Scalar(64)], (8, 1, 1))

Needs numpy and torch, not triton. The caller sets torch's thread count.
"""

from evaluator.executor.errors import ExecutionTimeout, IRError, UnsupportedOperation
from evaluator.executor.faults import MemoryFault
from evaluator.executor.kernel import DEFAULT_TEMPORARIES, Execution, Kernel, Trips, load
from evaluator.executor.memory import Allocation
from evaluator.executor.work import Loop

__all__ = [
    "DEFAULT_TEMPORARIES",
    "Allocation",
    "Execution",
    "ExecutionTimeout",
    "IRError",
    "Kernel",
    "Loop",
    "MemoryFault",
    "Trips",
    "UnsupportedOperation",
    "load",
]
