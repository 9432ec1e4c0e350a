"""The buffers of one plan, as the executor takes them: the judge's inputs, poisoned outputs and scratch."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from avo.evaluator.allocation import Allocation, Sparse
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.judging.refusal import passed
from avo.evaluator.plan import Buffer, Fill, LaunchPlan, Role
from avo.evaluator.problem import Call, Case, Problem, TensorSpec

POISON = 0x55
"""The byte that fills integer scratch at the start; floating-point memory starts as NaN."""


@dataclass(frozen=True)
class Buffers:
    """The allocations of a plan, in the order of its buffers, and the outputs by name."""

    allocations: tuple[Allocation, ...]
    outputs: Mapping[str, Allocation]

    def watched(self) -> "Buffers":
        """Return the same buffers, in which reads of outputs and scratch before any write are found."""
        allocations = tuple(
            a if a.readonly else replace(a, initialised=torch.zeros(a.data.numel(), dtype=torch.bool))
            for a in self.allocations
        )
        outputs = dict(self.outputs)
        outputs.update((a.name, a) for a in allocations if a.name in outputs and a.written is not None)
        return Buffers(allocations, outputs)

    def at(self, addresses: Sequence[int]) -> "Buffers":
        """Return the same memory at other addresses."""
        return Buffers(
            tuple(replace(a, address=address) for a, address in zip(self.allocations, addresses, strict=True)),
            self.outputs,
        )

    def poison(self) -> None:
        """Set outputs and scratch to what they hold before anything is written."""
        for allocation in self.allocations:
            if not allocation.readonly:
                _poison(allocation.data)

    def fill(self, step: Fill, *, mark: bool = True) -> None:
        """Do a fill step; ``mark`` says whether what it fills counts as written."""
        allocation = self.allocations[step.buffer]
        written = allocation.written if mark else None
        for tensor, value in ((allocation.data, step.value), (written, True), (allocation.initialised, True)):
            if tensor is None:
                continue
            if allocation.sparse is None:
                tensor.as_strided(step.shape, step.strides, step.offset).fill_(value)
            else:
                passed(_stray(step, allocation))
                tensor[allocation.sparse.places(step.shape, step.strides, step.offset)] = value


def _stray(step: Fill, allocation: Allocation) -> Fault | None:
    """Return a fault if a fill of a tensor whose rows are held alone has more elements than these."""
    if math.prod(step.shape) <= allocation.data.numel():
        return None
    return Fault(Status.OUT_OF_BOUNDS, f"a fill of {allocation.name!r} also writes to memory between its rows")


def stranger(call: Call, plan: LaunchPlan) -> Fault | None:
    """Return a fault if ``plan`` declares an input or output that ``call`` does not have."""
    known = {(spec.name, spec.dtype, spec.size, spec.role) for spec in call.tensors}
    for buffer in plan.buffers:
        if buffer.role is not Role.SCRATCH and (buffer.name, buffer.dtype, buffer.size, buffer.role) not in known:
            return Fault(Status.FORBIDDEN, f"the launch plan declares {buffer.name!r}, which the call does not have")
    return None


def allocate(call: Call, plan: LaunchPlan, inputs: Mapping[str, torch.Tensor], addresses: Sequence[int]) -> Buffers:
    """Return memory for ``plan``, whose buffers get ``addresses``.

    Raises ``Refused`` when it declares inputs or outputs that ``call`` does not have.
    """
    passed(stranger(call, plan))
    outputs = {spec.name: _output(spec) for spec in call.tensors if spec.role is Role.OUTPUT}
    sparse = {spec.name: _sparse(spec) for spec in call.tensors}
    allocations = []
    for buffer, address in zip(plan.buffers, addresses, strict=True):
        if buffer.role is Role.SCRATCH:
            allocations.append(Allocation(buffer.name, _scratch(buffer), written=None, address=address))
            continue
        if buffer.role is Role.OUTPUT:
            outputs[buffer.name].address = address
            allocations.append(outputs[buffer.name])
        else:
            data, rows = inputs[buffer.name], sparse[buffer.name]
            allocations.append(Allocation(buffer.name, data, readonly=True, address=address, sparse=rows))
    return Buffers(tuple(allocations), outputs)


_SEGMENT, _BLOCK, _LARGE = 2 * 2**20, 512, 2**20
"""Bytes in torch's allocator: the unit that it asks CUDA for, the alignment of small tensors, and the size from which
tensors are not small (c10/cuda/CUDACachingAllocator.cpp)."""
_WHERE_GPUS_ALLOCATE = ((0x7E00_0000_0000, 0x7FF0_0000_0000), (0x3_0000_0000, 0x50_0000_0000))
"""Ranges of addresses that cudaMalloc and the driver's virtual memory management were seen to give."""
_FAR = 2**44


