"""The judge: the trusted side. It never imports a candidate; it runs the candidate's launch plans and decides."""

import hashlib
import math
import random
import secrets
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import torch

from evaluator import capture
from evaluator.binary import Binary
from evaluator.candidate import CANDIDATE_FILE, Candidate, Incumbent
from evaluator.capture import Capturer
from evaluator.capture.scripts import JOB_MODULE as SCRIPT_MODULE
from evaluator.capture.scripts import run_script
from evaluator.compiling import compiler
from evaluator.compiling.compiler import Compiler, fit
from evaluator.errors import EvaluatorUnavailable
from evaluator.evaluation import CaseResult, Evaluation, Fault, Resources, Score, Status
from evaluator.inspection import Findings, Inspection, Look
from evaluator.judging import buffers, execution, gpu_work
from evaluator.judging.autotuning import named, with_configurations
from evaluator.judging.buffers import Buffers
from evaluator.judging.compare import compare
from evaluator.judging.execution import PlanRun
from evaluator.judging.overlap import early
from evaluator.judging.planning import Planner
from evaluator.judging.sampling import BEFORE_ACCEPTANCE, EACH_TIME, BenchmarkCheck, Sample
from evaluator.judging.speed import Benchmark, Challenge, Predicted, Speed
from evaluator.judging.stages import stages
from evaluator.judging.traits import traits
from evaluator.performance import ModelError, Profile, Source, explain, resources
from evaluator.performance.listing import hot_code
from evaluator.performance.profiling import MOST_COSTS
from evaluator.plan import KernelIR, LaunchPlan, Level
from evaluator.problem import HELD_OUT, Case, Problem
from evaluator.problems.loading import get_cases, get_problem, get_suite
from evaluator.sandbox.jobs import ForkServer, Sandbox
from evaluator.target import ScoreKind, Target
from evaluator.work import LaunchWork

JOB_MODULES = (capture.CHILD_MODULE, compiler.JOB_MODULE, SCRIPT_MODULE)
"""What a judge's fork server serves."""
_TILE = 64
"""Rows of a small tile of queries."""


_MOST_KEPT = 10_000
"""Verdicts on plans."""


@dataclass(frozen=True)
class _Cases:
    """What a candidate is judged on."""

    suite: str
    small: tuple[Case, ...]
    scored: tuple[Case, ...]
    """Benchmark cases."""
    checked: tuple[Case, ...] = ()
    """Other benchmark cases, that must be right but are not scored."""
    closely: bool = False
    """Before acceptance: samples are larger, and there is more time."""

    @property
    def large(self) -> tuple[Case, ...]:
        """All benchmark cases."""
        return (*self.scored, *self.checked)

    @property
    def sample(self) -> Sample:
        """What is checked of each benchmark case."""
        return BEFORE_ACCEPTANCE if self.closely else EACH_TIME


@dataclass
class _Findings:
    """What is known so far about the candidate under judgement."""

    cases: list[CaseResult] = field(default_factory=list)
    resources: list[Resources] = field(default_factory=list)
    plan_digest: str | None = None
    predicted: Score | None = None
    """Of a candidate whose numbers are not known."""
    traits: dict[str, str] = field(default_factory=dict)


