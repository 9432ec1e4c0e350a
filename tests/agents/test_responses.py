"""The Responses API: what is asked, what is read, and the model's reasoning, which goes back to where it came from."""

from typing import Any

import pytest

from avo.agents.errors import ContextOverflow, ModelRefused
from avo.agents.model import ToolCall, Usage, thought_text
from tests.agents.caller import HELLO, PRICED, TOOLS, model
from tests.agents.endpoint import Line

APIS = ("responses",)
GOOD: Line = {"text": "here"}
OPTIONAL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look.",
        "parameters": {"type": "object", "properties": {"at": {"type": "integer"}}, "required": []},
    },
}


def secret(name: str) -> dict[str, Any]:
    return {"id": name, "summary": [], "encrypted_content": f"secret {name}"}


def sent(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "reasoning", **item}


@pytest.mark.parametrize("whole", [False, True])
def test_a_reply_comes_with_its_calls_and_is_charged(whole: bool) -> None:
    usage = {"input_tokens": 1000, "output_tokens": 100, "input_tokens_details": {"cached_tokens": 600}}
    line = {"text": "look", "calls": [["look", {"at": 1}], ["look", "{}"]], "usage": usage, "whole": whole}
    with model(line, apis=APIS, **PRICED) as (asked, _):
        reply = asked.complete(TOOLS)
    assert (reply.text, reply.problem, reply.usage, reply.thought) == ("look", "", Usage(1000, 600, 100), None)
    assert reply.calls == (ToolCall("call_0", "look", '{"at": 1}'), ToolCall("call_1", "look", "{}"))
    (call,) = asked.desk.calls
    assert call["usd"] == pytest.approx((400 * 1.0 + 600 * 0.1 + 100 * 4.0) / 1e6)


def test_a_conversation_is_sent_as_items_and_nothing_is_stored() -> None:
    called = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    talk = [
        {"role": "system", "content": "Be brief."},
        *HELLO,
        {"role": "assistant", "content": "I look.", "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "1", "content": "dark"},
    ]
    limits = {"max_output_tokens": 99, "reasoning_effort": "low", "temperature": 0.5}
    with model(GOOD, apis=APIS, extra_body={"top_k": 3}, **limits) as (asked, endpoint):
        asked.complete([OPTIONAL], talk)
    at = {"type": ["integer", "null"]}
    assert endpoint.requests == [
        {
            "model": "m", "stream": True, "store": False, "include": ["reasoning.encrypted_content"],
            "instructions": "Be brief.", "max_output_tokens": 99, "reasoning": {"effort": "low"}, "temperature": 0.5,
            "top_k": 3,
            "input": [
                {"role": "user", "content": "hello"},
                {"role": "assistant", "content": "I look."},
                {"type": "function_call", "call_id": "1", "name": "look", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "1", "output": "dark"},
            ],
            "tools": [
                {
                    "type": "function", "name": "look", "description": "Look.", "strict": True,
                    "parameters": {
                        "type": "object", "properties": {"at": at}, "required": ["at"], "additionalProperties": False,
                    },
                }
            ],
        }
    ]  # fmt: skip


def test_what_a_strict_tool_was_called_without_is_left_out() -> None:
    with model({"calls": [["look", {"at": None}]]}, apis=APIS) as (asked, _):
        assert asked.complete([OPTIONAL]).calls[0].arguments == "{}"


def test_reasoning_goes_back_to_its_place_encrypted_or_not() -> None:
    plain = {"id": "r2", "summary": [], "content": [{"type": "reasoning_text", "text": "it is dark"}]}
    output = [
        {"type": "reasoning", "status": "completed", **secret("r1")},
        {"type": "function_call", "call_id": "1", "name": "look", "arguments": "{}"},
        {"type": "reasoning", **plain},
        {"type": "function_call", "call_id": "2", "name": "look", "arguments": "{}"},
        {"type": "reasoning", **secret("r3")},
    ]
    end = {"type": "response.completed", "response": {"object": "response", "status": "completed", "output": output}}
    with model({"events": [end]}, GOOD, apis=APIS) as (asked, endpoint):
        message = asked.complete(TOOLS).message
        asked.complete(TOOLS, [*HELLO, message])
    _, first, one, second, two = endpoint.requests[1]["input"]
    assert (first, second) == (sent(secret("r1")), sent(plain))
    assert (one["call_id"], two["call_id"]) == ("1", "2"), "and what nothing follows is left out"
    assert thought_text(message) == "it is dark"


def test_reasoning_that_the_endpoint_did_not_give_away_is_not_named_to_it() -> None:
    line = {"text": "yes", "thought": [{"id": "r1", "summary": [{"type": "summary_text", "text": "I think"}]}]}
    with model(line, apis=APIS) as (asked, endpoint):
        message = asked.complete().message
        asked.complete((), [*HELLO, message])
    assert endpoint.requests[1]["input"][1:] == [{"role": "assistant", "content": "yes"}]
    assert thought_text(message) == "I think"


def test_another_models_reasoning_is_not_sent() -> None:
    with model({"text": "yes", "thought": [secret("r1")]}, apis=APIS) as (asked, endpoint):
        message = asked.complete().message
        message["thought"]["model"] = "other"
        asked.complete((), [*HELLO, message])
    assert len(endpoint.requests[1]["input"]) == 2


def test_reasoning_that_the_endpoint_cannot_read_is_left_out_for_the_rest_of_the_step() -> None:
    def respond(request: dict[str, Any]) -> Line:
        if any(item.get("type") == "reasoning" for item in request["input"]):
            return {"status": 400, "body": '{"error": {"message": "The encrypted content could not be verified."}}'}
        return {"text": "yes", "thought": [secret("r1")]}

    with model(respond, apis=APIS) as (asked, endpoint):
        message = asked.complete().message
        for _ in range(2):
            assert asked.complete((), [*HELLO, message]).text == "yes"
    assert len(endpoint.requests) == 4
    assert all("include" in request for request in endpoint.requests)


def test_the_phase_of_a_text_is_kept() -> None:
    said = {"type": "message", "phase": "commentary", "content": [{"type": "output_text", "text": "hm"}]}
    end = {"type": "response.completed", "response": {"status": "completed", "output": [said]}}
    with model({"events": [end]}, apis=APIS) as (asked, endpoint):
        asked.complete((), [*HELLO, asked.complete().message])
    assert endpoint.requests[1]["input"][1] == {"role": "assistant", "content": "hm", "phase": "commentary"}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ({"text": "half a", "finish": "max_output_tokens"}, "cut off at the limit of output tokens"),
        ({"finish": "content_filter"}, "withheld by the content filter"),
        ({"thought": [secret("r1")]}, "empty"),
    ],
)
def test_a_reply_of_little_use_is_given_back_and_its_problem_written_down(line: Line, problem: str) -> None:
    with model(line, apis=APIS) as (asked, _):
        assert asked.complete().problem == problem
    assert asked.errors == [problem]


