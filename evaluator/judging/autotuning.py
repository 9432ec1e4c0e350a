"""Autotuned kernels: the plans for one case differ by configurations, and the fastest counts.

As with Triton's autotuner, configurations that do not fit the target are skipped, and calls with the same key get
the configuration that was found for the first of them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from avo.evaluator.evaluation import Fault, Score, Status
from avo.evaluator.judging.refusal import Refused, told
from avo.evaluator.plan import Configuration, KernelIR, LaunchPlan
from avo.evaluator.problem import Case


@dataclass
class Autotuner:
    """Chooses the plans for the benchmark cases of one candidate, case by case."""

    misfit: Callable[[KernelIR], Fault | None]
    """Returns why a kernel cannot be launched on the target, or None when it can."""
    seconds: Callable[[Case, LaunchPlan], float]
    """Returns how long a plan that fits takes."""
    capture: Callable[[Case, Sequence[Configuration]], LaunchPlan]
    """Returns the plan with the given configurations."""
    _found: dict[tuple[str, str], str] = field(default_factory=dict)
    """The choice found, by kernel and key."""

    def fastest(self, case: Case, plans: Sequence[LaunchPlan]) -> LaunchPlan:
        """Return the fastest plan. The first of ``plans`` has the first configuration of each autotuned kernel, each
        other plan differs from it in one kernel's.

        Launches follow one another, so the fastest configurations of each kernel are the fastest together. Raises
        ``Refused`` where a kernel has no configuration that fits.
        """
        if len(plans) == 1:
            return plans[0]
        fitting = self._fitting(plans)
        known = {plan.configurations: plan for plan in plans}

        def plan_with(choices: Mapping[str, Configuration]) -> LaunchPlan:
            wanted = tuple(choices.values())
            return known[wanted] if wanted in known else self.capture(case, wanted)

        first = {kernel: choices[0] for kernel, choices in fitting.items()}
        best = dict(first)
        for kernel, choices in fitting.items():
            least = float("inf")
            for choice in self._allowed(choices) if len(choices) > 1 else ():
                with told(after=in_words([choice])):
                    seconds = self.seconds(case, plan_with({**first, kernel: choice}))
                if seconds < least:
                    least, best[kernel] = seconds, choice
            self._found[kernel, best[kernel].key] = best[kernel].choice
        return plan_with(best)

    def _allowed(self, choices: Sequence[Configuration]) -> Sequence[Configuration]:
        """Return the choices that the first case with the same key leaves."""
        found = self._found.get((choices[0].kernel, choices[0].key))
        return [choice for choice in choices if choice.choice == found] or choices

    def _fitting(self, plans: Sequence[LaunchPlan]) -> dict[str, list[Configuration]]:
        """Return the configurations of each autotuned kernel that fit the target."""
        misfits = {kernel: self.misfit(kernel) for plan in plans for kernel in plan.kernels}
        for kernel, fault in misfits.items():
            everywhere = all(kernel in plan.kernels for plan in plans)
            if fault and (everywhere or fault.status is not Status.DOES_NOT_FIT):
                raise Refused(fault)
        fitting: dict[str, list[Configuration]] = {}
        first = _by_kernel(plans[0])
        for name in first:
            others = {kernel: choice for kernel, choice in first.items() if kernel != name}.items()
            made = [(plan, _by_kernel(plan)) for plan in plans]
            group = {mine[name]: plan for plan, mine in made if name in mine and mine.items() >= others}
            shared = set(plans[0].kernels).intersection(*(plan.kernels for plan in group.values()))
            reasons = {
                choice: next((fault for ir in plan.kernels if ir not in shared and (fault := misfits[ir])), None)
                for choice, plan in group.items()
            }
            fitting[name] = [choice for choice, reason in reasons.items() if reason is None]
            if not fitting[name]:
                message = "; ".join(f"{choice.choice}: {fault.message}" for choice, fault in reasons.items() if fault)
                raise Refused(Fault(Status.DOES_NOT_FIT, f"no configuration of kernel {name} fits: {message}"))
        return fitting


def named(score: Score, plans: Iterable[LaunchPlan]) -> Score:
    """Return the score with the configurations of its plans, one plan per case."""
    return replace(
        score,
        cases=tuple(
            replace(case, configurations=tuple(map(str, plan.configurations)))
            for case, plan in zip(score.cases, plans, strict=True)
        ),
    )


def in_words(configurations: Iterable[Configuration]) -> str:
    """Return `` (with KERNEL: CHOICE; ...)``, to be added to a message; ``""`` if there are none."""
    text = "; ".join(map(str, configurations))
    return f" (with {text})" if text else ""


def _by_kernel(plan: LaunchPlan) -> dict[str, Configuration]:
    return {configuration.kernel: configuration for configuration in plan.configurations}
