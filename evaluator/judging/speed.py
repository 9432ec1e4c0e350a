"""How fast correct candidates are: the seam between the judge and what predicts or measures speed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from avo.evaluator.binary import Binary
from avo.evaluator.evaluation import Fault, Score, Status
from avo.evaluator.judging.refusal import Refused
from avo.evaluator.performance import ModelError, predict, predict_time
from avo.evaluator.plan import KernelIR, LaunchPlan
from avo.evaluator.problem import Case, Problem
from avo.evaluator.profile import Counted, Source
from avo.evaluator.target import ScoreKind, Target
from avo.evaluator.work import LaunchWork


@dataclass(frozen=True)
class CompiledPlan:
    """A candidate's launch plan for one case, compiled, and its work counted."""

    case: Case
    plan: LaunchPlan
    binaries: Mapping[KernelIR, Binary]
    """Binaries of at least the plan's kernels."""
    works: tuple[LaunchWork, ...]
    """The work of each launch; empty where it was not counted."""


@dataclass(frozen=True)
class Challenge:
    """The incumbent that a candidate is timed against."""

    plans: tuple[CompiledPlan, ...]
    """Plans for the same benchmark cases as the candidate's, in the same order."""
    plan_digest: str
    alpha: float
    """Allowed probability that the comparison calls a candidate faster that is not."""


class Speed(Protocol):
    """Tells how fast correct candidates are."""

    def score(
        self,
        problem: Problem,
        plans: Sequence[CompiledPlan],
        incumbent: Challenge | None,
        small: Sequence[CompiledPlan] = (),
    ) -> Score | Fault:
        """Return the score of a candidate, one figure for each of ``plans``; a candidate's fault is a value.

        Where speed is measured, the plans of ``small`` cases are run and compared with the reference first.
        """
        ...


@dataclass(frozen=True)
class Instruments:
    """What looks at plans on this machine's GPU without timing them; None: nobody does."""

    count: Callable[[Problem, Sequence[CompiledPlan], Source], Sequence[Counted | None]] | None = None
    """Returns what the hardware counted for each plan, or why it did not, which is said once."""
    check: Callable[[Problem, Sequence[CompiledPlan]], Fault | str] | None = None
    """Returns the fault of plans whose machine code accesses other memory, or what was not checked, in words."""


class Predicted:
    """Speed as the performance model predicts it; the incumbent does not matter."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def score(
        self,
        problem: Problem,
        plans: Sequence[CompiledPlan],
        incumbent: Challenge | None,
        small: Sequence[CompiledPlan] = (),
    ) -> Score | Fault:
        """Return the predicted score."""
        scores = []
        for each in plans:
            useful, least = problem.flops(each.case), problem.least_bytes(each.case)
            try:
                scores.append(predict(each.case.name, useful, least, each.works, self._target))
            except ModelError as error:
                return self._unsupported(error)
        return Score(ScoreKind.PREDICTED, self._target.name, tuple(scores))

    def seconds(self, problem: Problem, plan: CompiledPlan) -> float:
        """Return the predicted time of a plan, without what else a score has. Raises ``Refused``."""
        try:
            time = predict_time(plan.works, self._target, least_bytes=problem.least_bytes(plan.case))
        except ModelError as error:
            raise Refused(self._unsupported(error)) from None
        return time.us / 1e6

    def _unsupported(self, error: ModelError) -> Fault:
        return Fault(Status.UNSUPPORTED, f"no prediction for {self._target.name}: {error}")
