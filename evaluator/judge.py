"""The judge: the trusted side. It never imports a candidate; it runs the candidate's launch plans and decides."""

import hashlib
import random
import secrets
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import torch

from evaluator import buffers, capture, compiler, executor
from evaluator.binary import Binary
from evaluator.buffers import Buffers
from evaluator.candidate import CANDIDATE_FILE, Candidate
from evaluator.capture import Capturer
from evaluator.compare import compare, uncovered
from evaluator.compiler import Compiler, fit
from evaluator.errors import UnknownProblem
from evaluator.evaluation import CaseResult, CaseScore, Evaluation, Fault, Resources, Score, Status
from evaluator.executor import Counted, Execution
from evaluator.performance import ModelError, Profile, Source, explain, predict, resources
from evaluator.plan import Fill, KernelIR, Launch, LaunchPlan
from evaluator.problem import Case, Problem, get_problem, get_suite
from evaluator.sandbox import ForkServer, Sandbox
from evaluator.target import Target
from evaluator.work import LaunchWork, LoopWork

EXECUTION_S = 150.0
"""Wall-clock limit on executing all plans of one candidate."""
SAMPLE_PROGRAMS = 6
"""Programs executed at one benchmark shape, unless their matrix work exceeds ``SAMPLE_FLOP``."""
SAMPLE_FLOP = 6e9
REDUCED_FLOP = 2e10
"""Matrix work that a case reduced to two heads may have; a longer one is reduced to one head."""
LEAST_WORK = 0.999
"""Share of the useful FLOPs that a plan with matrix products must be seen to compute at a benchmark shape."""
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
    "read of uninitialised memory": Status.INCORRECT,
    "false assumption": Status.INCORRECT,
    "false hint": Status.INCORRECT,
    "assertion failed": Status.INCORRECT,
    "index out of range": Status.INCORRECT,
}
_Result = TypeVar("_Result")

TEMPORARIES_BYTES = 512 * 2**20
"""What the executor may hold beside the buffers."""


@dataclass
class _Findings:
    """What is known so far about the candidate under judgement."""

    cases: list[CaseResult] = field(default_factory=list)
    resources: list[Resources] = field(default_factory=list)
    plan_digest: str | None = None


