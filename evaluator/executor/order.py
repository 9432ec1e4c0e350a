"""Determinism: whether the order in which programs run changes a kernel's results."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from avo.evaluator.executor.allocation import Allocation
from avo.evaluator.executor.code import DEFAULT_TEMPORARIES
from avo.evaluator.executor.kernel import Kernel
from avo.evaluator.plan import Argument

CHUNKS = 4
"""Fewest chunks that programs are split into. Those of one chunk run in lockstep, chunks one after another."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Elements of one buffer whose bits depend on the order of programs."""

    tensor: str
    index: tuple[int, ...]
    """Index of the first such element."""
    elements: int
    """Number of such elements."""


def differences(
    kernel: Kernel,
    memory: Sequence[Allocation],
    args: Sequence[Argument],
    grid: tuple[int, int, int],
    seed: int = 0,
    *,
    temporaries_bytes: int = DEFAULT_TEMPORARIES,
    deadline: float | None = None,
) -> tuple[Difference, ...]:
    """Run a kernel on copies of memory, in natural and in shuffled order, and return where results differ.

    Memory is not changed. Raises like ``Kernel.run``.
    """
    total = math.prod(grid)
    together = math.ceil(total / CHUNKS) * kernel.bytes_per_program
    natural, shuffled = torch.arange(total), torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    results = []
    for programs in (natural, shuffled):
        copies = [a if a.readonly else replace(a, data=a.data.clone(), written=None, initialised=None) for a in memory]
        limit = min(together, temporaries_bytes)
        kernel.run(copies, args, grid, programs=programs, temporaries_bytes=limit, deadline=deadline)
        results.append(copies)
    found = []
    for allocation, one, other in zip(memory, *results, strict=True):
        differs = (one.data.view(torch.uint8) != other.data.view(torch.uint8)).view(-1, one.data.element_size()).any(1)
        elements = differs.nonzero().flatten()
        if elements.numel():
            index, _ = allocation.name_of(int(elements[0]))
            found.append(Difference(allocation.name, index, elements.numel()))
    return tuple(found)
