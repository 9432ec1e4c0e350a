"""The seam between search and judge: one method, and the evaluators that have it."""

from collections.abc import Callable
from typing import Protocol

from evaluator.candidate import Candidate
from evaluator.evaluation import Evaluation


class Evaluator(Protocol):
    """Judges candidates for one target and suite."""

    def evaluate(self, candidate: Candidate) -> Evaluation:
        """Return the verdict; a candidate's fault is a value. Raises ``EvaluatorUnavailable`` when there is none."""
        ...


class FakeEvaluator:
    """An evaluator for tests: the verdict is a function of the source, and every call is recorded."""

    def __init__(self, verdict: Callable[[Candidate], Evaluation]) -> None:
        self.verdict = verdict
        self.calls: list[Candidate] = []

    def evaluate(self, candidate: Candidate) -> Evaluation:
        """Return ``verdict(candidate)``."""
        self.calls.append(candidate)
        return self.verdict(candidate)