def test_a_refusal_is_what_the_model_says() -> None:
    said = {"type": "message", "content": [{"type": "refusal", "refusal": "I will not."}]}
    end = {"type": "response.completed", "response": {"status": "completed", "output": [said]}}
    with model({"events": [end]}, apis=APIS) as (asked, _):
        assert asked.complete().text == "I will not."


def failing(code: str, message: str = "no") -> Line:
    counted = {"input_tokens": 70, "output_tokens": 30}
    response = {"status": "failed", "error": {"code": code, "message": message}, "output": [], "usage": counted}
    return {"events": [{"type": "response.created"}, {"type": "response.failed", "response": response}]}


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (failing("server_error", "try later"), "the endpoint reports an error: try later"),
        ({"events": [{"type": "error", "code": "rate_limit_exceeded", "message": "slow"}]}, "reports an error: slow"),
        ({"text": "half", "last": 2}, "the answer broke off before its end: the call's tokens are estimated"),
        ({"events": [{"type": "keepalive"}, {"type": "response.created"}]}, "broke off before its end"),
    ],
)
def test_what_may_pass_is_tried_again_and_written_down(fault: Line, error: str) -> None:
    with model(fault, GOOD, apis=APIS, api="responses") as (asked, _):
        assert asked.complete().text == "here"
    assert error in asked.errors[0]
    assert asked.errors[1] == ""


def test_a_failed_response_that_was_billed_is_charged() -> None:
    with model(failing("server_error"), GOOD, apis=APIS) as (asked, _):
        asked.complete()
    assert asked.desk.calls[0]["usage"] == Usage(70, 0, 30)


def test_an_error_in_the_stream_that_lasts_ends_the_step() -> None:
    lasting = failing("invalid_prompt", "not this")
    with model(lasting, apis=APIS) as (asked, _), pytest.raises(ModelRefused, match="not this"):
        asked.complete()
    with model(failing("context_length_exceeded"), apis=APIS) as (asked, _), pytest.raises(ContextOverflow):
        asked.complete()


def test_a_server_that_speaks_something_else_is_given_up() -> None:
    other = {"body": '{"choices": []}'}
    with model(other, apis=APIS, api="responses") as (asked, endpoint), pytest.raises(ModelRefused, match="not a mod"):
        asked.complete()
    assert len(endpoint.requests) == 5
