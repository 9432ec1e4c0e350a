import json

import pytest

from evaluator.candidate import Candidate
from evaluator.errors import EvaluatorUnavailable
from evaluator.evaluation import Evaluation, Status
from evaluator.protocol import MalformedRequest, Request, answer, failure, requests, verdict

REQUEST = Request(7, Candidate("mha", "x = 1"))
FAULT = Evaluation(Status.CRASHED, "died", "h100", "quick", 0.5)


def test_requests_survive_the_wire() -> None:
    assert list(requests(["\n", REQUEST.line() + "\n"])) == [REQUEST]


def test_answers_survive_the_wire() -> None:
    assert verdict(REQUEST, answer(REQUEST, FAULT)) == FAULT


NESTED = "[" * 100_000


@pytest.mark.parametrize(
    "line",
    [
        "{", "[]", '{"id": 1}', '{"id": "1", "problem": "mha", "source": ""}', "null", NESTED,
        '{"id": true, "problem": "mha", "source": ""}', '{"id": 1, "problem": "mha", "source": ["x"]}', "1" * 5000,
    ],
)  # fmt: skip
def test_a_malformed_line_is_answered_not_fatal(line: str) -> None:
    (request,) = requests([line])
    assert isinstance(request, MalformedRequest)


@pytest.mark.parametrize("line", ["", "[]", "{}", '{"id": 7, "evaluation": {}}', "null", NESTED])
def test_an_unreadable_answer_is_no_verdict(line: str) -> None:
    with pytest.raises(EvaluatorUnavailable):
        verdict(REQUEST, line)


def test_an_answer_to_another_request_is_no_verdict() -> None:
    with pytest.raises(EvaluatorUnavailable, match="request 8 instead of 7"):
        verdict(REQUEST, answer(Request(8, REQUEST.candidate), FAULT))


def test_a_failure_is_raised_with_its_message() -> None:
    with pytest.raises(EvaluatorUnavailable, match="no such suite"):
        verdict(REQUEST, failure(7, "no such suite"))


def test_a_request_is_one_line() -> None:
    line = Request(1, Candidate("mha", "a\nb")).line()
    assert "\n" not in line
    assert json.loads(line)["source"] == "a\nb"
