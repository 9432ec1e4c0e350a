"""Stages: the launches of a plan in order, each with what is known of it before its programs run.

The data that decides where programs read and store, and how often they loop, has to be in memory by then. Launches that
make such data are executed whole, unless they do matrix products; all others can be counted, and sampled later.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from avo.evaluator import executor
from avo.evaluator.binary import Binary
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.executor import Allocation, Counted, Execution, Progress
from avo.evaluator.judging.buffers import Buffers
from avo.evaluator.judging.execution import TEMPORARIES_BYTES, PlanRun
from avo.evaluator.judging.refusal import Refused
from avo.evaluator.plan import KernelIR, Launch
from avo.evaluator.work import LaunchWork

Marks = dict[int, torch.Tensor]
"""Marked elements: one bool per element, by buffer. Buffers that do not matter are left out."""


@dataclass(frozen=True)
class Stage:
    """One launch of a plan."""

    run: PlanRun
    launch: Launch
    kernel: executor.Kernel
    launched: executor.Launch
    """What the executor is given for it: its script, and all buffers, copies of those that decide, as they are when the
    launch is reached.
    """
    whole: bool
    """Whether it was executed, because later launches depend on it."""
    fills: tuple[int, ...]
    """Bytes of each fill that goes with it: see ``LaunchPlan.fills``."""
    counted: Counted

    def work(self, binaries: Mapping[KernelIR, Binary]) -> LaunchWork:
        """Return the work of the launch, given the binary of its kernel."""
        return self.counted.of(binaries[self.run.ir(self.launch)], self.launch.programs, self.fills)

    def mark(self, marks: Marks, programs: torch.Tensor, *, reads: bool = False) -> Execution:
        """Set marks where programs [n], by linear ids, store or, with ``reads``, load. Raises ``Refused``."""
        launch = self._marked(marks)
        return self.run.sound(self.launch, lambda kernel: kernel.mark(launch, programs, reads=reads))

    def check_accesses(self, addresses: Sequence[int], programs: torch.Tensor) -> Execution:
        """Check where programs [n] read and write if buffers have these addresses. Raises ``Refused``."""
        memory = zip(self.launched.memory, addresses, strict=True)
        launch = self._with([replace(allocation, address=address) for allocation, address in memory])
        return self.run.sound(self.launch, lambda kernel: kernel.check_accesses(launch, programs))

    def writers(self, wanted: Marks) -> torch.Tensor:
        """Return the programs, by linear ids, that store to some element that is marked."""
        return self.run.attempt(self.launch, lambda kernel: kernel.writers(self._marked(wanted)))

    def check_hints(self, chance: random.Random, most: float) -> None:
        """Check what the kernel states to the compiler, as far as that costs little; raise ``Refused`` if it is false.

        All programs are looked at. Where that takes more than ``most`` elements, random ones are that take as many, and
        all only for hints that take no block of elements.
        """

        def check(kernel: executor.Kernel) -> Execution:
            each = torch.from_numpy(kernel.hint_elements(self.counted.trips, self.launch.programs))
            order = torch.tensor(chance.sample(range(self.launch.programs), self.launch.programs))
            number = max(1, int((each[order].cumsum(0) <= most).sum()))
            return kernel.hint_violations(self.launched, order[:number].sort().values)

        self.run.sound(self.launch, check)

    def race_candidates(self) -> tuple[torch.Tensor, ...]:
        """Return pairs of programs, int64 [n, 2], that race unless something orders them; see ``Kernel``."""

        def find(kernel: executor.Kernel) -> tuple[torch.Tensor, ...]:
            changed = kernel.may_write(self.launch.args)
            return kernel.race_candidates(self._marked(no_marks(self.run.buffers, changed)))

        return self.run.attempt(self.launch, find)

    def uncounted(self, programs: torch.Tensor, execution: Execution) -> list[torch.Tensor]:
        """Return, for each loop that does more than wait, by how much programs [n] looped more often than counted:
        each, or where one may do the work of others all together, [1].
        """
        counted = (torch.from_numpy(trips[programs.numpy()]) for trips in self.counted.trips)
        pairs = enumerate(zip(execution.trips, counted, strict=True))
        more = [torch.from_numpy(ran) - known for i, (ran, known) in pairs if i not in self.kernel.waiting]
        return [each.sum(0, keepdim=True) for each in more] if self.kernel.takes_over else more

    def flops(self, programs: torch.Tensor) -> float:
        """Return the matrix work of programs."""
        counted, chosen = self.counted, programs.numpy()
        loops = zip(counted.bodies, counted.trips, strict=True)
        inside = sum(body.dot_flops * float(trips[chosen].sum()) for body, trips in loops)
        return inside + counted.outside.dot_flops * programs.numel()

    def _marked(self, marks: Marks) -> executor.Launch:
        return self._with([replace(a, written=marks.get(i)) for i, a in enumerate(self.launched.memory)])

    def _with(self, memory: Sequence[Allocation]) -> executor.Launch:
        return replace(self.launched, memory=memory, temporaries_bytes=TEMPORARIES_BYTES)


def stages(run: PlanRun) -> tuple[Stage, ...]:
    """Return the stages of a plan, in the run's buffers; raise ``Refused`` where its work cannot be counted."""
    kernels = [run.attempt(launch, lambda kernel: kernel) for launch in run.plan.launches]
    rooms = [run.room(launch) for launch in run.plan.launches]
    needed = [_needed(run, *each) for each in zip(run.plan.launches, rooms, strict=True)]
    whole, fills = _decisive(kernels, run.plan.launches, needed), run.plan.fills
    found: list[Stage] = []
    unmade: frozenset[int] = frozenset()
    for i, launch in enumerate(run.launches(mark=False)):
        kernel, needs = kernels[i], needed[i]
        if unmade & (needs | kernel.may_read(launch.args) if i in whole else needs):
            message = f"what kernel {run.ir(launch).name} does depends on what an earlier launch computes"
            fault = Fault(Status.UNSUPPORTED, f"{message} with matrix products: the work cannot be counted")
            raise Refused(fault)
        progress = run.progress(launch, rooms[i])
        found.append(_stage(run, launch, kernel, needs, fills[i], progress, i in whole))
        if i in whole:
            run.run(launch)
        else:
            unmade |= kernel.may_write(launch.args)
    return tuple(found)


