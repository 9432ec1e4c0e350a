"""Execution of launch plans on the CPU: launches are run, counted and marked; one that fails is ``Refused``."""

import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch

from avo.evaluator import executor
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.executor import Execution, Progress, Script
from avo.evaluator.judging.buffers import Buffers
from avo.evaluator.judging.refusal import Refused
from avo.evaluator.plan import Fill, KernelIR, Launch, LaunchPlan, Level

EXECUTION_S, CLOSELY_S = 150.0, 900.0
"""Limits on executing all plans of one candidate; the second before acceptance, when more is executed. They count the
processor time of the judge's process, so that a busy machine refuses no candidate that a quiet one accepts. That of one
thread would not do: programs that wait for each other have a thread each.
"""
TEMPORARIES_BYTES = 512 * 2**20
"""Bytes that the executor may hold besides the buffers."""
MOST_TEMPORARIES_BYTES = 2**31
"""Bytes that the executor may hold besides the buffers where programs have to run together."""
_MEMORY_STATUS = {
    "read out of bounds": Status.OUT_OF_BOUNDS,
    "write out of bounds": Status.OUT_OF_BOUNDS,
    "read in padding": Status.OUT_OF_BOUNDS,
    "write in padding": Status.OUT_OF_BOUNDS,
    "read beside a tensor": Status.OUT_OF_BOUNDS,
    "misaligned access": Status.OUT_OF_BOUNDS,
    "integer overflow": Status.OUT_OF_BOUNDS,
    "invalid descriptor": Status.OUT_OF_BOUNDS,
    "write to an input": Status.FORBIDDEN,
    "write race": Status.RACE,
    "read-write race": Status.RACE,
    "conflicting store": Status.RACE,
    "on-chip access too early": Status.RACE,
    "missing fence": Status.RACE,
    "barrier misused": Status.RACE,
    "missing barrier": Status.RACE,
    "unfinished TMA store": Status.RACE,
    "read of uninitialised memory": Status.INCORRECT,
    "false assumption": Status.INCORRECT,
    "false hint": Status.INCORRECT,
    "assertion failed": Status.INCORRECT,
    "index out of range": Status.INCORRECT,
}
_Result = TypeVar("_Result")


def beyond(kernel: KernelIR) -> str | None:
    """Return what keeps the executor from running a kernel in Gluon, None if nothing does.

    Only a GPU can tell whether its numbers are right. A kernel in Triton that is not executed is refused instead.
    """
    if kernel.level is Level.TTIR:
        return None
    try:
        executor.load(kernel.ttir)
    except executor.UnsupportedOperation as error:
        return str(error)
    except executor.IRError:
        return None  # it is no kernel at all, which is said when it is to be run
    return None


def executable(plan: LaunchPlan) -> bool:
    """Whether the executor runs all kernels of a plan."""
    return not any(map(beyond, plan.kernels))


def deadline(*, closely: bool = False) -> float:
    """Return when the execution of a candidate that starts now must have ended, a ``time.process_time`` value."""
    return time.process_time() + (CLOSELY_S if closely else EXECUTION_S)


Resident = Callable[[KernelIR, int], int]
"""Returns how many programs, of a kernel that is launched with so many, a card holds at once."""


def unlimited(kernel: KernelIR, programs: int) -> int:
    """Return that a card holds all."""
    return programs


