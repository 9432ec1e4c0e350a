"""Determinism: whether the order in which programs run changes a kernel's results."""

import math
from dataclasses import dataclass, replace

import torch

from avo.evaluator.executor.kernel import Kernel
from avo.evaluator.executor.launch import Launch

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


def differences(kernel: Kernel, launch: Launch, seed: int = 0) -> tuple[Difference, ...]:
    """Run a kernel on copies of memory, in natural and in shuffled order, and return where results differ.

    Memory is not changed. Raises like ``Kernel.run``.
    """
    total = launch.programs
    together = math.ceil(total / CHUNKS) * kernel.bytes_per_program
    limit = min(together, launch.temporaries_bytes)
    natural, shuffled = torch.arange(total), torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    results = []
    for programs in (natural, shuffled):
        copies = [
            a if a.readonly else replace(a, data=a.data.clone(), written=None, initialised=None) for a in launch.memory
        ]
        kernel.run(replace(launch, memory=copies, temporaries_bytes=limit), programs)
        results.append(copies)
    found = []
    for allocation, one, other in zip(launch.memory, *results, strict=True):
        differs = (one.data.view(torch.uint8) != other.data.view(torch.uint8)).view(-1, one.data.element_size()).any(1)
        elements = differs.nonzero().flatten()
        if elements.numel():
            index, _ = allocation.name_of(int(elements[0]))
            found.append(Difference(allocation.name, index, elements.numel()))
    return tuple(found)