def apart(sizes: Sequence[int], chance: random.Random) -> list[int]:
    """Return secret addresses for buffers of ``sizes`` bytes, terabytes apart: no access out of bounds hits another."""
    places = chance.sample(range(1, len(sizes) + 1), len(sizes))
    return [place * _FAR + chance.randrange(2**30) * _BLOCK for place in places]


def as_allocated(sizes: Sequence[int], chance: random.Random) -> list[int]:
    """Return secret addresses for buffers of ``sizes`` bytes as a GPU's allocator might give them, packed or not.

    A kernel that looks at addresses and distances sees what it would see on a GPU.
    """
    place = chance.randrange(*chance.choice(_WHERE_GPUS_ALLOCATE), _SEGMENT)
    packed, order = chance.random() < 0.5, list(range(len(sizes)))
    if not packed:
        chance.shuffle(order)
    addresses = dict.fromkeys(order, 0)
    for i in order:
        unit = _SEGMENT if sizes[i] >= _LARGE else _BLOCK
        place = -(-place // unit) * unit
        addresses[i] = place
        place += max(sizes[i], 1) + (0 if packed else chance.randrange(64) * unit)
    return [addresses[i] for i in range(len(sizes))]


def _output(spec: TensorSpec) -> Allocation:
    size = spec.held.size
    data = _poison(torch.empty(size, dtype=getattr(torch, spec.dtype)))
    return Allocation(spec.name, data, written=torch.zeros(size, dtype=torch.bool), sparse=_sparse(spec))


def _sparse(spec: TensorSpec) -> Sparse | None:
    return Sparse(spec.shape, spec.strides) if spec.sparse else None


def _scratch(buffer: Buffer) -> torch.Tensor:
    return _poison(torch.empty(buffer.size, dtype=getattr(torch, buffer.dtype)))


def _poison(data: torch.Tensor) -> torch.Tensor:
    if data.dtype.is_floating_point:
        return data.fill_(math.nan)
    data.view(torch.uint8).fill_(POISON)
    return data


class InputCache:
    """Inputs of benchmark cases; cases whose storages have the same size and memory order share them."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._made: dict[tuple[object, ...], dict[str, torch.Tensor]] = {}

    def get(self, problem: Problem, case: Case) -> dict[str, torch.Tensor]:
        """Return the storages of ``case``'s inputs by name."""
        inputs = [spec for spec in problem.call(case).tensors if spec.role is Role.INPUT]
        # What integers say, such as which blocks are selected, follows from more than their number.
        named = any(not getattr(torch, spec.dtype).is_floating_point for spec in inputs)
        sizes = ((s.name, s.dtype, s.held.size) for s in inputs)
        key = (*sizes, case.layout, replace(case, name="") if named else None)
        if key not in self._made:
            self._made[key] = problem.make_inputs(case, self._seed)
        return self._made[key]

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Forget the inputs that are made inside, at the end."""
        before = dict(self._made)
        try:
            yield
        finally:
            self._made = before
