"""One case's launch plan on a device: its memory, its inputs, its steps, and whether what it wrote is correct."""

import os
import random
from collections.abc import Mapping, Sequence

import torch

from avo.evaluator.allocation import Allocation
from avo.evaluator.binary import Binary
from avo.evaluator.cuda.device import Device, PlanFault
from avo.evaluator.evaluation import CaseResult, Fault, Status
from avo.evaluator.judging.buffers import POISON, stranger
from avo.evaluator.judging.compare import Checked, Rows, compare, only, uncovered
from avo.evaluator.plan import Buffer, Fill, LaunchPlan, Role
from avo.evaluator.problem import Absolute, Case, Problem, TensorSpec, rows_of

GUARD_BYTES = int(os.environ.get("AVO_GUARD_BYTES", 2**16))
"""Size of the guards before and after every buffer. All their bits are set: a read gives NaN, a write is noticed. There
are none under compute-sanitizer, which takes an access to them for right.
"""
_GUARD = 0xFF
SAMPLED_ROWS = 16
"""Rows of each of two heads that are compared with the reference after a run at a benchmark shape."""

Inputs = Mapping[str, torch.Tensor]


class _Region:
    """The memory of one buffer, between its guards."""

    def __init__(self, buffer: Buffer, place: torch.device) -> None:
        self._bytes = torch.full((buffer.nbytes + 2 * GUARD_BYTES,), _GUARD, dtype=torch.uint8, device=place)
        self._end = GUARD_BYTES + buffer.nbytes
        dtype: torch.dtype = getattr(torch, buffer.dtype)
        self.buffer = buffer
        self.flat = self._bytes[GUARD_BYTES : self._end].view(dtype)
        self._start = _GUARD if dtype.is_floating_point else POISON  # with all bits set a float is NaN

    def poison(self) -> None:
        """Forget what was written."""
        self._bytes[GUARD_BYTES : self._end].fill_(self._start)

    def holds(self, given: torch.Tensor) -> bool:
        """Return whether the buffer's bits are those of ``given``."""
        return torch.equal(self.flat.view(torch.uint8), given.view(torch.uint8))

    def intact(self) -> bool:
        """Return whether nothing was written around the buffer."""
        return bool((self._bytes[:GUARD_BYTES] == _GUARD).all() and (self._bytes[self._end :] == _GUARD).all())

    def written(self) -> torch.Tensor:
        """Return, per element, whether its bits have changed since ``poison``."""
        changed = self._bytes[GUARD_BYTES : self._end].view(self.buffer.size, -1) != self._start
        return changed.any(1)


