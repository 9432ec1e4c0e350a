"""The seam between search and judge: typed methods make requests, and a request says which suite it is about."""

from dataclasses import replace

import pytest

from avo.evaluator.candidate import Candidate, Incumbent
from avo.evaluator.errors import UnknownProblem
from avo.evaluator.evaluation import Evaluation, Fault, Status
from avo.evaluator.evaluators import AnyRequest, EvaluateRequest, ProfileRequest, VerifyRequest, suite_of
from avo.evaluator.fake import FakeEvaluator
from avo.evaluator.inspection import Inspection, Look
from avo.evaluator.problems import PROBLEMS
from avo.evaluator.problems.mha import MHA

CANDIDATE = Candidate("mha", "x = 1")
OWN = replace(MHA, name="own", suites={"quick": MHA.suites["quick"]}, baselines=())


class Asked(FakeEvaluator):
    """Remembers the last request."""

    def ask(self, request: AnyRequest) -> object:
        self.request = request
        return super().ask(request)


def test_each_method_is_a_request() -> None:
    verdict = Evaluation(Status.CRASHED, "died", "h100", "quick", 0.1)
    evaluator, incumbent = Asked(lambda candidate: verdict, Fault(Status.CRASHED, "no")), Incumbent(CANDIDATE, 0.1)
    assert (evaluator.evaluate(CANDIDATE, incumbent), evaluator.request) == (
        verdict,
        EvaluateRequest(CANDIDATE, incumbent),
    )
    assert (evaluator.verify(CANDIDATE), evaluator.request) == (verdict, VerifyRequest(CANDIDATE))
    assert (evaluator.verify(CANDIDATE, "plans"), evaluator.request) == (verdict, VerifyRequest(CANDIDATE, "plans"))
    assert (evaluator.profile(CANDIDATE, "one"), evaluator.request) == (
        evaluator.profiles,
        ProfileRequest(CANDIDATE, "one"),
    )


@pytest.mark.parametrize(
    ("request_", "suite"),
    [
        (EvaluateRequest(CANDIDATE), "quick"),
        (VerifyRequest(CANDIDATE), "held_out"),
        (VerifyRequest(Candidate("own", "")), "quick"),
        (ProfileRequest(CANDIDATE, "8k-full"), "quick"),
        (Inspection(Look.SCORE, "mha", "", suite="paper"), "paper"),
        (Inspection(Look.SCRIPT, "no such problem", ""), "quick"),
    ],
)
def test_a_request_is_about_a_suite(monkeypatch: pytest.MonkeyPatch, request_: AnyRequest, suite: str) -> None:
    monkeypatch.setitem(PROBLEMS, "own", OWN)
    assert suite_of(request_, "quick") == suite


@pytest.mark.parametrize(
    "request_",
    [
        EvaluateRequest(Candidate("no such problem", "")),
        ProfileRequest(CANDIDATE, "no such case"),
        Inspection(Look.SCORE, "mha", "", suite="no such suite"),
    ],
)
def test_what_does_not_exist_is_said_before_anybody_is_asked(request_: AnyRequest) -> None:
    with pytest.raises(UnknownProblem):
        suite_of(request_, "quick")
