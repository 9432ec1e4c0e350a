"""Checks whether reads of uninitialised memory change results: kernels often load such memory and discard it."""

from dataclasses import replace

import torch

from avo.evaluator.allocation import Allocation
from avo.evaluator.executor.execution import Execution
from avo.evaluator.executor.kernel import Kernel
from avo.evaluator.executor.launch import Launch

KIND = "read of uninitialised memory"
_PATTERNS = (0xFF, 0x3C, 0x00, 0x7F, 0x80)
"""Bytes that memory is filled with: NaN in every float type, a small number in most, zero, a large number, and a very
negative integer."""


class Garbage:
    """Holds the contents of memory before a launch, to launch again with other uninitialised contents."""

    def __init__(self, kernel: Kernel, launch: Launch) -> None:
        self._kernel = kernel
        self._launch = launch
        self._changed = kernel.may_write(launch.args)
        self._before = [
            replace(
                allocation,
                data=allocation.data.clone() if i in self._changed else allocation.data,
                initialised=None if allocation.initialised is None else allocation.initialised.clone(),
            )
            for i, allocation in enumerate(launch.memory)
        ]

    def settle(self, execution: Execution) -> Execution:
        """Return the execution with reads of uninitialised memory among the notes if they change no result."""
        reads = tuple(fault for fault in execution.faults if fault.kind == KIND)
        if not reads or any(self._differs(pattern) for pattern in _PATTERNS):
            return execution
        notes = (
            replace(read, message=f"{read.message}; other contents in its place change no result") for read in reads
        )
        faults = tuple(fault for fault in execution.faults if fault.kind != KIND)
        return replace(execution, faults=faults, notes=(*execution.notes, *notes))

    def _differs(self, pattern: int) -> bool:
        """Whether the launch gives other results where uninitialised memory is filled with ``pattern``."""
        again = [self._with(allocation, i, pattern) for i, allocation in enumerate(self._before)]
        self._kernel.run(replace(self._launch, memory=again))
        return any(_differ(self._launch.memory[i], again[i].data) for i in self._changed)

    def _with(self, allocation: Allocation, i: int, pattern: int) -> Allocation:
        data = allocation.data
        if allocation.initialised is not None or i in self._changed:
            data = data.clone()
        if allocation.initialised is not None and data.numel():
            missing = ~allocation.initialised
            data.view(torch.uint8).view(data.numel(), -1)[missing] = 1 if data.dtype is torch.bool else pattern
        return Allocation(allocation.name, data)


def _differ(allocation: Allocation, other: torch.Tensor) -> bool:
    a, b = (data.view(torch.uint8).view(data.numel(), -1) for data in (allocation.data, other))
    different = (a != b).any(1)
    if allocation.initialised is not None:
        different &= allocation.initialised
    return bool(different.any())