class Judge:
    """Judges candidates for one target and suite. Not thread-safe; ``close`` when done."""

    def __init__(
        self,
        target: Target,
        suite: str,
        *,
        capture_cpu_s: int = capture.DEFAULT_LIMITS.cpu_s,
        sandbox: Sandbox = Sandbox.AUTO,
    ) -> None:
        self.target = target
        self.suite = suite
        self._private = tempfile.TemporaryDirectory(prefix="avo-judge-")
        server = ForkServer((capture.CHILD_MODULE, compiler.JOB_MODULE), sandbox=sandbox)
        self._server = server
        self._capturer = Capturer(server, replace(capture.DEFAULT_LIMITS, cpu_s=capture_cpu_s))
        self._compiler = Compiler(Path(self._private.name), server=server)
        # Seeds are this process's secret; and as candidates never meet data, inputs may serve many of them.
        self._random = random.Random(secrets.randbits(64))
        self._inputs = buffers.InputCache(self._random.getrandbits(62))
        self._judged: dict[str, Evaluation] = {}

    def close(self) -> None:
        """End the child processes and remove temporary files."""
        self._server.close()
        self._private.cleanup()

    def __enter__(self) -> "Judge":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def evaluate(self, candidate: Candidate) -> Evaluation:
        """Return the verdict on ``candidate``.

        Raises ``UnknownProblem`` for a problem or suite that is none, ``EvaluatorUnavailable`` when a child process
        cannot be had.
        """
        started = time.monotonic()
        problem = get_problem(candidate.problem)
        benchmarks = get_suite(problem, self.suite)
        plans = self._plans(candidate, problem, (*problem.correctness_cases, *benchmarks))
        findings = _Findings()
        if isinstance(plans, Fault):
            return self._evaluation(plans, findings, started)
        findings.plan_digest = hashlib.sha256("".join(plan.digest for plan in plans).encode()).hexdigest()
        known = self._judged.get(findings.plan_digest)
        if known is not None:
            return replace(known, seconds=time.monotonic() - started)
        split = len(problem.correctness_cases)
        outcome = self._judge(candidate, problem, plans[:split], benchmarks, plans[split:], findings)
        evaluation = self._evaluation(outcome, findings, started)
        self._judged[findings.plan_digest] = evaluation
        return evaluation

    def profile(self, candidate: Candidate, case: str | None = None) -> tuple[Profile, ...] | Fault:
        """Return why ``candidate`` is as fast as predicted, for each benchmark case or the one called ``case``.

        Its numbers are not checked. Raises like ``evaluate``, and ``UnknownProblem`` for a case that is none.
        """
        problem = get_problem(candidate.problem)
        suite = get_suite(problem, self.suite)
        cases = [found for found in suite if case in (None, found.name)]
        if not cases:
            raise UnknownProblem("case", str(case), tuple(found.name for found in suite))
        plans = self._plans(candidate, problem, cases)
        if isinstance(plans, Fault):
            return plans
        # What the judge has compiled before may carry the line table of another source with the same IR.
        binaries = self._compile(plans, _Findings(), Compiler(None, server=self._server))
        if isinstance(binaries, Fault):
            return binaries
        deadline = time.monotonic() + EXECUTION_S
        source = Source(CANDIDATE_FILE, candidate.source)
        profiles = []
        for chosen, plan in zip(cases, plans, strict=True):
            held = buffers.allocate(problem.call(chosen), plan, self._inputs.get(problem, chosen))
            works = held if isinstance(held, Fault) else _works(plan, held, deadline, binaries)
            if isinstance(works, Fault):
                return works
            useful, least = problem.flops(chosen), problem.least_bytes(chosen)
            try:
                profiles.append(explain(chosen.name, useful, least, works, self.target, source))
            except ModelError as error:
                return Fault(Status.UNSUPPORTED, f"no prediction for {self.target.name}: {error}")
        return tuple(profiles)

    def _plans(self, candidate: Candidate, problem: Problem, cases: Sequence[Case]) -> tuple[LaunchPlan, ...] | Fault:
        """Return the candidate's launch plans for ``cases``."""
        calls = [problem.call(case) for case in cases]
        plans = self._capturer.capture(candidate.source, problem.entry, calls, self.target)
        if isinstance(plans, Fault):
            return plans
        # The executor reads lines, MLIR does not: both are given what MLIR's printer makes of the text.
        return self._compiler.canonical(plans, self.target)

    def _evaluation(self, outcome: Score | Fault, findings: _Findings, started: float) -> Evaluation:
        fault = outcome if isinstance(outcome, Fault) else None
        return Evaluation(
            status=fault.status if fault else Status.CORRECT,
            message=fault.message if fault else "",
            target=self.target.name,
            suite=self.suite,
            seconds=time.monotonic() - started,
            score=None if isinstance(outcome, Fault) else outcome,
            cases=tuple(findings.cases),
            resources=tuple(findings.resources),
            plan_digest=findings.plan_digest,
        )

    def _judge(
        self,
        candidate: Candidate,
        problem: Problem,
        plans: tuple[LaunchPlan, ...],
        benchmarks: tuple[Case, ...],
        benchmark_plans: tuple[LaunchPlan, ...],
        findings: _Findings,
    ) -> Score | Fault:
        deadline = time.monotonic() + EXECUTION_S
        for case, plan in zip(problem.correctness_cases, plans, strict=True):
            fault = self._check_whole(problem, case, plan, deadline, findings, sanitize=True)
            if fault:
                return fault
        binaries = self._compile(benchmark_plans, findings)
        if isinstance(binaries, Fault):
            return binaries
        scores = []
        for case, plan in zip(benchmarks, benchmark_plans, strict=True):
            score = self._score(candidate, problem, case, plan, binaries, deadline, findings)
            if isinstance(score, Fault):
                return score
            scores.append(score)
        return Score(self.target.kind, self.target.name, tuple(scores))

    def _check_whole(
        self,
        problem: Problem,
        case: Case,
        plan: LaunchPlan,
        deadline: float,
        findings: _Findings,
        *,
        sanitize: bool = False,
    ) -> Fault | None:
        """Execute every program of ``plan`` and compare everything it should have written.

        ``sanitize`` also looks for races and for reads of memory that nothing has written.
        """
        inputs = problem.make_inputs(case, self._random.getrandbits(62))
        held = buffers.allocate(problem.call(case), plan, inputs)
        if isinstance(held, Fault):
            return held
        if sanitize:
            held = held.watched()
        trips = _trips_before(problem, case, plan, inputs, deadline) if len(plan.launches) > 1 else None
        if isinstance(trips, Fault):
            return trips
        executed = []
        for launch in _launches(plan, held):
            execution = _execute(plan, launch, held, deadline, sanitize=sanitize)
            if isinstance(execution, Fault):
                return replace(execution, message=f"case {case.name}: {execution.message}")
            executed.append([int(loop.sum()) for loop in execution.trips])
        if trips is not None and trips != executed:
            message = "how often loops run depends on what an earlier launch computes: the work cannot be counted"
            return Fault(Status.UNSUPPORTED, message)
        comparison = compare(problem, case, inputs, held.outputs, whole=True)
        findings.cases.append(comparison.result)
        return comparison.fault

    def _compile(
        self, plans: tuple[LaunchPlan, ...], findings: _Findings, fresh: Compiler | None = None
    ) -> "dict[KernelIR, Binary] | Fault":
        binaries: dict[KernelIR, Binary] = {}
        for kernel in (kernel for plan in plans for kernel in plan.kernels):
            if kernel in binaries:
                continue
            binary = (fresh or self._compiler).compile(kernel, self.target)
            if isinstance(binary, Fault):
                return binary
            binaries[kernel] = binary
            findings.resources.append(resources(binary, self.target))
            misfit = fit(binary, self.target)
            if misfit:
                return misfit
        return binaries

    def _score(
        self,
        candidate: Candidate,
        problem: Problem,
        case: Case,
        plan: LaunchPlan,
        binaries: dict[KernelIR, Binary],
        deadline: float,
        findings: _Findings,
    ) -> CaseScore | Fault:
        """Count the work at a benchmark shape, check a sample of its programs and predict the time."""
        inputs = self._inputs.get(problem, case)
        held = buffers.allocate(problem.call(case), plan, inputs)
        if isinstance(held, Fault):
            return held
        works = _works(plan, held, deadline, binaries)
        if isinstance(works, Fault):
            return works
        missing = _missing_work(case, plan, works, problem.flops(case)) or _missing_coverage(
            problem, case, plan, held, deadline
        )
        if missing:
            return missing
        fault = self._check_sample(problem, case, plan, works, inputs, held, deadline, findings)
        if fault is None and (len(works) > 1 or _programs_interact(plan)):
            fault = self._check_reduced(candidate, problem, case, deadline, findings)
        if fault:
            return fault
        try:
            return predict(case.name, problem.flops(case), problem.least_bytes(case), works, self.target)
        except ModelError as error:
            return Fault(Status.UNSUPPORTED, f"no prediction for {self.target.name}: {error}")

    def _check_sample(
        self,
        problem: Problem,
        case: Case,
        plan: LaunchPlan,
        works: Sequence[LaunchWork],
        inputs: Mapping[str, torch.Tensor],
        held: Buffers,
        deadline: float,
        findings: _Findings,
    ) -> Fault | None:
        """Execute some programs of every launch that stands alone, and compare what they wrote."""
        chosen = _standing_alone(plan, held)
        for i in chosen:
            execution = _execute(plan, plan.launches[i], held, deadline, self._sample(works[i]))
            if isinstance(execution, Fault):
                return replace(execution, message=f"case {case.name}: {execution.message}")
        if not chosen:
            return None
        comparison = compare(problem, case, inputs, held.outputs, whole=False, every=len(works) == 1)
        findings.cases.append(comparison.result)
        return comparison.fault

    def _check_reduced(
        self, candidate: Candidate, problem: Problem, case: Case, deadline: float, findings: _Findings
    ) -> Fault | None:
        """Execute the whole plan for one or two heads of ``case``, at its full lengths, and compare everything."""
        reduced = replace(case, name=f"{case.name}-reduced", batch=1, heads=2, kv_heads=2)
        if problem.flops(reduced) > REDUCED_FLOP:
            reduced = replace(reduced, heads=1, kv_heads=1)
        plans = self._plans(candidate, problem, [reduced])
        if isinstance(plans, Fault):
            return plans
        return self._check_whole(problem, reduced, plans[0], deadline, findings)

    def _sample(self, work: LaunchWork) -> list[int]:
        """Return the first program, the last, and random ones, as far as their matrix work allows."""
        count = min(SAMPLE_PROGRAMS, work.programs)
        first_and_last = [0, work.programs - 1][: work.programs]
        others = self._random.sample(range(work.programs), count)
        chosen: list[int] = []
        flop = 0.0
        for program in dict.fromkeys(first_and_last + others):
            flop += work.outside.dot_flops + sum(loop.body.dot_flops * int(loop.trips[program]) for loop in work.loops)
            if len(chosen) == count or (flop > SAMPLE_FLOP and len(chosen) >= 2):
                break
            chosen.append(program)
        return sorted(chosen)