class Judge:
    """Judges candidates for one target and suite. Not thread-safe; ``close`` when done."""

    def __init__(
        self,
        target: Target,
        suite: str,
        *,
        capture_cpu_s: int = capture.DEFAULT_LIMITS.cpu_s,
        sandbox: Sandbox = Sandbox.AUTO,
        server: ForkServer | None = None,
        speed: Speed | None = None,
    ) -> None:
        """``speed`` tells how fast right candidates are; by default the performance model does.

        ``server`` runs the jobs of several judges, must serve ``JOB_MODULES`` and is left running; ``sandbox`` is for
        that which is started without one.
        """
        self.target = target
        self.suite = suite
        self._speed = speed or Predicted(target)
        self._private = tempfile.TemporaryDirectory(prefix="avo-judge-")
        self._shared = server is not None
        self._server = server = server or ForkServer(JOB_MODULES, sandbox=sandbox)
        self._compiler = Compiler(Path(self._private.name), server=server)
        capturer = Capturer(server, replace(capture.DEFAULT_LIMITS, cpu_s=capture_cpu_s))
        self._planner = Planner(capturer, self._compiler, target)
        # Seeds are this process's secret; and as candidates never meet data, inputs may serve many of them.
        self._random = random.Random(secrets.randbits(64))
        self._inputs = buffers.InputCache(self._random.getrandbits(62))
        self._judged: dict[tuple[str, str, Incumbent | None], tuple[Evaluation, int]] = {}
        """With the hash of the source."""

    def close(self) -> None:
        """End the child processes and remove temporary files."""
        if not self._shared:
            self._server.close()
        self._private.cleanup()

    def __enter__(self) -> "Judge":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def evaluate(self, candidate: Candidate, incumbent: Incumbent | None = None) -> Evaluation:
        """Return the verdict on ``candidate``; where speed is measured, compare it with ``incumbent``.

        Raises ``UnknownProblem`` for a problem or suite that is none, ``EvaluatorUnavailable`` when a child process
        cannot be had or the incumbent's plans cannot.
        """
        return self._evaluate(candidate, self.suite, incumbent if self.target.kind is ScoreKind.MEASURED else None)

    def verify(self, candidate: Candidate) -> Evaluation:
        """Return the verdict on ``candidate`` examined more closely, with the score of the shapes that no operator is
        shown, or of its suite where there are none; raises like ``evaluate``.

        It has to be right at these, at the small cases and one of the large ones at lengths drawn anew, and in larger
        samples of its suite's cases.
        """
        problem = get_problem(candidate.problem)
        suite = get_suite(problem, self.suite)
        name = HELD_OUT if HELD_OUT in problem.suites else self.suite
        scored = get_suite(problem, name)
        shown = () if name == self.suite else suite
        small = tuple(problem.at_other_lengths(case, self._random) for case in problem.correctness_cases)
        drawn = problem.at_other_lengths(self._random.choice((*scored, *shown)), self._random)
        with self._inputs.passing():
            return self._on(candidate, problem, _Cases(name, small, scored, (*shown, drawn), closely=True), None)

    def _evaluate(self, candidate: Candidate, suite: str, incumbent: Incumbent | None) -> Evaluation:
        problem = get_problem(candidate.problem)
        cases = _Cases(suite, problem.correctness_cases, get_suite(problem, suite))
        return self._on(candidate, problem, cases, incumbent)

    def _on(self, candidate: Candidate, problem: Problem, cases: _Cases, incumbent: Incumbent | None) -> Evaluation:
        started = time.monotonic()
        plans = self._planner.alternatives(candidate, problem, (*cases.small, *cases.large))
        findings = _Findings()
        if isinstance(plans, Fault):
            return self._evaluation(plans, cases.suite, findings, started)
        findings.plan_digest = _digest(plans)
        known = self._judged.get((cases.suite, findings.plan_digest, incumbent))
        if known is not None:
            return replace(_of_another(*known, candidate), seconds=time.monotonic() - started)
        outcome = self._judge(candidate, problem, cases, plans, incumbent, findings)
        evaluation = self._evaluation(outcome, cases.suite, findings, started)
        if evaluation.correct or evaluation.refused:
            self._judged[cases.suite, findings.plan_digest, incumbent] = evaluation, hash(candidate.source)
            if len(self._judged) > _MOST_KEPT:
                del self._judged[next(iter(self._judged))]
        return evaluation

    def profile(self, candidate: Candidate, case: str | None = None) -> tuple[Profile, ...] | Fault:
        """Return why ``candidate`` is as fast as predicted, for each benchmark case or the one called ``case``.

        Its numbers are not checked. Raises like ``evaluate``, and ``UnknownProblem`` for a case that is none.
        """
        return self._profiles(candidate, get_cases(get_problem(candidate.problem), self.suite, case), MOST_COSTS)

    def inspect(self, inspection: Inspection) -> Findings:
        """Return what is seen of a candidate or script, without a verdict.

        Raises like ``evaluate``, and ``UnknownProblem`` for a suite or case that is none.
        """
        candidate = Candidate(inspection.problem, inspection.source)
        if inspection.look is Look.SCRIPT:
            return run_script(self._server, inspection.source)
        if inspection.look is Look.CHECK:
            return self._check(candidate)
        if inspection.look is Look.SCORE:
            evaluation = self._evaluate(candidate, inspection.suite or self.suite, None)
            fault = None if evaluation.correct else Fault(evaluation.status, evaluation.message)
            return Findings(fault, evaluation=evaluation)
        return self._code(candidate, inspection.look, inspection.case)

    def _check(self, candidate: Candidate) -> Findings:
        """Compile for the suite and execute one small case; whatever goes wrong first is the fault."""
        problem = get_problem(candidate.problem)
        suite = get_suite(problem, self.suite)
        plans = self._planner.alternatives(candidate, problem, (_smallest(problem.correctness_cases), *suite))
        if isinstance(plans, Fault):
            return Findings(plans)
        findings = _Findings()
        (plan, *_), *large = plans
        fault = self._check_whole(problem, _smallest(problem.correctness_cases), plan, execution.deadline(), findings)
        binaries = self._compile((of_case[0] for of_case in large), findings)
        fault = fault or (binaries if isinstance(binaries, Fault) else None)
        return Findings(fault, resources=tuple(findings.resources), cases=tuple(findings.cases))

    def _code(self, candidate: Candidate, look: Look, case: str | None) -> Findings:
        """Return the code of one benchmark case, the suite's first by default."""
        problem = get_problem(candidate.problem)
        cases = get_cases(problem, self.suite, case)[:1]
        if look is Look.SASS:
            profiles = self._profiles(candidate, cases, None)
            return Findings(profiles) if isinstance(profiles, Fault) else Findings(text=hot_code(profiles[0]))
        plans = self._chosen(candidate, problem, cases)
        binaries = plans if isinstance(plans, Fault) else self._compile(plans, _Findings())
        if isinstance(binaries, Fault):
            return Findings(binaries)
        texts = (binary.ptx if look is Look.PTX else binary.ttgir for binary in binaries.values())
        return Findings(text="\n".join(texts))

    def _chosen(self, candidate: Candidate, problem: Problem, cases: Sequence[Case]) -> tuple[LaunchPlan, ...] | Fault:
        alternatives = self._planner.alternatives(candidate, problem, cases)
        return (
            alternatives if isinstance(alternatives, Fault) else self._fastest(candidate, problem, cases, alternatives)
        )

    def _profiles(
        self, candidate: Candidate, cases: Sequence[Case], most_costs: int | None
    ) -> tuple[Profile, ...] | Fault:
        problem = get_problem(candidate.problem)
        plans = self._chosen(candidate, problem, cases)
        if isinstance(plans, Fault):
            return plans
        # What the judge has compiled before may carry the line table of another source with the same IR.
        benchmarks = self._benchmarks(problem, cases, plans, Compiler(None, server=self._server))
        if isinstance(benchmarks, Fault):
            return benchmarks
        source = Source(CANDIDATE_FILE, candidate.source)
        profiles = []
        for each in benchmarks:
            useful, least = problem.flops(each.case), problem.least_bytes(each.case)
            try:
                profiles.append(
                    explain(each.case.name, useful, least, each.works, self.target, source, most=most_costs)
                )
            except ModelError as error:
                return Fault(Status.UNSUPPORTED, f"no prediction for {self.target.name}: {error}")
        return tuple(profiles)

    def _fastest(
        self, candidate: Candidate, problem: Problem, cases: Sequence[Case], plans: Sequence[Sequence[LaunchPlan]]
    ) -> tuple[LaunchPlan, ...] | Fault:
        """Return the plan for each of ``cases`` that the model calls fastest, also where speed is measured: each time
        takes a process on the GPU there.
        """
        predicted = Predicted(self.target)

        def seconds(case: Case, plan: LaunchPlan) -> float | Fault:
            benchmarks = self._benchmarks(problem, [case], [plan])
            score = benchmarks if isinstance(benchmarks, Fault) else predicted.score(problem, benchmarks, None)
            if isinstance(score, Fault):
                return score if plan.executable else math.inf
            return score.cases[0].time_us / 1e6

        return self._planner.fastest(candidate, problem, cases, plans, seconds)

    def _evaluation(self, outcome: Score | Fault, suite: str, findings: _Findings, started: float) -> Evaluation:
        fault = outcome if isinstance(outcome, Fault) else None
        return Evaluation(
            status=fault.status if fault else Status.CORRECT,
            message=fault.message if fault else "",
            target=self.target.name,
            suite=suite,
            seconds=time.monotonic() - started,
            score=None if isinstance(outcome, Fault) else outcome,
            cases=tuple(findings.cases),
            resources=tuple(findings.resources),
            plan_digest=findings.plan_digest,
            predicted=findings.predicted,
            traits={} if isinstance(outcome, Fault) else findings.traits,
        )

    def _judge(
        self,
        candidate: Candidate,
        problem: Problem,
        cases: _Cases,
        alternatives: tuple[tuple[LaunchPlan, ...], ...],
        incumbent: Incumbent | None,
        findings: _Findings,
    ) -> Score | Fault:
        deadline = execution.deadline(closely=cases.closely)
        small, large = alternatives[: len(cases.small)], alternatives[len(cases.small) :]
        fault = self._check_small(problem, cases.small, small, deadline, findings)
        if fault:
            return fault
        plans = self._fastest(candidate, problem, cases.large, large)
        if isinstance(plans, Fault):
            return plans
        mixtures = self._mixtures(candidate, problem, cases.small, alternatives, plans)
        if isinstance(mixtures, Fault):
            return mixtures
        for mixture in mixtures:
            fault = self._check_small(problem, cases.small, mixture, deadline, findings)
            if fault:
                return fault
        binaries = self._compile(plans, findings)
        if isinstance(binaries, Fault):
            return binaries
        benchmarks = []
        for case, plan in zip(cases.large, plans, strict=True):
            benchmark = self._check_benchmark(problem, case, plan, binaries, cases.sample, deadline, findings)
            if isinstance(benchmark, Fault):
                benchmark = with_configurations(benchmark, plan.configurations)
                return benchmark if plan.executable else _unverified([plan], benchmark, findings)
            benchmarks.append(benchmark)
        benchmarks, plans = benchmarks[: len(cases.scored)], plans[: len(cases.scored)]
        challenge = None if incumbent is None else self._challenge(incumbent, problem)
        if self.target.kind is ScoreKind.MEASURED and not self._again(candidate, problem, cases, findings):
            return Fault(Status.FORBIDDEN, "launches other plans when it is called again: see what its host code reads")
        ran = self._small(cases.small, small, mixtures)
        score = ran if isinstance(ran, Fault) else self._speed.score(problem, benchmarks, challenge, ran)
        if not isinstance(score, Fault):
            score = named(score, plans)
            needs = {found.kernel: found for found in findings.resources}
            findings.traits = traits(benchmarks[0], needs, score, self.target)
        if self.target.kind is ScoreKind.PREDICTED and not all(plan.executable for plan in chain(*alternatives, plans)):
            return _unverified(chain(*alternatives, plans), score, findings)
        return score

    def _again(self, candidate: Candidate, problem: Problem, cases: _Cases, findings: _Findings) -> bool:
        """Return whether the candidate launches the same plans once more, as it has to as the incumbent."""
        plans = self._planner.alternatives(candidate, problem, (*cases.small, *cases.large))
        return not isinstance(plans, Fault) and _digest(plans) == findings.plan_digest

    def _small(
        self,
        cases: Sequence[Case],
        alternatives: Sequence[Sequence[LaunchPlan]],
        mixtures: Sequence[Sequence[Sequence[LaunchPlan]]],
    ) -> tuple[Benchmark, ...] | Fault:
        """Compile all configurations of the correctness cases where they are run by whoever measures."""
        if self.target.kind is not ScoreKind.MEASURED:
            return ()
        ran = [
            (case, plan)
            for i, case in enumerate(cases)
            for plan in self._planner.fitting([*alternatives[i], *chain(*(mixture[i] for mixture in mixtures))])
        ]
        binaries = self._compile((plan for _, plan in ran), _Findings())
        if isinstance(binaries, Fault):
            return binaries
        return tuple(Benchmark(case, plan, binaries, ()) for case, plan in ran)

    def _check_small(
        self,
        problem: Problem,
        cases: Sequence[Case],
        plans: Sequence[Sequence[LaunchPlan]],
        deadline: float,
        findings: _Findings,
    ) -> Fault | None:
        """Check all configurations of correctness cases, the first one on all cases first."""
        first = [(case, of_case[0]) for case, of_case in zip(cases, plans, strict=True)]
        others = [(case, plan) for case, of_case in zip(cases, plans, strict=True) for plan in of_case[1:]]
        for case, plan in chain(first, others):
            fault = self._check_whole(problem, case, plan, deadline, findings)
            if fault:
                return with_configurations(fault, plan.configurations)
        return None

    def _mixtures(
        self,
        candidate: Candidate,
        problem: Problem,
        cases: Sequence[Case],
        alternatives: Sequence[Sequence[LaunchPlan]],
        plans: Sequence[LaunchPlan],
    ) -> list[list[tuple[LaunchPlan]]] | Fault:
        """Return plans of the correctness cases, one a case, for each mixture of configurations in ``plans`` that was
        not seen together.
        """
        seen = {tuple(map(str, plan.configurations)) for of_case in alternatives for plan in of_case}
        unseen = {tuple(map(str, plan.configurations)): plan.configurations for plan in plans}
        mixtures = []
        for mixture in (mixture for choices, mixture in unseen.items() if choices not in seen):
            small = self._planner.plans(candidate, problem, cases, mixture)
            if isinstance(small, Fault):
                return small
            mixtures.append([(plan,) for plan in small])
        return mixtures

    def _check_whole(
        self,
        problem: Problem,
        case: Case,
        plan: LaunchPlan,
        deadline: float,
        findings: _Findings,
    ) -> Fault | None:
        """Execute every program of ``plan`` under the sanitiser, and compare everything it should have written.

        Plans that only a GPU can run are passed over.
        """
        if not plan.executable:
            return None
        inputs = problem.make_inputs(case, self._random.getrandbits(62))
        held = self._memory(problem, case, plan, inputs, buffers.apart)
        if isinstance(held, Fault):
            return held
        run = PlanRun(plan, held.watched(), deadline)
        for launch in run.launches():
            done = run.run(launch, sanitize=True)
            if isinstance(done, Fault):
                return replace(done, message=f"case {case.name}: {done.message}")
        comparison = compare(problem, case, inputs, run.buffers.outputs, whole=True)
        findings.cases.append(comparison.result)
        return comparison.fault

    def _compile(
        self, plans: Iterable[LaunchPlan], findings: _Findings, fresh: Compiler | None = None
    ) -> dict[KernelIR, Binary] | Fault:
        binaries: dict[KernelIR, Binary] = {}
        for kernel in (kernel for plan in plans for kernel in plan.kernels):
            if kernel in binaries:
                continue
            binary = (fresh or self._compiler).compile(kernel, self.target)
            if isinstance(binary, Fault):
                return binary
            binaries[kernel] = binary
            findings.resources.append(resources(binary, self.target))
            fault = fit(binary, self.target) or early(kernel, binary)
            if fault:
                return fault
        return binaries

    def _check_benchmark(
        self,
        problem: Problem,
        case: Case,
        plan: LaunchPlan,
        binaries: dict[KernelIR, Binary],
        sample: Sample,
        deadline: float,
        findings: _Findings,
    ) -> Benchmark | Fault:
        """Count the work at a benchmark shape, see that none is missing, and check a sample of the outputs.

        Of plans that only a GPU can run the work is counted, where it can be.
        """
        if not plan.executable:
            works = self._works(problem, case, plan, binaries, deadline)
            return works if isinstance(works, Fault) else Benchmark(case, plan, binaries, works)
        run = self._benchmark_run(problem, case, plan, deadline)
        if isinstance(run, Fault):
            return run
        staged = stages(run, binaries)
        if isinstance(staged, Fault):
            return replace(staged, message=f"case {case.name}: {staged.message}")
        inputs = self._inputs.get(problem, case)
        comparison = BenchmarkCheck(problem, case, inputs, run, staged, sample).check(self._random)
        if isinstance(comparison, Fault):
            return comparison
        findings.cases.append(comparison.result)
        return comparison.fault or Benchmark(case, plan, binaries, tuple(stage.work for stage in staged))

    def _benchmark_run(self, problem: Problem, case: Case, plan: LaunchPlan, deadline: float) -> PlanRun | Fault:
        held = self._memory(problem, case, plan, self._inputs.get(problem, case), buffers.as_allocated)
        return held if isinstance(held, Fault) else PlanRun(plan, held, deadline)

    def _memory(
        self,
        problem: Problem,
        case: Case,
        plan: LaunchPlan,
        inputs: Mapping[str, torch.Tensor],
        place: Callable[[Sequence[int], random.Random], Sequence[int]],
    ) -> Buffers | Fault:
        addresses = place([buffer.nbytes for buffer in plan.buffers], self._random)
        return buffers.allocate(problem.call(case), plan, inputs, addresses)

    def _challenge(self, incumbent: Incumbent, problem: Problem) -> Challenge:
        """Return the benchmarks of the incumbent; raise ``EvaluatorUnavailable`` if it has none any more."""
        suite = get_suite(problem, self.suite)
        cases = (*problem.correctness_cases, *suite)
        alternatives = self._planner.alternatives(incumbent.candidate, problem, cases)
        if isinstance(alternatives, Fault):
            raise _lost(alternatives)
        plans = self._fastest(incumbent.candidate, problem, suite, alternatives[-len(suite) :])
        benchmarks = plans if isinstance(plans, Fault) else self._benchmarks(problem, suite, plans)
        if isinstance(benchmarks, Fault):
            raise _lost(benchmarks)
        return Challenge(benchmarks, _digest(alternatives), incumbent.alpha)

    def _benchmarks(
        self, problem: Problem, cases: Sequence[Case], plans: Sequence[LaunchPlan], fresh: Compiler | None = None
    ) -> tuple[Benchmark, ...] | Fault:
        """Compile and count plans whose numbers are not in question."""
        binaries = self._compile(plans, _Findings(), fresh)
        if isinstance(binaries, Fault):
            return binaries
        deadline = execution.deadline()
        benchmarks = []
        for case, plan in zip(cases, plans, strict=True):
            works = self._works(problem, case, plan, binaries, deadline)
            if isinstance(works, Fault):
                return works
            benchmarks.append(Benchmark(case, plan, binaries, works))
        return tuple(benchmarks)

    def _works(
        self, problem: Problem, case: Case, plan: LaunchPlan, binaries: dict[KernelIR, Binary], deadline: float
    ) -> tuple[LaunchWork, ...] | Fault:
        """Count the work of a plan, be it one that only a GPU can run. What cannot be counted can still be timed."""

        def prepared(plan: LaunchPlan) -> PlanRun | Fault:
            return self._benchmark_run(problem, case, plan, deadline)

        works: tuple[LaunchWork, ...] | Fault
        if plan.executable:
            run = prepared(plan)
            staged = run if isinstance(run, Fault) else stages(run, binaries)
            works = staged if isinstance(staged, Fault) else tuple(stage.work for stage in staged)
        else:
            works = gpu_work.works(plan, prepared, binaries)
        return () if isinstance(works, Fault) and self.target.kind is ScoreKind.MEASURED else works