class Running:
    """A plan with memory of its own. A run is ``renew``, ``prepare``, ``enqueue``, ``collect`` and ``verify``.

    Inputs are made on the device from a seed, and made again to verify: nothing that a kernel could reach is trusted.
    """

    ungraphed = ""
    """Why what ``enqueue`` does cannot be recorded as a graph; empty where it can."""

    def __init__(
        self,
        device: Device,
        problem: Problem,
        case: Case,
        plan: LaunchPlan,
        binaries: Sequence[Binary],
        beside: "Running | None" = None,
    ) -> None:
        """``binaries`` are those of the plan's kernels, in order; ``beside`` has a plan with the same buffers, whose
        memory serves both.

        Raises ``PlanFault``, and ``DeviceFault`` where a binary does not fit.
        """
        self.case = case
        self._device, self._problem, self._plan = device, problem, plan
        self._seed, self._whole = 0, True
        self._planted: Mapping[str, tuple[int, int, int]] = {}
        if fault := stranger(problem.call(case), plan):
            raise PlanFault(fault.message)
        self._specs = {spec.name: spec for spec in problem.call(case).tensors}
        self._kernels = [device.load(ir, binary) for ir, binary in zip(plan.kernels, binaries, strict=True)]
        self._regions: list[_Region] = (
            beside._regions if beside else [_Region(buffer, device.place) for buffer in plan.buffers]
        )
        self._flat = [region.flat for region in self._regions]

    def view(self, name: str) -> torch.Tensor:
        """Return one of the call's tensors, on the device."""
        return _view(self.flat(name), self._specs[name])

    def flat(self, name: str) -> torch.Tensor:
        """Return the storage of one of the call's tensors."""
        (flat,) = (region.flat for region in self._regions if region.buffer.name == name)
        return flat

    def renew(self, seed: int, *, whole: bool = False) -> None:
        """Replace all inputs with what ``seed`` makes, and poison outputs and scratch.

        ``whole``: the inputs are the problem's own, and everything is compared. Otherwise one row is planted in them,
        and that row and some others are compared.
        """
        self._seed, self._whole = seed, whole
        inputs = self._inputs()
        for region in self._regions:
            if region.buffer.role is Role.INPUT:
                region.flat.copy_(inputs[region.buffer.name])
            else:
                region.poison()

    def prepare(self) -> None:
        """Do on new inputs what is not timed: a plan needs nothing."""

    def enqueue(self) -> None:
        """Enqueue the plan's steps."""
        for step in self._plan.steps:
            if isinstance(step, Fill):
                flat = self._flat[step.buffer]  # behind a guard: torch counts offsets from the start of the storage
                offset = flat.storage_offset() + step.offset
                flat.as_strided(step.shape, step.strides, offset).fill_(step.value)
            else:
                self._kernels[step.kernel](step.grid, step.args, self._flat)

    def collect(self) -> None:
        """After a run, bring its results to where ``verify`` looks for them: kernels have written them there."""

    def spoil(self) -> None:
        """Change one number in the planted row of the last run's first output."""
        first, *_ = self._problem.outputs
        self.view(first.name)[self._planted[first.rows]].view(-1)[0] += 1.0

    def verify(self) -> Checked:
        """Compare the last run with the reference. Every element must be written and finite; guards and inputs must be
        unchanged.
        """
        with self._device.place:
            inputs = self._inputs()
            if fault := self._trespass(inputs):
                return self._failed(fault)
            outputs = {
                region.buffer.name: Allocation(region.buffer.name, region.flat, written=region.written())
                for region in self._regions
                if region.buffer.role is Role.OUTPUT
            }
            fault = self._missing(outputs) or uncovered(self._problem, self.case, outputs) or self._undefined(outputs)
            if fault:
                return self._failed(fault)
            if not self._whole:
                outputs = only(self._problem, self.case, outputs, self.compared())
            return compare(self._problem, self.case, inputs, outputs, whole=self._whole)

    def compared(self) -> Rows:
        """Return which rows of the last run are compared: the planted one, and some of its head and of another."""
        chance, found = random.Random(~self._seed), {}
        for of, (output, *_) in rows_of(self._problem.outputs).items():
            shape = batch, heads, length = self._specs[output.name].shape[:3]
            if self._whole:
                found[of] = torch.ones(shape, dtype=torch.bool, device=self._device.place)
                continue
            found[of] = rows = torch.zeros(shape, dtype=torch.bool, device=self._device.place)
            for head in (self._planted[of][:2], (chance.randrange(batch), chance.randrange(heads))):
                rows[head][chance.sample(range(length), min(SAMPLED_ROWS, length))] = True
            rows[self._planted[of]] = True
        return found

    def _inputs(self) -> Inputs:
        """Return the storages of the run's inputs, on the device."""
        with self._device.place:
            made = self._problem.make_inputs(self.case, self._seed)
        inputs = {name: storage.to(self._device.place) for name, storage in made.items()}
        if not self._whole:
            self._planted = self._problem.plant(self.case, inputs, random.Random(self._seed))
        return inputs

    def _trespass(self, inputs: Inputs) -> Fault | None:
        for region in self._regions:
            name = region.buffer.name
            if not region.intact():
                message = f"case {self.case.name}: a kernel writes outside {name!r}, within {GUARD_BYTES} bytes of it"
                return Fault(Status.OUT_OF_BOUNDS, message)
            if region.buffer.role is Role.INPUT and not region.holds(inputs[name]):
                return Fault(Status.FORBIDDEN, f"case {self.case.name}: a kernel writes to the input {name!r}")
        return None

    def _missing(self, outputs: Mapping[str, Allocation]) -> Fault | None:
        for name in (output.name for output in self._problem.outputs):
            if name not in outputs:
                return Fault(Status.UNWRITTEN, f"case {self.case.name}: the launch plan leaves {name} out")
        return None

    def _undefined(self, outputs: Mapping[str, Allocation]) -> Fault | None:
        """Look at every element, also in rows that are not compared."""
        for output in self._problem.outputs:
            name, found = output.name, _view(outputs[output.name].data, self._specs[output.name])
            # A logarithm may be infinite.
            allowed = ~torch.isnan(found) if isinstance(output.tolerance, Absolute) else torch.isfinite(found)
            if wrong := int((~allowed).count_nonzero()):
                message = f"case {self.case.name}: {wrong} elements of {name} are not finite"
                return Fault(Status.INCORRECT, message)
        return None

    def _failed(self, fault: Fault) -> Checked:
        return Checked(CaseResult(self.case.name, False, None, None, fault.message), fault)


def _view(flat: torch.Tensor, spec: TensorSpec) -> torch.Tensor:
    return flat.as_strided(spec.shape, spec.strides)
