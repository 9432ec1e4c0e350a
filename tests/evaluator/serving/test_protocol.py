import json
from dataclasses import replace

import pytest

from avo.evaluator.candidate import Candidate, Incumbent
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.evaluation import CaseScore, Evaluation, Fault, Status
from avo.evaluator.evaluators import AnyRequest, EvaluateRequest, ProfileRequest, VerifyRequest
from avo.evaluator.profile import (
    Counted,
    Counters,
    LaunchProfile,
    LineCost,
    LineSamples,
    Part,
    PipeLane,
    Profile,
    Role,
    Section,
    Timeline,
    WarpLane,
    WhatIf,
)
from avo.evaluator.serving.protocol import (
    VERSION,
    MalformedRequest,
    answer_line,
    failure_line,
    greeting,
    read_answer,
    ready,
    request_line,
    requests,
)
from avo.evaluator.target import ScoreKind
from avo.evaluator.targets import get_target

REQUEST = EvaluateRequest(Candidate("mha", "x = 1"))
AGAINST = EvaluateRequest(REQUEST.candidate, Incumbent(Candidate("mha", "x = 2"), 0.01))
HELD_OUT = VerifyRequest(REQUEST.candidate)
SCORED = VerifyRequest(REQUEST.candidate, "digest of its plans")
EXPLAIN = ProfileRequest(REQUEST.candidate, "8k-full")
FAULT = Evaluation(Status.CRASHED, "died", "h100", "quick", 0.5)
LINE = LineCost(3, "k = tl.load(", 10.0, 0.5, {"scoreboard": 0.5}, "LDG")
LOOP = Section(
    "loop at line 2", 2, 4.0, 20.0, 1.0, {"tensor": 0.3}, "latency", {"latency": 9.0}, {"latency": 2.0},
    (Role(4, {}, (), (LINE,)),),
)  # fmt: skip
PROFILE = Profile(
    ScoreKind.PREDICTED,
    "h100",
    CaseScore("8k-full", 200.0, 10.0, "latency", {"tensor": 0.3}, 190.0, 210.0, ("what FOO takes",)),
    (Part("loop at line 2", 0, 10.0, 1.0),),
    (LaunchProfile("kernel", 8, 2, ("registers",), 0.5, 128, 0, 1024, 10.0, 1.48, (LOOP,)),),
    (WhatIf("no_spills", "no spills", 10.0, 200.0, 0.0, 0.0, "has none"),),
    Timeline(
        "loop at line 2", 40.0, (0.0, 20.0), (PipeLane("tensor", (0.5, 1.0)),), (WarpLane("warps", ("running",)),)
    ),
)
SAMPLES = LineSamples(3, "k = tl.load(", 0.7, {"long sb": 0.6, "wait": 0.1})
COUNTED = replace(PROFILE, counted=Counted("H100", (Counters("kernel", {"tensor pipe busy, %": 51.0}, (SAMPLES,)),)))


@pytest.mark.parametrize("request_", [REQUEST, AGAINST, HELD_OUT, SCORED, EXPLAIN, replace(EXPLAIN, case=None)])
def test_requests_survive_the_wire(request_: AnyRequest) -> None:
    assert list(requests(["\n", request_line(7, request_) + "\n"])) == [(7, request_)]


def test_answers_survive_the_wire() -> None:
    assert read_answer(7, REQUEST, answer_line(7, FAULT)) == FAULT


