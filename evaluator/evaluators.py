"""The seams between search and judge: what judges candidates, what explains their speed, and a fake of both."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from evaluator.candidate import Candidate, Incumbent
from evaluator.evaluation import Evaluation, Fault
from evaluator.inspection import Findings, Inspection, Inspector
from evaluator.target import Target
from evaluator.targets import get_target

if TYPE_CHECKING:
    from evaluator.profile import Profile


class Evaluator(Protocol):
    """Judges candidates for one target and suite."""

    def evaluate(self, candidate: Candidate, incumbent: Incumbent | None = None) -> Evaluation:
        """Return the verdict; a candidate's fault is a value. Raises ``EvaluatorUnavailable`` when there is none.

        Where speed is measured, the candidate is timed in turn with ``incumbent`` and its score compared with it;
        elsewhere ``incumbent`` does not matter.
        """
        ...


class Profiler(Protocol):
    """Explains the predicted speed of candidates for one target and suite."""

    def profile(self, candidate: Candidate, case: str | None = None) -> "tuple[Profile, ...] | Fault":
        """Return why ``candidate`` is as fast as predicted, for each benchmark case or the one called ``case``.

        Whether its numbers are right is not checked. Raises ``EvaluatorUnavailable``, and ``UnknownProblem`` for a
        case that is none.
        """
        ...


class Verifier(Protocol):
    """Examines candidates closely before they are accepted."""

    def verify(self, candidate: Candidate) -> Evaluation:
        """Return the verdict afresh: at the shapes that no variation operator is shown, at lengths drawn anew, and in
        larger samples of the evaluator's own suite.

        The score is that of the suite ``HELD_OUT``, or the evaluator's own where the problem has none. Raises
        ``EvaluatorUnavailable``.
        """
        ...


class Judging(Evaluator, Verifier, Profiler, Inspector, Protocol):
    """All of them: what a judge can do, wherever it runs."""

    @property
    def target(self) -> Target:
        """What it judges for, with the figures of its GPU where speed is measured; raises ``EvaluatorUnavailable``."""
        ...


class FakeEvaluator:
    """A judge for tests: the verdict is a function of the source, and every call is recorded.

    ``held_out``, where set, is the verdict of ``verify``, which is the same otherwise.
    """

    def __init__(
        self, verdict: Callable[[Candidate], Evaluation], profiles: "tuple[Profile, ...] | Fault" = ()
    ) -> None:
        self.target = get_target("h100")
        self.verdict = verdict
        self.held_out: Callable[[Candidate], Evaluation] | None = None
        self.profiles = profiles
        self.verified: list[Candidate] = []
        self.findings = Findings()
        self.inspections: list[Inspection] = []
        self.calls: list[Candidate] = []
        self.incumbents: list[Incumbent | None] = []
        """One for each of ``calls``."""

    def evaluate(self, candidate: Candidate, incumbent: Incumbent | None = None) -> Evaluation:
        """Return ``verdict(candidate)``."""
        self.calls.append(candidate)
        self.incumbents.append(incumbent)
        return self.verdict(candidate)

    def verify(self, candidate: Candidate) -> Evaluation:
        """Return ``held_out(candidate)``, or ``verdict(candidate)``."""
        self.verified.append(candidate)
        return (self.held_out or self.verdict)(candidate)

    def profile(self, candidate: Candidate, case: str | None = None) -> "tuple[Profile, ...] | Fault":
        """Return what it was made with."""
        return self.profiles

    def inspect(self, inspection: Inspection) -> Findings:
        """Return ``findings``."""
        self.inspections.append(inspection)
        return self.findings
