"""The work of plans that only a GPU can run, counted from the IR of their kernels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from evaluator import executor
from evaluator.binary import Binary
from evaluator.evaluation import Fault, Status
from evaluator.executor import Counted, UnsupportedOperation
from evaluator.executor.effects import READS
from evaluator.executor.slicing import touched, trip_slice
from evaluator.judging.execution import PlanRun
from evaluator.judging.gpu_ir import Rewritten, rewrite
from evaluator.judging.refusal import Refused
from evaluator.plan import Buffer, Fill, KernelIR, Launch, LaunchPlan, Level, Pointer, Role
from evaluator.work import Body, LaunchWork

_OPEN = Buffer("open", "int8", 64, Role.SCRATCH)


def works(
    plan: LaunchPlan,
    prepared: Callable[[LaunchPlan], PlanRun],
    binaries: Mapping[KernelIR, Binary],
) -> tuple[LaunchWork, ...]:
    """Return the work of all launches of ``plan``; ``prepared`` gives memory to a plan with one more buffer.

    Partitions of a warp-specialised region run at the same time and are counted together, in the loops of the partition
    with most loops; of several, of the one that does most matrix products. Raises ``Refused`` where the work cannot be
    counted.
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
        return kernel.count(run.buffers.allocations, launch.args, launch.grid, deadline=run.deadline)

    work = run.attempt(launch, count).of(binary, launch.programs, fills)
    opened = len(run.buffers.allocations) - 1
    if any(access.buffer == opened for access in work.accesses):  # where copies read and write is not in the IR made
        work = replace(work, accesses=(), buffer_bytes=())
    if rewritten.lines:
        loops = tuple(replace(loop, lines=_in_own_text(loop.lines, rewritten.lines)) for loop in work.loops)
        shares = tuple((_in_own_text(lines, rewritten.lines), share) for lines, share in work.shares)
        work = replace(work, loops=loops, shares=shares)
    return _side_by_side(work, rewritten.roles)


def _in_own_text(place: range, lines: Sequence[int]) -> range:
    """Return which lines of the kernel's own text the lines ``place`` were made from."""
    return range(lines[place.start - 1], lines[place.stop - 2] + 1)


def _side_by_side(work: LaunchWork, roles: Sequence[int]) -> LaunchWork:
    """Add the loops of all roles to those of the main one, in order; loops without a counterpart count as outside."""
    of_role = {role: [i for i, each in enumerate(roles) if each == role] for role in sorted(set(roles))}
    if len(of_role) < 2:
        return work
    loops, outside = work.loops, work.outside
    main = max(
        of_role,
        key=lambda role: (
            len(of_role[role]),
            sum(loops[i].trips.sum() * loops[i].body.dot_flops for i in of_role[role]),
        ),
    )
    places = of_role.pop(main)
    bodies = {i: loops[i].body for i in places}
    for theirs in of_role.values():
        for i, place in zip(theirs, places if len(theirs) == len(places) else [None] * len(theirs), strict=True):
            trips = float(loops[i].trips.sum())
            if place is not None and loops[place].trips.any():
                bodies[place] = _sum(bodies[place], loops[i].body, trips / float(loops[place].trips.sum()))
            else:
                outside = _sum(outside, loops[i].body, trips / work.programs)
    parents: dict[int | None, int] = {i: place for place, i in enumerate(places)}
    merged = tuple(replace(loops[i], parent=parents.get(loops[i].parent), body=bodies[i]) for i in places)
    return replace(work, loops=merged, outside=outside)


def _sum(body: Body, other: Body, times: float) -> Body:
    amounts = ("dot_flops", "exponentials", "load_bytes", "store_bytes", "arithmetic")
    summed = {name: getattr(body, name) + times * getattr(other, name) for name in amounts}
    return Body(**summed, entered=max(body.entered, other.entered))