@dataclass(frozen=True)
class PlanRun:
    """A plan, the buffers that it runs in, the deadline, as by ``time.process_time``, and what a card has room for."""

    plan: LaunchPlan
    buffers: Buffers
    deadline: float
    resident: Resident = unlimited

    def launches(self, *, mark: bool = True) -> Iterator[Launch]:
        """Yield the launches, after doing the fills before each; ``mark`` as in ``Buffers.fill``."""
        for step in self.plan.steps:
            if isinstance(step, Fill):
                self.buffers.fill(step, mark=mark)
            else:
                yield step

    def ir(self, launch: Launch) -> KernelIR:
        """Return the kernel that is launched."""
        return self.plan.kernels[launch.kernel]

    def room(self, launch: Launch) -> int | None:
        """Return how many programs of a launch the card holds at once, if they may wait for each other."""
        if not self.attempt(launch, lambda kernel: kernel.takes_turns):
            return None
        if place := self.attempt(launch, lambda kernel: kernel.gives_up):
            what = f"kernel {self.ir(launch).name}: the wait at {place} may end before what it waits for is there"
            raise Refused(Fault(Status.UNSUPPORTED, f"{what}: wait without a limit"))
        return min(self.resident(self.ir(launch), launch.programs), launch.programs)

    def progress(self, launch: Launch, room: int | None) -> Progress:
        """Return how the waits of a launch end, if it has some, on a card that has ``room`` for so many programs.

        Refuse programs that wait for others which cannot start before they end; see ``executor.progress``.
        """
        if room is None:
            return Progress(None, 1)
        whole = executor.Launch(self.buffers.allocations, launch.args, launch.grid, deadline=self.deadline)
        return self.attempt(launch, lambda kernel: executor.progress(kernel, whole, room))

    def run(
        self,
        launch: Launch,
        programs: torch.Tensor | None = None,
        *,
        sanitize: bool = False,
        script: Script | None = None,
        lockstep: int = 1,
    ) -> Execution:
        """Execute the given programs of a launch, all by default; see ``Kernel.run``. Raises like ``sound``.

        Chosen programs run together: otherwise those that others wait for might come too late. All others take steps
        together, ``lockstep`` at a time, where those may wait for them.
        """
        asked = executor.Launch(
            self.buffers.allocations,
            launch.args,
            launch.grid,
            script,
            lockstep,
            temporaries_bytes=TEMPORARIES_BYTES if programs is None else MOST_TEMPORARIES_BYTES,
            deadline=self.deadline,
        )
        return self.sound(launch, lambda kernel: kernel.run(asked, programs, sanitize=sanitize))

    def sound(self, launch: Launch, work: Callable[[executor.Kernel], Execution]) -> Execution:
        """Return ``work`` of the executable kernel like ``attempt``; raise ``Refused`` also for what it finds."""
        execution = self.attempt(launch, work)
        if execution.faults:
            first, *others = execution.faults
            more = f" (and {len(others)} more)" if others else ""
            raise Refused(Fault(_MEMORY_STATUS[first.kind], f"{first.message}{more}", first.kind))
        return execution

    def attempt(self, launch: Launch, work: Callable[[executor.Kernel], _Result]) -> _Result:
        """Return ``work`` of the executable kernel; raise ``Refused`` with what keeps the executor from a result."""
        ir = self.ir(launch)
        try:
            return work(executor.load(ir.ttir, executor.aliases(launch.args)))
        except executor.UnsupportedOperation as error:
            fault = Fault(Status.UNSUPPORTED, f"kernel {ir.name}: {error}")
        except executor.Deadlock as error:
            fault = Fault(Status.DEADLOCK, f"kernel {ir.name}: {error}")
        except executor.ExecutionTimeout as error:
            limit = f"{EXECUTION_S:g} s of processor time for all cases, {CLOSELY_S:g} s before acceptance"
            fault = Fault(Status.TIMED_OUT, f"kernel {ir.name}: {error}: {limit}")
        except executor.IRError as error:
            fault = Fault(Status.FORBIDDEN, f"kernel {ir.name} is not valid Triton IR: {error}")
        except Exception as error:
            # The IR is hostile. Whatever else fails here is logged, and is no verdict on the numbers.
            traceback.print_exc()
            message = f"kernel {ir.name}: the executor failed with {type(error).__name__}: {error}"
            fault = Fault(Status.UNSUPPORTED, message)
        raise Refused(fault)
