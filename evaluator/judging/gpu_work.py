"""The work of plans that only a GPU can run, counted from the IR of their kernels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from avo.evaluator import executor
from avo.evaluator.binary import Binary
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.executor import Counted, UnsupportedOperation
from avo.evaluator.executor.effects import READS
from avo.evaluator.executor.pointers import touched
from avo.evaluator.executor.slicing import trip_slice
from avo.evaluator.judging.execution import PlanRun
from avo.evaluator.judging.gpu_ir import Rewritten, rewrite
from avo.evaluator.judging.refusal import Refused
from avo.evaluator.plan import Buffer, Fill, KernelIR, Launch, LaunchPlan, Level, Pointer, Role
from avo.evaluator.work import LaunchWork, side_by_side

_OPEN = Buffer("open", "int8", 64, Role.SCRATCH)


def works(
    plan: LaunchPlan,
    prepared: Callable[[LaunchPlan], PlanRun],
    binaries: Mapping[KernelIR, Binary],
) -> tuple[LaunchWork, ...]:
    """Return the work of all launches of ``plan``; ``prepared`` gives memory to a plan with one more buffer.

    Partitions of a warp-specialised region are counted as ``side_by_side`` does. Raises ``Refused`` where the work
    cannot be counted.
    """
    rewritten: list[Rewritten] = []
    for kernel in plan.kernels:
        try:
            gpu = kernel.level is Level.TTGIR
            rewritten.append(rewrite(kernel.ttir) if gpu else Rewritten(kernel.ttir, (), ()))
        except UnsupportedOperation as error:
            raise Refused(Fault(Status.UNSUPPORTED, f"kernel {kernel.name}: {error}")) from None
        except (ValueError, LookupError, RecursionError) as error:  # the IR is hostile, and no verdict hangs on this
            fault = Fault(Status.UNSUPPORTED, f"kernel {kernel.name}: its IR cannot be read: {error}")
            raise Refused(fault) from None
    run = prepared(_with_open_memory(plan, rewritten))
    return tuple(
        _work(run, launch, rewritten[launch.kernel], binaries[plan.kernels[launch.kernel]], fills)
        for launch, fills in zip(run.launches(mark=False), plan.fills, strict=False)
    )


def _with_open_memory(plan: LaunchPlan, rewritten: Sequence[Rewritten]) -> LaunchPlan:
    """Return the plan with kernels as Triton IR, and memory for what they leave open."""
    levels = [kernel.level for kernel in plan.kernels]
    opened = Pointer(len(plan.buffers), 0)

    def step(step: Fill | Launch) -> Fill | Launch:
        if isinstance(step, Fill) or levels[step.kernel] is Level.TTIR:
            return step
        return replace(step, args=(*step.args, opened))

    kernels = zip(plan.kernels, rewritten, strict=True)
    return replace(
        plan,
        buffers=(*plan.buffers, _OPEN),
        kernels=tuple(replace(kernel, ttir=new.text, level=Level.TTIR) for kernel, new in kernels),
        steps=tuple(map(step, plan.steps)),
    )


def _work(run: PlanRun, launch: Launch, rewritten: Rewritten, binary: Binary, fills: tuple[int, ...]) -> LaunchWork:
    def count(kernel: executor.Kernel) -> Counted:
        if rewritten.roles and kernel.function.params[-1] in touched(trip_slice(kernel.function), READS):
            raise UnsupportedOperation("a loop that depends on what shared memory holds", "Triton GPU IR")
        return kernel.count(executor.Launch(run.buffers.allocations, launch.args, launch.grid, deadline=run.deadline))

    work = run.attempt(launch, count).of(binary, launch.programs, fills)
    opened = len(run.buffers.allocations) - 1
    if any(access.buffer == opened for access in work.accesses):  # where copies read and write is not in the IR made
        work = replace(work, accesses=(), buffer_bytes=())
    if rewritten.lines:
        loops = tuple(replace(loop, lines=_in_own_text(loop.lines, rewritten.lines)) for loop in work.loops)
        shares = tuple((_in_own_text(lines, rewritten.lines), share) for lines, share in work.shares)
        work = replace(work, loops=loops, shares=shares)
    return side_by_side(work, rewritten.roles)


def _in_own_text(place: range, lines: Sequence[int]) -> range:
    """Return which lines of the kernel's own text the lines ``place`` were made from."""
    return range(lines[place.start - 1], lines[place.stop - 2] + 1)
