"""An evaluator for tests, without a judge."""

from collections.abc import Callable
from typing import Any

from avo.evaluator.candidate import Candidate, Incumbent
from avo.evaluator.evaluation import Evaluation, Fault
from avo.evaluator.evaluators import AnyRequest, EvaluateRequest, Evaluator, ProfileRequest, VerifyRequest
from avo.evaluator.inspection import Findings, Inspection, Look
from avo.evaluator.profile import Profile
from avo.evaluator.target import TARGETS


class FakeEvaluator(Evaluator):
    """An evaluator for tests: the verdict is a function of the source, and every request is recorded.

    ``held_out``, where set, is the verdict of ``verify``, which is the same otherwise. Looks at the speed see what the
    verdict says of it.
    """

    target = TARGETS["h100"]

    def __init__(self, verdict: Callable[[Candidate], Evaluation], profiles: tuple[Profile, ...] | Fault = ()) -> None:
        self.verdict = verdict
        self.held_out: Callable[[Candidate], Evaluation] | None = None
        self.profiles = profiles
        self.verified: list[VerifyRequest] = []
        self.findings = Findings()
        self.inspections: list[Inspection] = []
        self.calls: list[Candidate] = []
        self.incumbents: list[Incumbent | None] = []
        """One for each of ``calls``."""

    def ask(self, request: AnyRequest) -> Any:
        """Return what was set for this class of request."""
        match request:
            case EvaluateRequest(candidate, incumbent):
                self.calls.append(candidate)
                self.incumbents.append(incumbent)
                return self.verdict(candidate)
            case VerifyRequest(candidate):
                self.verified.append(request)
                return (self.held_out or self.verdict)(candidate)
            case ProfileRequest():
                return self.profiles
            case Inspection():
                self.inspections.append(request)
                if request.look not in (Look.SPEED, Look.RANK):
                    return self.findings
                found = self.verdict(Candidate(request.problem, request.source))
                fault = None if found.correct else Fault(found.status, found.message)
                return Findings(fault, resources=found.resources, score=found.score, plan_digest=found.plan_digest)