def _needed(run: PlanRun, launch: Launch, room: int | None) -> frozenset[int]:
    """Return the buffers that must hold what the launch finds there, so that its work can be counted, and its programs'
    waits played, if it has some.
    """
    needs = run.attempt(launch, lambda kernel: kernel.content_dependencies(launch.args))
    if room is None:
        return needs
    return needs | run.attempt(launch, lambda kernel: executor.decides_waits(kernel, launch.args))


def _decisive(
    kernels: Sequence[executor.Kernel], launches: Sequence[Launch], needs: Sequence[frozenset[int]]
) -> frozenset[int]:
    """Return the launches without matrix products that make what later ones need to be counted."""
    found: set[int] = set()
    needed: frozenset[int] = frozenset()
    for i in reversed(range(len(launches))):
        kernel, args = kernels[i], launches[i].args
        if not kernel.multiplies and needed & kernel.may_write(args):
            found.add(i)
            needed |= kernel.may_read(args)
        needed |= needs[i]
    return frozenset(found)


def _stage(
    run: PlanRun,
    launch: Launch,
    kernel: executor.Kernel,
    needs: frozenset[int],
    fills: tuple[int, ...],
    progress: Progress,
    whole: bool,
) -> Stage:
    memory = tuple(
        replace(a, data=a.data.clone()) if i in needs and not a.readonly else a
        for i, a in enumerate(run.buffers.allocations)
    )

    found = executor.Launch(memory, launch.args, launch.grid, deadline=run.deadline)
    script = run.attempt(launch, lambda kernel: kernel.script(found))
    launched = replace(found, script=script, lockstep=progress.lockstep)
    counted = run.attempt(launch, lambda kernel: kernel.count(launched))
    counted = replace(counted, waits=progress.waits)
    run.attempt(launch, lambda kernel: kernel.check_barriers(launched))
    return Stage(run, launch, kernel, launched, whole, fills, counted)


def no_marks(buffers: Buffers, chosen: Iterable[int]) -> Marks:
    """Return marks of the chosen buffers, none of them set."""
    return {i: torch.zeros(buffers.allocations[i].data.numel(), dtype=torch.bool) for i in chosen}