def _smallest(cases: Sequence[Case]) -> Case:
    """Return the case with least work among those that a tile of a usual size does not cover."""
    beyond = [case for case in cases if case.q_len > _TILE] or list(cases)
    return min(beyond, key=lambda case: case.batch * case.heads * case.q_len * case.kv_len)


def _unverified(plans: Iterable[LaunchPlan], outcome: Score | Fault, findings: _Findings) -> Fault:
    """Note what the model says of a candidate that was not executed, and return that as its fault."""
    gluon = sorted({ir.name for plan in plans for ir in plan.kernels if ir.level is Level.TTGIR})
    names = ", ".join(gluon)
    message = f"kernel {names} is in Gluon, which only a GPU runs: it compiles and fits, its numbers are unverified"
    if isinstance(outcome, Fault):
        return Fault(Status.UNVERIFIED, f"{message}; {outcome.message}")
    findings.predicted = outcome
    return Fault(Status.UNVERIFIED, message)


def _lost(fault: Fault) -> EvaluatorUnavailable:
    return EvaluatorUnavailable(f"the incumbent cannot be timed again: {fault.message}")


def _of_another(evaluation: Evaluation, judged: int, candidate: Candidate) -> Evaluation:
    """Return the evaluation of a source with hash ``judged`` as that of a candidate with the same plans."""
    if evaluation.correct or judged == hash(candidate.source):
        return evaluation
    message = f"{evaluation.message}; seen in another source with the same launch plans, whose lines may be elsewhere"
    return replace(evaluation, message=message)


def _digest(plans: Iterable[Iterable[LaunchPlan]]) -> str:
    return hashlib.sha256("".join(plan.digest for of_case in plans for plan in of_case).encode()).hexdigest()
