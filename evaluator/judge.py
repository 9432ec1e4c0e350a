"""The judge: the trusted side. It never imports a candidate; it runs the candidate's launch plans and decides."""

import hashlib
import random
import secrets
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import torch

from evaluator import buffers, capture, compiler, executor
from evaluator.binary import Binary
from evaluator.buffers import Buffers
from evaluator.candidate import Candidate
from evaluator.capture import Capturer
from evaluator.compare import compare, uncovered
from evaluator.compiler import Compiler, fit
from evaluator.evaluation import CaseResult, CaseScore, Evaluation, Fault, Resources, Score, Status
from evaluator.executor import Execution, Trips
from evaluator.performance import ModelError, ctas_per_sm, predict
from evaluator.plan import Fill, KernelIR, Launch, LaunchPlan
from evaluator.problem import Case, Problem, get_problem, get_suite
from evaluator.sandbox import ForkServer
from evaluator.target import Target
from evaluator.work import LaunchWork, LoopWork

EXECUTION_S = 150.0
"""Wall-clock limit on executing all plans of one candidate."""
SAMPLE_PROGRAMS = 6
"""Programs executed at one benchmark shape, unless their matrix work exceeds ``SAMPLE_FLOP``."""
SAMPLE_FLOP = 6e9
REDUCED_FLOP = 2e10
"""Matrix work that a case reduced to two heads may have; a longer one is reduced to one head."""
LEAST_WORK = 0.9
"""Share of the useful FLOPs that a plan with matrix products must be seen to compute at a benchmark shape."""
_MEMORY_STATUS = {
    "read out of bounds": Status.OUT_OF_BOUNDS,
    "write out of bounds": Status.OUT_OF_BOUNDS,
    "misaligned access": Status.OUT_OF_BOUNDS,
    "write to an input": Status.FORBIDDEN,
    "false assumption": Status.INCORRECT,
    "false hint": Status.INCORRECT,
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

    def __init__(self, target: Target, suite: str, *, capture_cpu_s: int = capture.DEFAULT_LIMITS.cpu_s) -> None:
        self.target = target
        self.suite = suite
        self._private = tempfile.TemporaryDirectory(prefix="avo-judge-")
        server = ForkServer((capture.CHILD_MODULE, compiler.JOB_MODULE))
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
            fault = self._check_whole(problem, case, plan, deadline, findings)
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
        self, problem: Problem, case: Case, plan: LaunchPlan, deadline: float, findings: _Findings
    ) -> Fault | None:
        """Execute every program of ``plan`` and compare everything it should have written."""
        inputs = problem.make_inputs(case, self._random.getrandbits(62))
        held = buffers.allocate(problem.call(case), plan, inputs)
        if isinstance(held, Fault):
            return held
        trips = _trips_before(problem, case, plan, inputs, deadline) if len(plan.launches) > 1 else None
        if isinstance(trips, Fault):
            return trips
        executed = []
        for step in plan.steps:
            if isinstance(step, Fill):
                held.fill(step)
                continue
            execution = _execute(plan, step, held, deadline, None)
            if isinstance(execution, Fault):
                return replace(execution, message=f"case {case.name}: {execution.message}")
            executed.append([int(loop.sum()) for loop in execution.trips])
        if trips is not None and trips != executed:
            message = "how often loops run depends on what an earlier launch computes: the work cannot be counted"
            return Fault(Status.UNSUPPORTED, message)
        comparison = compare(problem, case, inputs, held.outputs, whole=True)
        findings.cases.append(comparison.result)
        return comparison.fault

    def _compile(self, plans: tuple[LaunchPlan, ...], findings: _Findings) -> "dict[KernelIR, Binary] | Fault":
        binaries: dict[KernelIR, Binary] = {}
        for kernel in (kernel for plan in plans for kernel in plan.kernels):
            if kernel in binaries:
                continue
            binary = self._compiler.compile(kernel, self.target)
            if isinstance(binary, Fault):
                return binary
            binaries[kernel] = binary
            findings.resources.append(_resources(binary, self.target))
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
        works = []
        for step in plan.steps:
            if isinstance(step, Fill):
                held.fill(step, mark=False)
                continue
            work = _count(plan, step, held, deadline, binaries)
            if isinstance(work, Fault):
                return work
            works.append(work)
        missing = _missing_work(case, works, problem.flops(case)) or _missing_coverage(
            problem, case, plan, held, deadline
        )
        if missing:
            return missing
        # With several launches the rows of a sampled program depend on programs that were not sampled; and alone, one
        # that draws tickets would do all the work.
        if len(works) == 1 and not _programs_interact(plan):
            fault = self._check_sample(problem, case, plan, works[0], inputs, held, deadline, findings)
        else:
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
        work: LaunchWork,
        inputs: Mapping[str, torch.Tensor],
        held: Buffers,
        deadline: float,
        findings: _Findings,
    ) -> Fault | None:
        """Execute some programs of the only launch and compare what they wrote."""
        programs = self._sample(work)
        execution = _execute(plan, plan.launches[0], held, deadline, programs)
        if isinstance(execution, Fault):
            return replace(execution, message=f"case {case.name}: {execution.message}")
        comparison = compare(problem, case, inputs, held.outputs, whole=False)
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