def _launches(plan: LaunchPlan, held: Buffers, *, mark: bool = True) -> Iterator[Launch]:
    """Yield the launches of a plan, the fills before each of them done."""
    for step in plan.steps:
        if isinstance(step, Fill):
            held.fill(step, mark=mark)
        else:
            yield step


def _execute(
    plan: LaunchPlan,
    launch: Launch,
    held: Buffers,
    deadline: float,
    programs: list[int] | None = None,
    *,
    sanitize: bool = False,
) -> Execution | Fault:
    def run(kernel: executor.Kernel) -> Execution:
        chosen = None if programs is None else torch.tensor(programs)
        return kernel.run(
            held.allocations,
            launch.args,
            launch.grid,
            programs=chosen,
            temporaries_bytes=TEMPORARIES_BYTES,
            deadline=deadline,
            sanitize=sanitize,
        )

    execution = _executing(plan.kernels[launch.kernel], run)
    if isinstance(execution, Fault):
        return execution
    fault = _memory_fault(execution)
    if fault:
        return fault
    return execution


def _memory_fault(execution: Execution) -> Fault | None:
    faults = execution.faults
    if not faults:
        return None
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return Fault(_MEMORY_STATUS[faults[0].kind], f"{faults[0].message}{more}")


def _trips_before(
    problem: Problem, case: Case, plan: LaunchPlan, inputs: Mapping[str, torch.Tensor], deadline: float
) -> list[list[int]] | Fault:
    """Return the trips of each loop of each launch, as counted at benchmark shapes: before any launch has run."""
    held = buffers.allocate(problem.call(case), plan, inputs)
    if isinstance(held, Fault):
        return held
    counted = []
    for launch in _launches(plan, held):
        work = _counted(plan, launch, held, deadline)
        if isinstance(work, Fault):
            return work
        counted.append([int(loop.sum()) for loop in work.trips])
    return counted


