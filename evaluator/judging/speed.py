"""Speed of right candidates: the seam between the judge, who knows what is right, and whoever tells how fast it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from evaluator.binary import Binary
from evaluator.evaluation import Fault, Score, Status
from evaluator.performance import ModelError, predict
from evaluator.plan import KernelIR, LaunchPlan
from evaluator.problem import Case, Problem
from evaluator.target import ScoreKind, Target
from evaluator.work import LaunchWork


@dataclass(frozen=True)
class CompiledPlan:
    """What a candidate does for one benchmark case: canonical, compiled and counted."""

    case: Case
    plan: LaunchPlan
    binaries: Mapping[KernelIR, Binary]
    """At least those of the plan's kernels."""
    works: tuple[LaunchWork, ...]
    """One per launch."""


@dataclass(frozen=True)
class Challenge:
    """The incumbent that a candidate is timed against: its benchmarks are those of the same cases, in order."""

    benchmarks: tuple[CompiledPlan, ...]
    plan_digest: str
    alpha: float
    """Probability with which the comparison may call a candidate faster that is not."""


class Speed(Protocol):
    """Tells how fast candidates are that are right."""

    def score(
        self,
        problem: Problem,
        benchmarks: Sequence[CompiledPlan],
        incumbent: Challenge | None,
        small: Sequence[CompiledPlan] = (),
    ) -> Score | Fault:
        """Return the score of a candidate, one figure per benchmark; a candidate's fault is a value.

        Where speed is measured, the plans of ``small`` cases are run and compared first; their work is not counted.
        """
        ...


class Predicted:
    """Speed by the performance model; the incumbent has no part in it."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def score(
        self,
        problem: Problem,
        benchmarks: Sequence[CompiledPlan],
        incumbent: Challenge | None,
        small: Sequence[CompiledPlan] = (),
    ) -> Score | Fault:
        """Return the predicted score."""
        scores = []
        for each in benchmarks:
            useful, least = problem.flops(each.case), problem.least_bytes(each.case)
            try:
                scores.append(predict(each.case.name, useful, least, each.works, self._target))
            except ModelError as error:
                return Fault(Status.UNSUPPORTED, f"no prediction for {self._target.name}: {error}")
        return Score(ScoreKind.PREDICTED, self._target.name, tuple(scores))