def _execute(
    plan: LaunchPlan, launch: Launch, held: Buffers, deadline: float, programs: list[int] | None
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
        )

    execution = _executing(plan.kernels[launch.kernel], run)
    if isinstance(execution, Fault):
        return execution
    fault = _memory_fault(plan.kernels[launch.kernel], execution)
    if fault:
        return fault
    return execution


def _memory_fault(ir: KernelIR, execution: Execution) -> Fault | None:
    faults = execution.faults
    if not faults:
        return None
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return Fault(_MEMORY_STATUS[faults[0].kind], f"kernel {ir.name}: {faults[0].message}{more}")


def _trips_before(
    problem: Problem, case: Case, plan: LaunchPlan, inputs: Mapping[str, torch.Tensor], deadline: float
) -> list[list[int]] | Fault:
    """Return the trips of each loop of each launch, as counted at benchmark shapes: before any launch has run."""
    held = buffers.allocate(problem.call(case), plan, inputs)
    if isinstance(held, Fault):
        return held
    counted = []
    for step in plan.steps:
        if isinstance(step, Fill):
            held.fill(step)
            continue
        trips = _trips(plan, step, held, deadline)
        if isinstance(trips, Fault):
            return trips
        counted.append([int(loop.sum()) for loop in trips])
    return counted


def _trips(plan: LaunchPlan, launch: Launch, held: Buffers, deadline: float) -> Trips | Fault:
    def count(kernel: executor.Kernel) -> Trips:
        return kernel.trips(held.allocations, launch.args, launch.grid, deadline=deadline)

    return _executing(plan.kernels[launch.kernel], count)


def _missing_work(case: Case, works: Sequence[LaunchWork], useful: int) -> Fault | None:
    """Refuse a plan that multiplies matrices, but fewer than the case takes."""
    multiplies = any(body.dot_flops for work in works for body in (work.outside, *(loop.body for loop in work.loops)))
    counted = sum(
        work.outside.dot_flops * work.programs + sum(loop.body.dot_flops * int(loop.trips.sum()) for loop in work.loops)
        for work in works
    )
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
        fault = _memory_fault(ir, execution)
        if fault:
            return replace(fault, message=f"case {case.name}: {fault.message}")
    return uncovered(problem, case, marked.outputs)


def _programs_interact(plan: LaunchPlan) -> bool:
    return any(executor.load(kernel.ttir).programs_interact for kernel in plan.kernels)


def _count(
    plan: LaunchPlan, launch: Launch, held: Buffers, deadline: float, binaries: dict[KernelIR, Binary]
) -> LaunchWork | Fault:
    ir = plan.kernels[launch.kernel]
    trips = _trips(plan, launch, held, deadline)
    if isinstance(trips, Fault):
        return trips
    kernel = executor.load(ir.ttir)
    loops = zip(kernel.loops, trips, strict=True)
    return LaunchWork(
        binaries[ir],
        launch.programs,
        tuple(LoopWork(loop.parent, loop.body, count) for loop, count in loops),
        kernel.outside,
    )


def _executing(ir: KernelIR, work: Callable[[executor.Kernel], _Result]) -> _Result | Fault:
    """Return ``work`` of the executable kernel; what keeps the executor from a result is a fault that says so."""
    try:
        return work(executor.load(ir.ttir))
    except executor.UnsupportedOperation as error:
        return Fault(Status.UNSUPPORTED, f"kernel {ir.name}: {error}")
    except executor.ExecutionTimeout:
        return Fault(Status.TIMED_OUT, f"kernel {ir.name} was not executed within {EXECUTION_S:g} s")
    except executor.IRError as error:
        return Fault(Status.FORBIDDEN, f"kernel {ir.name} is not valid Triton IR: {error}")
    except Exception as error:
        # The IR is hostile: whatever else fails here is recorded, and is no verdict on the numbers.
        traceback.print_exc()
        return Fault(Status.UNSUPPORTED, f"kernel {ir.name}: the executor failed with {type(error).__name__}: {error}")


def _resources(binary: Binary, target: Target) -> Resources:
    return Resources(
        kernel=binary.name,
        registers=binary.registers,
        spill_bytes=binary.spill_bytes,
        shared_bytes=binary.shared_bytes,
        tensor_memory_columns=binary.tensor_memory_columns,
        warps=binary.threads // 32,
        ctas_per_sm=ctas_per_sm(binary, target),
    )