def _counted(plan: LaunchPlan, launch: Launch, held: Buffers, deadline: float) -> Counted | Fault:
    def count(kernel: executor.Kernel) -> Counted:
        return kernel.count(held.allocations, launch.args, launch.grid, deadline=deadline)

    return _executing(plan.kernels[launch.kernel], count)


def _missing_work(case: Case, plan: LaunchPlan, works: Sequence[LaunchWork], useful: int) -> Fault | None:
    """Refuse a plan whose kernels multiply matrices, but fewer than the case takes."""
    multiplies = any(executor.load(kernel.ttir).multiplies for kernel in plan.kernels)
    counted = sum(work.total("dot_flops") for work in works)
    if multiplies and counted < LEAST_WORK * useful:
        message = f"case {case.name}: {counted:.3g} FLOPs of matrix products are counted where {useful:.3g} are due"
        return Fault(Status.INCORRECT, f"{message}: work is missing at this shape")
    return None


def _missing_coverage(problem: Problem, case: Case, plan: LaunchPlan, held: Buffers, deadline: float) -> Fault | None:
    """Refuse a plan whose launches, all programs of them together, do not write every element of the outputs."""
    marked = held.unmarked()
    unmade: frozenset[int] = frozenset()
    for launch in plan.launches:
        ir = plan.kernels[launch.kernel]
        kernel = executor.load(ir.ttir)
        # No launch has been executed: what one would have left in memory decides nothing here.
        if unmade & kernel.needs(marked.allocations, launch.args):
            message = f"case {case.name}: what kernel {ir.name} does depends on what an earlier launch computes"
            return Fault(Status.UNSUPPORTED, f"{message}: the work cannot be counted")
        unmade |= kernel.changes(launch.args)

        def mark(kernel: executor.Kernel, launch: Launch = launch) -> Execution:
            return kernel.mark(
                marked.allocations,
                launch.args,
                launch.grid,
                temporaries_bytes=TEMPORARIES_BYTES,
                deadline=deadline,
            )

        execution = _executing(ir, mark)
        if isinstance(execution, Fault):
            return execution
        fault = _memory_fault(execution)
        if fault:
            return replace(fault, message=f"case {case.name}: {fault.message}")
    return uncovered(problem, case, marked.outputs)


