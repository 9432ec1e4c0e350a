"""Buffers of one plan: the judge's inputs, poisoned outputs and scratch, as the executor takes them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from evaluator.evaluation import Fault, Status
from evaluator.executor import Allocation
from evaluator.plan import Buffer, Fill, LaunchPlan, Role
from evaluator.problem import Call, Case, Problem, TensorSpec

_POISON = 0x55
"""Byte that integer scratch starts with; floating-point memory starts as NaN."""


@dataclass(frozen=True)
class Buffers:
    """The allocations of a plan, in the order of its buffers, and the outputs by name."""

    allocations: tuple[Allocation, ...]
    outputs: Mapping[str, Allocation]

    def unmarked(self) -> "Buffers":
        """Return the same buffers, with nothing marked as written."""
        allocations = tuple(
            a if a.written is None else replace(a, written=torch.zeros_like(a.written)) for a in self.allocations
        )
        return self._with(allocations)

    def watched(self) -> "Buffers":
        """Return the same buffers, with reads of outputs and scratch that nothing has written found out."""
        return self._with(
            tuple(
                a if a.readonly else replace(a, initialised=torch.zeros(a.data.numel(), dtype=torch.bool))
                for a in self.allocations
            )
        )

    def _with(self, allocations: tuple[Allocation, ...]) -> "Buffers":
        """Return these allocations in place of the same ones."""
        outputs = dict(self.outputs)
        outputs.update((a.name, a) for a in allocations if a.name in outputs and a.written is not None)
        return Buffers(allocations, outputs)

    def fill(self, step: Fill, *, mark: bool = True) -> None:
        """Carry out a fill step; ``mark`` says whether what it fills counts as written."""
        allocation = self.allocations[step.buffer]
        written = allocation.written if mark else None
        for tensor, value in ((allocation.data, step.value), (written, True), (allocation.initialised, True)):
            if tensor is not None:
                tensor.as_strided(step.shape, step.strides, step.offset).fill_(value)


def allocate(call: Call, plan: LaunchPlan, inputs: Mapping[str, torch.Tensor]) -> Buffers | Fault:
    """Return memory for ``plan``, or a fault when it declares other inputs and outputs than ``call`` has."""
    specs = {spec.name: spec for spec in call.tensors}
    outputs = {spec.name: _output(spec) for spec in call.tensors if spec.role is Role.OUTPUT}
    allocations = []
    for buffer in plan.buffers:
        if buffer.role is Role.SCRATCH:
            allocations.append(Allocation(buffer.name, _poisoned(buffer), written=None, readonly=False))
            continue
        spec = specs.get(buffer.name)
        if spec is None or (spec.dtype, spec.size, spec.role) != (buffer.dtype, buffer.size, buffer.role):
            return Fault(Status.FORBIDDEN, f"the launch plan declares {buffer.name!r}, which the call does not have")
        if buffer.role is Role.OUTPUT:
            allocations.append(outputs[buffer.name])
        else:
            allocations.append(Allocation(buffer.name, inputs[buffer.name], written=None, readonly=True))
    return Buffers(tuple(allocations), outputs)


def _output(spec: TensorSpec) -> Allocation:
    data = torch.full((spec.size,), float("nan"), dtype=getattr(torch, spec.dtype))
    return Allocation(spec.name, data, written=torch.zeros(spec.size, dtype=torch.bool), readonly=False)


def _poisoned(buffer: Buffer) -> torch.Tensor:
    dtype: torch.dtype = getattr(torch, buffer.dtype)
    if dtype.is_floating_point:
        return torch.full((buffer.size,), float("nan"), dtype=dtype)
    return torch.full((buffer.nbytes,), _POISON, dtype=torch.uint8).view(dtype)


class InputCache:
    """Inputs of benchmark cases; cases whose storages have the same size share them."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._made: dict[tuple[tuple[str, str, int], ...], dict[str, torch.Tensor]] = {}

    def get(self, problem: Problem, case: Case) -> dict[str, torch.Tensor]:
        """Return the storages of ``case``'s inputs by name."""
        key = tuple((s.name, s.dtype, s.size) for s in problem.call(case).tensors if s.role is Role.INPUT)
        if key not in self._made:
            self._made[key] = problem.make_inputs(case, self._seed)
        return self._made[key]
