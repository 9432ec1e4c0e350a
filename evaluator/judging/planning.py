"""Launch plans as the judge reads them: captured in the sandbox, their IR printed by MLIR, the fastest chosen."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice

from avo.evaluator.candidate import Candidate
from avo.evaluator.capture import Capturer
from avo.evaluator.compiling.compiler import Compiler
from avo.evaluator.compiling.limits import fit, fit_grid, fit_together
from avo.evaluator.compiling.residency import ctas_per_sm
from avo.evaluator.evaluation import Fault
from avo.evaluator.judging.autotuning import Autotuner
from avo.evaluator.judging.plan_kinds import kind
from avo.evaluator.judging.refusal import passed
from avo.evaluator.plan import Configuration, KernelIR, LaunchPlan
from avo.evaluator.problem import Case, Problem
from avo.evaluator.target import Target


class Planner:
    """Asks for launch plans. The executor reads IR line by line, which MLIR does not, so both get what MLIR prints.

    All methods raise ``Refused`` for a candidate's fault, and ``EvaluatorUnavailable`` when no child process starts.
    """

    def __init__(self, capturer: Capturer, compiler: Compiler, target: Target) -> None:
        self._capturer = capturer
        self._compiler = compiler
        self._target = target

    def plans(
        self,
        candidate: Candidate,
        problem: Problem,
        cases: Sequence[Case],
        configurations: Sequence[Configuration],
    ) -> tuple[LaunchPlan, ...]:
        """Return the candidate's plan for each of ``cases``, with the given configurations of autotuned kernels."""
        calls = [problem.call(case) for case in cases]
        plans = self._capturer.capture(candidate.source, problem.entry, calls, self._target, configurations)
        return passed(self._compiler.canonical(passed(plans), self._target))

    def alternatives(
        self, candidate: Candidate, problem: Problem, cases: Sequence[Case]
    ) -> tuple[tuple[LaunchPlan, ...], ...]:
        """Return the candidate's plans for each of ``cases``, see ``Capturer.alternatives``."""
        calls = [problem.call(case) for case in cases]
        plans = passed(self._capturer.alternatives(candidate.source, problem.entry, calls, self._target))
        each = iter(passed(self._compiler.canonical(tuple(chain.from_iterable(plans)), self._target)))
        return tuple(tuple(islice(each, len(of_case))) for of_case in plans)

    def kinds(
        self, candidate: Candidate, problem: Problem, cases: Sequence[Case], *, arguments: bool = True
    ) -> list[str]:
        """Return what kind of plan the candidate has for each of ``cases``; see ``plan_kinds.kind``."""
        calls = [problem.call(case) for case in cases]
        plans = passed(self._capturer.capture(candidate.source, problem.entry, calls, self._target))
        return [kind(plan, call, arguments=arguments) for plan, call in zip(plans, calls, strict=True)]

    def fastest(
        self,
        candidate: Candidate,
        problem: Problem,
        cases: Sequence[Case],
        plans: Sequence[Sequence[LaunchPlan]],
        seconds: Callable[[Case, LaunchPlan], float],
    ) -> tuple[LaunchPlan, ...]:
        """Return the fastest of the ``alternatives`` for each of ``cases``; ``seconds`` tells how long one takes."""

        def capture(case: Case, configurations: Sequence[Configuration]) -> LaunchPlan:
            return self.plans(candidate, problem, [case], configurations)[0]

        autotuner = Autotuner(self._misfit, seconds, capture)
        return tuple(autotuner.fastest(case, of_case) for case, of_case in zip(cases, plans, strict=True))

    def fitting(self, plans: Sequence[LaunchPlan]) -> Sequence[LaunchPlan]:
        """Return the plans for one case that fit the target, or all of them where none does."""
        return [plan for plan in plans if not any(map(self._misfit, plan.kernels))] or plans

    def check_grids(self, plans: Iterable[LaunchPlan]) -> None:
        """Refuse a grid that the target's driver refuses. Kernels that do not fit over any grid are not looked at."""
        for plan in plans:
            for launch in plan.launches:
                kernel = plan.kernels[launch.kernel]
                passed(fit_grid(kernel.name, launch.grid))
                if kernel.option.get("launch_cooperative_grid") and not self._misfit(kernel):
                    binary = passed(self._compiler.compile(kernel, self._target))
                    passed(fit_together(kernel, launch.programs, binary, self._target))

    def resident(self, kernel: KernelIR, programs: int) -> int:
        """Return how many of the ``programs`` of a launch the target holds at once."""
        if kernel.option.get("num_ctas") in (None, 1) and programs <= self._target.sms:
            return programs  # whatever the kernel takes: one of them fits on an SM
        binary = passed(self._compiler.compile(kernel, self._target))
        passed(fit(binary, self._target))
        return min(programs, ctas_per_sm(binary, self._target) * self._target.sms // binary.ctas_per_program)

    def _misfit(self, kernel: KernelIR) -> Fault | None:
        binary = self._compiler.compile(kernel, self._target)
        return binary if isinstance(binary, Fault) else fit(binary, self._target)


def digest_of(plans: Iterable[Iterable[LaunchPlan]]) -> str:
    """Return what identifies a candidate: a digest of its plans for all small and all large cases, in order."""
    return hashlib.sha256("".join(plan.digest for of_case in plans for plan in of_case).encode()).hexdigest()