def _standing_alone(plan: LaunchPlan, held: Buffers) -> list[int]:
    """Return the launches of which some programs can be run: the only one, and of several those that read inputs alone
    and write outputs for good.

    What a program makes of another launch's scratch depends on programs that are not run; and alone, one that draws
    tickets would do all the work.
    """
    kernels = [executor.load(plan.kernels[launch.kernel].ttir) for launch in plan.launches]
    if len(kernels) == 1:
        return [] if kernels[0].programs_interact else [0]
    changes = [kernel.changes(launch.args) for kernel, launch in zip(kernels, plan.launches, strict=True)]
    outputs = {i for i, allocation in enumerate(held.allocations) if allocation.written is not None}
    alone = []
    for i, (kernel, launch) in enumerate(zip(kernels, plan.launches, strict=True)):
        reads_inputs = all(held.allocations[buffer].readonly for buffer in kernel.reads(launch.args))
        mine = changes[i] & outputs
        others = frozenset().union(*changes[:i], *changes[i + 1 :])
        if reads_inputs and mine and not kernel.programs_interact and mine.isdisjoint(others):
            alone.append(i)
    return alone


def _programs_interact(plan: LaunchPlan) -> bool:
    return any(executor.load(kernel.ttir).programs_interact for kernel in plan.kernels)


def _works(
    plan: LaunchPlan, held: Buffers, deadline: float, binaries: dict[KernelIR, Binary]
) -> list[LaunchWork] | Fault:
    """Count the work of all launches."""
    works = []
    for launch in _launches(plan, held, mark=False):
        work = _count(plan, launch, held, deadline, binaries)
        if isinstance(work, Fault):
            return work
        works.append(work)
    return works


def _count(
    plan: LaunchPlan, launch: Launch, held: Buffers, deadline: float, binaries: dict[KernelIR, Binary]
) -> LaunchWork | Fault:
    ir = plan.kernels[launch.kernel]
    counted = _counted(plan, launch, held, deadline)
    if isinstance(counted, Fault):
        return counted
    loops = zip(executor.load(ir.ttir).loops, counted.bodies, counted.trips, strict=True)
    return LaunchWork(
        binaries[ir],
        launch.programs,
        tuple(LoopWork(loop.parent, body, trips) for loop, body, trips in loops),
        counted.outside,
    )


def _executing(ir: KernelIR, work: Callable[[executor.Kernel], _Result]) -> _Result | Fault:
    """Return ``work`` of the executable kernel; what keeps the executor from a result is a fault that says so."""
    try:
        return work(executor.load(ir.ttir))
    except executor.UnsupportedOperation as error:
        return Fault(Status.UNSUPPORTED, f"kernel {ir.name}: {error}")
    except executor.ExecutionTimeout as error:
        return Fault(Status.TIMED_OUT, f"kernel {ir.name}: {error}; all cases together have {EXECUTION_S:g} s")
    except executor.IRError as error:
        return Fault(Status.FORBIDDEN, f"kernel {ir.name} is not valid Triton IR: {error}")
    except Exception as error:
        # The IR is hostile: whatever else fails here is recorded, and is no verdict on the numbers.
        traceback.print_exc()
        return Fault(Status.UNSUPPORTED, f"kernel {ir.name}: the executor failed with {type(error).__name__}: {error}")