@pytest.mark.parametrize(
    "found", [(PROFILE, replace(PROFILE, timeline=None), COUNTED), (), Fault(Status.CRASHED, "died")]
)
def test_explanations_survive_the_wire_with_their_timeline(found: tuple[Profile, ...] | Fault) -> None:
    assert read_answer(7, EXPLAIN, answer_line(7, found)) == found


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


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"incumbent": "x = 2"}, '"incumbent" is an object'),
        ({"incumbent": {"source": "x = 2"}}, '"incumbent" is an object'),
        ({"incumbent": {"source": "x = 2", "alpha": 0}}, "between 0 and 1"),
        ({"incumbent": {"source": "x = 2", "alpha": True}}, "between 0 and 1"),
        ({"incumbent": {"source": "x = 2", "alpha": float("nan")}}, "between 0 and 1"),
        ({"held_out": True}, '"held_out" is an object with "plan_digest"'),
        ({"held_out": {"plan_digest": None}, "incumbent": {"source": "", "alpha": 0.1}}, 'goes without "incumbent"'),
        ({"profile": True}, '"profile" is an object'),
        ({"profile": {}}, '"profile" is an object'),
        ({"profile": {"case": 3}}, '"profile" is an object'),
        ({"profile": {"case": None}, "incumbent": {"source": "", "alpha": 0.1}}, 'goes without "incumbent"'),
    ],
)
def test_a_malformed_part_of_a_request_is_named(more: dict[str, object], message: str) -> None:
    (request,) = requests([json.dumps(json.loads(request_line(7, REQUEST)) | more)])
    assert isinstance(request, MalformedRequest)
    assert message in str(request)


def test_a_part_that_is_null_is_none() -> None:
    assert list(
        requests([json.dumps(json.loads(request_line(7, REQUEST)) | {"incumbent": None, "profile": None})])
    ) == [(7, REQUEST)]


@pytest.mark.parametrize("line", ["", "[]", "{}", '{"id": 7, "evaluation": {}}', "null", NESTED])
def test_an_unreadable_answer_is_no_verdict(line: str) -> None:
    with pytest.raises(EvaluatorUnavailable):
        read_answer(7, REQUEST, line)


@pytest.mark.parametrize("found", ['{"profiles": [{}]}', '{"profiles": 3}', '{"fault": {}}', '{"fault": 3}', "{}"])
def test_an_unreadable_explanation_is_none(found: str) -> None:
    with pytest.raises(EvaluatorUnavailable, match="cannot be read"):
        read_answer(7, EXPLAIN, json.dumps({"id": 7} | json.loads(found)))


def test_an_answer_to_another_request_is_no_verdict() -> None:
    with pytest.raises(EvaluatorUnavailable, match="request 8 instead of 7"):
        read_answer(7, REQUEST, answer_line(8, FAULT))


def test_a_failure_is_raised_with_its_message() -> None:
    with pytest.raises(EvaluatorUnavailable, match="no such suite"):
        read_answer(7, REQUEST, failure_line(7, "no such suite"))
    with pytest.raises(EvaluatorUnavailable, match="no such suite"):
        read_answer(7, EXPLAIN, failure_line(7, "no such suite"))


def test_a_request_is_one_line() -> None:
    asked = EvaluateRequest(Candidate("mha", "a\nb"), Incumbent(Candidate("mha", "c\nd"), 0.05))
    line = request_line(1, asked)
    assert "\n" not in line
    assert json.loads(line)["source"] == "a\nb"


def test_a_greeting_says_what_the_judge_is_there_for() -> None:
    card = replace(get_target("h100"), name="cuda", product="NVIDIA H100 PCIe", sms=114)
    assert greeting(ready(card), "cuda") == card


READY = json.loads(ready(get_target("h100")))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Last login: Monday\n", "instead of being ready, the judge says 'Last login: Monday'"),
        ("[]", r"instead of being ready, the judge says '\[\]'"),
        (NESTED, "instead of being ready"),
        ('{"ready": "h100"}', f"speaks version None of the protocol, not {VERSION}"),
        (json.dumps(READY | {"version": 99}), f"speaks version 99 of the protocol, not {VERSION}"),
        (json.dumps(READY | {"ready": "a100"}), "the judge is for target 'a100', not 'h100'"),
        (json.dumps(READY | {"target": {"arch": 90}}), "does not say what its target is"),
    ],
)
def test_a_judge_that_greets_otherwise_is_refused_in_one_line(line: str, message: str) -> None:
    with pytest.raises(EvaluatorUnavailable, match=message) as error:
        greeting(line, "h100")
    assert "\n" not in str(error.value)
