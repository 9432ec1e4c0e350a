"""An examination takes one candidate from its launch plans to its score."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from avo.evaluator.binary import Binary
from avo.evaluator.candidate import CANDIDATE_FILE, Candidate, Incumbent
from avo.evaluator.catalogue import get_problem
from avo.evaluator.compiling.limits import fit
from avo.evaluator.compiling.passes import shown
from avo.evaluator.compiling.residency import resources
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import Evaluation, Fault, Resources, Score, Status
from avo.evaluator.evaluators import Progress, Tell
from avo.evaluator.inspection import Findings, Look
from avo.evaluator.judging import closely, compiled, execution, gpu_work
from avo.evaluator.judging.autotuning import in_words, named
from avo.evaluator.judging.cases import Cases, Tools
from avo.evaluator.judging.checking import Checker
from avo.evaluator.judging.execution import PlanRun, beyond, executable
from avo.evaluator.judging.neighbours import neighbours
from avo.evaluator.judging.overlap import early
from avo.evaluator.judging.plan_kinds import build
from avo.evaluator.judging.planning import digest_of
from avo.evaluator.judging.refusal import Refused, outcome, passed, told
from avo.evaluator.judging.sampling import BEFORE_ACCEPTANCE, EACH_TIME, ELSEWHERE
from avo.evaluator.judging.speed import Challenge, CompiledPlan, Predicted
from avo.evaluator.judging.stages import stages
from avo.evaluator.judging.traits import traits
from avo.evaluator.locations import located, to_read
from avo.evaluator.performance import ModelError, explain
from avo.evaluator.performance.listing import hot_code
from avo.evaluator.plan import Configuration, KernelIR, LaunchPlan
from avo.evaluator.problem import Case
from avo.evaluator.profile import Profile, Source
from avo.evaluator.target import ScoreKind
from avo.evaluator.work import LaunchWork


class Examination:
    """Examines one candidate. Methods raise ``Refused`` for a fault, and what was found before that is kept.

    Call ``capture`` first. All methods raise ``EvaluatorUnavailable`` when a child process does not start.
    """

    def __init__(self, tools: Tools, candidate: Candidate, cases: Cases, tell: Tell | None = None) -> None:
        """``tell`` hears how far its checks are. Raises ``UnknownProblem`` where there is no such problem."""
        self.candidate = candidate
        self.plan_digest: str | None = None
        self._tools = tools
        self._problem = get_problem(candidate.problem)
        self._cases = cases
        self._plans: tuple[tuple[LaunchPlan, ...], ...] = ()
        """The plans for each small and each large case: one for each configuration of an autotuned kernel."""
        self._binaries: dict[KernelIR, Binary] = {}
        """Binaries of the plans for the large cases, as far as they were compiled; the last one may not fit."""
        self._drawn: Sequence[tuple[Case, tuple[LaunchPlan, ...]]] = ()
        """Cases that are drawn before acceptance, with their plans."""
        self._checker = Checker(self._problem, tools.inputs, tools.chance, resident=tools.planner.resident)
        self._tell = tell
        self._predicted: Score | None = None
        """The prediction for a candidate whose numbers cannot be checked."""
        self._traits: dict[str, str] = {}
        self._unchecked = ""
        """What was not checked of what the compiler made, and why."""
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall-clock time since the examination began."""
        return time.monotonic() - self._started

    def capture(self) -> str:
        """Capture the candidate's launch plans for all cases, and return their digest."""
        self._tools.compiler.begin(closely=self._cases.closely)
        everything = (*self._cases.small, *self._cases.large)
        if self._cases.closely:
            planner, shown, chance = self._tools.planner, self._cases.shown, self._tools.chance
            self._plans, self._drawn = closely.captured(
                planner, self.candidate, self._problem, everything, shown, self._cases.plan_digest, chance
            )
        else:
            self._plans = self._captured(everything)
        self.plan_digest = digest_of(self._plans)
        drawn = (plans for _, plans in self._drawn)
        # The largest grids first.
        self._tools.planner.check_grids(chain.from_iterable([*drawn, *reversed(self._plans)]))
        self._checker.deadline = execution.deadline(closely=self._cases.closely)
        if tell := self._tell:
            small = self._plans[: len(self._cases.small)]
            checks = sum(map(len, small)) + len(self._cases.large) + len(self._drawn)
            # Further configurations of an autotuned candidate are checked at the end.
            self._checker.checked = lambda count: tell(Progress(min(count, checks), checks))
        return self.plan_digest

    def repeat(self) -> None:
        """Refuse a candidate whose launch plans for the large cases differ when it is called again.

        It is called in another process and in another order, so that a clock, chance or earlier calls may show.
        """
        again = self._captured(self._cases.large[::-1])[::-1]
        if digest_of(again) != digest_of(self._plans[len(self._cases.small) :]):
            message = "launches other plans when it is called again: see what its host code reads"
            raise Refused(Fault(Status.FORBIDDEN, message))

    def evaluation(self, found: Score | Fault) -> Evaluation:
        """Return what was found as an evaluation; ``found`` is what came of ``score``, or of ``capture``."""
        score, fault = (None, found) if isinstance(found, Fault) else (found, None)
        return Evaluation(
            status=fault.status if fault else Status.CORRECT,
            message=fault.message if fault else "",
            target=self._tools.target.name,
            suite=self._cases.suite,
            seconds=self.seconds,
            score=score,
            cases=tuple(self._checker.results),
            resources=self._resources,
            plan_digest=self.plan_digest,
            predicted=self._predicted,
            traits=self._traits,
            compiled=fault.kind if fault and fault.status is Status.MISCOMPILED else self._unchecked,
        )

    def score(self, incumbent: Incumbent | None) -> Score:
        """Check the candidate, cheapest checks first, and return its score.

        Where speed is measured, the candidate is compared with ``incumbent``. Raises ``EvaluatorUnavailable`` when the
        incumbent can no longer be timed.
        """
        cases, measured = self._cases, self._tools.target.kind is ScoreKind.MEASURED
        small = self._plans[: len(cases.small)]
        self._check_small(small)
        plans = self._fastest()
        self._tools.planner.check_grids(plans)
        mixtures = self._mixtures(plans)
        for mixture in mixtures:
            self._check_small(mixture)
        self._binaries.update(self._compile(_kernels(plans)))
        checked = [self._check_large(case, plan) for case, plan in zip(cases.large, plans, strict=True)]
        fitting = self._check_further(plans)
        if cases.closely:
            every = [pair for of_cases in (small, *mixtures) for pair in zip(cases.small, of_cases, strict=True)]
            self._unchecked = compiled.check_all(self._tools, self._problem, every, plans, fitting)
        ranked = [each for each in checked if each.case in cases.shown]
        checked, plans = checked[: len(cases.scored)], plans[: len(cases.scored)]
        challenge = None
        if incumbent:
            challenge = Examination(self._tools, incumbent.candidate, cases).challenge(incumbent.alpha)
        self.repeat()
        ran = self._compiled_small(small, mixtures) if measured else ()
        if cases.closely and (check := self._tools.instruments.check):
            self._unchecked = "; ".join(filter(None, (self._unchecked, passed(check(self._problem, ran)))))
        score = self._tools.speed.score(self._problem, checked, challenge, ran)
        if isinstance(score, Score):
            score = named(score, plans)
        everything = [*chain(*self._plans), *plans]
        if not (measured or all(executable(plan) for plan in everything)):
            raise self._unverified(everything, score)
        found = passed(score)
        if cases.closely and not measured:
            found = replace(found, neighbours=neighbours(self._tools, self._problem, ranked))
        self._traits = traits(checked[0], {each.kernel: each for each in self._resources}, found, self._tools.target)
        return found

    def challenge(self, alpha: float) -> Challenge:
        """Return the incumbent that this candidate is; raise ``EvaluatorUnavailable`` if it can no longer be timed."""
        try:
            digest = self.capture()
            return Challenge(self.planned(), digest, alpha)
        except Refused as refused:
            raise EvaluatorUnavailable(f"the incumbent cannot be timed again: {refused}") from None

    def planned(self) -> tuple[CompiledPlan, ...]:
        """Return the fastest plan for each benchmark case, compiled and counted; its numbers are not checked."""
        return self._compiled(self._cases.scored, self._fastest())

    def profiles(self, most_costs: int | None, *, counted: bool = False) -> tuple[Profile, ...]:
        """Return why the candidate is as fast as predicted on each benchmark case; its numbers are not checked."""
        target, source = self._tools.target, Source(CANDIDATE_FILE, self.candidate.source)
        profiles = []
        for each in (planned := self.planned()):
            useful, least = self._problem.flops(each.case), self._problem.least_bytes(each.case)
            try:
                irs = [each.plan.kernels[launch.kernel].ttir for launch in each.plan.launches]
                found = explain(each.case.name, useful, least, each.works, target, source, irs, most=most_costs)
            except ModelError as error:
                raise Refused(Fault(Status.UNSUPPORTED, f"no prediction for {target.name}: {error}")) from None
            configurations = tuple(map(str, each.plan.configurations))
            profiles.append(replace(found, score=replace(found.score, configurations=configurations)))
        if counted and (count := self._tools.instruments.count):
            found_by = zip(profiles, count(self._problem, planned, source), strict=True)
            return tuple(replace(each, counted=found) for each, found in found_by)
        return tuple(profiles)

    def speed(self, *, ranked: bool = False) -> Findings:
        """Predict the speed on all benchmark cases, if ``ranked`` of neighbours too; the numbers are not checked."""

        def predicted() -> Score:
            plans = self._fastest()
            self._tools.planner.check_grids(plans)
            self._binaries.update(self._compile(_kernels(plans)))
            counted = self._compiled(self._cases.scored, plans)
            if not all(each.works for each in counted):
                raise Refused(Fault(Status.UNSUPPORTED, "no prediction: its work cannot be counted"))
            found = named(passed(Predicted(self._tools.target).score(self._problem, counted, None)), plans)
            return replace(found, neighbours=neighbours(self._tools, self._problem, counted)) if ranked else found

        found = outcome(predicted)
        fault, score = (found, None) if isinstance(found, Fault) else (None, found)
        return Findings(fault, resources=self._resources, score=score, plan_digest=self.plan_digest)

    def code(self, look: Look) -> str:
        """Return the code of the first benchmark case."""
        if look is Look.SASS:
            return hot_code(self.profiles(None)[0])
        binaries = dict(self._compile(_kernels(self._fastest())))
        return "\n".join(
            located(binary.ptx, kernel.ttir) if look is Look.PTX else to_read(binary.ttgir)
            for kernel, binary in binaries.items()
        )

    def ir(self, before: str | None) -> str:
        """Return the IR before a pass, see ``Inspection.before``, for each kernel of the first benchmark case's fastest
        plan, or for the one that does not compile.
        """
        compiler, target = self._tools.compiler, self._tools.target
        kernels = outcome(lambda: list(dict(self._compile(_kernels(self._fastest())))))
        if isinstance(kernels, Fault):
            every = list(dict.fromkeys(_kernels(self._plans[0])))
            kernels = [each for each in every if isinstance(compiler.compile(each, target), Fault)][:1] or every
        traces = [(kernel.name, passed(compiler.trace(kernel, target, before))) for kernel in kernels]
        return "\n\n".join(shown(name, trace, before) for name, trace in traces)

    def check(self) -> Findings:
        """Execute the small cases and compile the first configurations for all benchmark cases; return both findings,
        with the first fault.
        """
        first = [of_case[:1] for of_case in self._plans]
        small, large = first[: len(self._cases.small)], first[len(self._cases.small) :]
        ran = outcome(lambda: self._check_small(small))
        made = outcome(lambda: self._binaries.update(self._compile(_kernels(chain(*large)))))
        return Findings(ran or made, resources=self._resources, cases=tuple(self._checker.results))

    @property
    def _resources(self) -> tuple[Resources, ...]:
        return tuple(resources(binary, self._tools.target) for binary in self._binaries.values())

    def _captured(self, cases: Sequence[Case]) -> tuple[tuple[LaunchPlan, ...], ...]:
        return self._tools.planner.alternatives(self.candidate, self._problem, cases)

    def _fastest(self) -> tuple[LaunchPlan, ...]:
        """Return the plan for each large case that the model predicts to be fastest.

        So it is where speed is measured too, as each timing takes a process on the GPU.
        """
        predicted = Predicted(self._tools.target)

        def seconds(case: Case, plan: LaunchPlan) -> float:
            try:
                (compiled,) = self._compiled([case], [plan])
                return predicted.seconds(self._problem, compiled)
            except Refused:
                if executable(plan):
                    raise
                return math.inf

        large = self._plans[len(self._cases.small) :]
        return self._tools.planner.fastest(self.candidate, self._problem, self._cases.large, large, seconds)

    def _mixtures(self, plans: Sequence[LaunchPlan]) -> list[list[tuple[LaunchPlan]]]:
        """Return plans of the small cases, one a case, for each mixture of configurations in ``plans`` that is new."""
        seen = {tuple(map(str, plan.configurations)) for of_case in self._plans for plan in of_case}
        unseen = {tuple(map(str, plan.configurations)): plan.configurations for plan in plans}
        planner, small = self._tools.planner, self._cases.small
        return [
            [(plan,) for plan in planner.plans(self.candidate, self._problem, small, mixture)]
            for choices, mixture in unseen.items()
            if choices not in seen
        ]

    def _check_small(self, plans: Sequence[Sequence[LaunchPlan]]) -> None:
        """Check all configurations of the small cases, the first one on all cases first."""
        cases = list(zip(self._cases.small, plans, strict=True))
        first = [(case, of_case[0]) for case, of_case in cases]
        others = [(case, plan) for case, of_case in cases for plan in of_case[1:]]
        for case, plan in chain(first, others):
            with told(after=in_words(plan.configurations)):
                self._check_whole(case, plan)

    def _check_whole(self, case: Case, plan: LaunchPlan) -> None:
        """Check a small case. A plan that only a GPU can run is skipped."""
        if executable(plan):
            self._checker.whole(case, plan)

    def _check_large(self, case: Case, plan: LaunchPlan) -> CompiledPlan:
        """Count the work at a benchmark shape, see that none is missing, and check a sample of the outputs.

        The work of a plan that only a GPU can run is counted, where it can be.
        """
        try:
            with told(after=in_words(plan.configurations)):
                if executable(plan):
                    staged = self._checker.sampled(case, plan, BEFORE_ACCEPTANCE if self._cases.closely else EACH_TIME)
                    works = tuple(stage.work(self._binaries) for stage in staged)
                else:
                    works = self._works(case, plan, self._binaries, self._checker.deadline)
        except Refused as refused:
            if executable(plan):
                raise
            raise self._unverified([plan], refused.fault) from None
        return CompiledPlan(case, plan, self._binaries, works)

    def _check_further(self, fastest: Sequence[LaunchPlan]) -> set[Configuration]:
        """Before acceptance, check all configurations that fit, and the cases that are drawn; return what fits."""
        planner, chance = self._tools.planner, self._tools.chance
        cases, plans = self._cases.large, self._plans[len(self._cases.small) :]
        fitting = [(case, planner.fitting(of_case)) for case, of_case in zip(cases, plans, strict=True) if self._drawn]
        shown = [(case, of_case) for case, of_case in fitting if case in self._cases.shown]
        fit = {choice for _, of_case in fitting for plan in of_case for choice in plan.configurations}
        further = closely.others(shown, fastest, chance)
        further += [(case, closely.one_of(of_case, fit, chance)) for case, of_case in self._drawn]
        built = {build(kernel) for kernel in self._binaries}
        others = {build(kernel): kernel for _, plan in further for kernel in plan.kernels}
        dict(self._compile(kernel for what, kernel in others.items() if what not in built))
        for case, plan in further:
            if executable(plan):
                with told(after=in_words(plan.configurations)), self._tools.inputs.passing():
                    self._checker.sampled(case, plan, ELSEWHERE)
        return fit

    def _unverified(self, plans: Iterable[LaunchPlan], found: Score | Fault) -> Refused:
        """Note what the model says of a candidate that was not executed, and return that as its fault."""
        reasons = {ir.name: why for plan in plans for ir in plan.kernels if (why := beyond(ir))}
        reason = "; ".join(f"kernel {name}: {why}" for name, why in sorted(reasons.items()))
        message = f"{reason}: only a GPU runs it; it compiles and fits, its numbers are unverified"
        if isinstance(found, Fault):
            message = f"{message}; {found.message}"
        else:
            self._predicted = found
        return Refused(Fault(Status.UNVERIFIED, message))

    def _compile(self, kernels: Iterable[KernelIR]) -> Iterator[tuple[KernelIR, Binary]]:
        """Yield the binary of each kernel, and refuse it after that if it does not fit or may start too early."""
        distinct = dict.fromkeys(kernels)
        self._tools.compiler.prepare(distinct, self._tools.target)
        for kernel in distinct:
            binary = passed(self._tools.compiler.compile(kernel, self._tools.target))
            yield kernel, binary
            passed(fit(binary, self._tools.target) or early(kernel, binary))

    def _compiled(self, cases: Sequence[Case], plans: Sequence[LaunchPlan]) -> tuple[CompiledPlan, ...]:
        """Compile and count plans whose numbers are not in question."""
        binaries = dict(self._compile(_kernels(plans)))
        deadline = execution.deadline()
        return tuple(
            CompiledPlan(case, plan, binaries, self._works(case, plan, binaries, deadline))
            for case, plan in zip(cases, plans, strict=True)
        )

    def _compiled_small(
        self, alternatives: Sequence[Sequence[LaunchPlan]], mixtures: Sequence[Sequence[Sequence[LaunchPlan]]]
    ) -> tuple[CompiledPlan, ...]:
        """Compile all configurations of the small cases, to be run where speed is measured."""
        ran = [
            (case, plan)
            for i, case in enumerate(self._cases.small)
            if not case.far
            for plan in self._tools.planner.fitting([*alternatives[i], *chain(*(mixture[i] for mixture in mixtures))])
        ]
        binaries = dict(self._compile(_kernels(plan for _, plan in ran)))
        return tuple(CompiledPlan(case, plan, binaries, ()) for case, plan in ran)

    def _works(
        self, case: Case, plan: LaunchPlan, binaries: Mapping[KernelIR, Binary], deadline: float
    ) -> tuple[LaunchWork, ...]:
        """Count the work of a plan, even if only a GPU can run it. Where work cannot be counted, the plan can still be
        timed.
        """

        def prepared(plan: LaunchPlan) -> PlanRun:
            return self._checker.run(case, plan, deadline)

        try:
            if executable(plan):
                return tuple(stage.work(binaries) for stage in stages(prepared(plan)))
            return gpu_work.works(plan, prepared, binaries)
        except Refused:
            if self._tools.target.kind is ScoreKind.MEASURED:
                return ()
            raise


def _kernels(plans: Iterable[LaunchPlan]) -> Iterator[KernelIR]:
    for plan in plans:
        yield from plan.kernels
