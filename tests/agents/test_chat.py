"""The real client against an endpoint with every fault: nothing is lost, everything is written down, nobody waits."""

import json
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from email.utils import format_datetime
from time import sleep
from typing import Any

import pytest

from avo.agents.bounds import LONGEST_PAUSE_S
from avo.agents.connection import MOST_FAILURES
from avo.agents.desk import FakeDesk, Left
from avo.agents.errors import BudgetSpent, ContextOverflow, ModelFailing, ModelRefused
from avo.agents.model import ToolCall, Usage, thought_text
from tests.agents.caller import GOOD, GOOD_BODY, HELLO, NOW, PRICED, STREAMED, TOOLS, Caller, Time, model
from tests.agents.endpoint import Endpoint, Line


def test_a_reply_comes_with_its_calls_and_is_charged() -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 600}}
    line = {"text": "look", "calls": [["look", {"at": 1}], ["look", "{}"]], "usage": usage}
    with model(line, **PRICED) as (asked, endpoint):
        reply = asked.complete(TOOLS)
    assert (reply.text, reply.finish, reply.usage) == ("look", "tool_calls", Usage(1000, 600, 100))
    assert reply.calls == (ToolCall("call_0", "look", '{"at": 1}'), ToolCall("call_1", "look", "{}"))
    (call,) = asked.desk.calls
    assert (call["model"], call["usage"], call["error"]) == ("m", reply.usage, "")
    assert call["usd"] == pytest.approx((400 * 1.0 + 600 * 0.1 + 100 * 4.0) / 1e6)
    assert endpoint.headers[0]["authorization"] == "Bearer secret"


def test_only_what_is_configured_is_sent() -> None:
    with model(GOOD) as (asked, endpoint):
        asked.complete()
    assert endpoint.requests == [{"model": "m", "messages": HELLO, **STREAMED}]
    sampling = {"temperature": 0.5, "top_p": 0.9, "max_output_tokens": 99, "reasoning_effort": "low"}
    with model(GOOD, extra_body={"top_k": 3}, **sampling) as (asked, endpoint):
        asked.complete(TOOLS)
    (request,) = endpoint.requests
    assert request == {
        "model": "m", "messages": HELLO, "tools": TOOLS, "temperature": 0.5, "top_p": 0.9, "max_tokens": 99,
        "reasoning_effort": "low", "top_k": 3, **STREAMED,
    }  # fmt: skip


def slept(retry_after: str) -> float:
    limit = {"status": 429, "body": '{"error": {"message": "slow down"}}', "headers": {"Retry-After": retry_after}}
    with model(limit, GOOD) as (asked, _):
        assert asked.complete().text == "here"
        assert asked.errors == ["HTTP 429: slow down", ""]
    return float(sum(asked.time.slept))


def test_retry_after_is_honoured_in_seconds_and_as_a_date() -> None:
    assert slept("7") == pytest.approx(7, abs=10)
    assert slept("90") >= 90
    assert slept(format_datetime(NOW + timedelta(seconds=45), usegmt=True)) >= 45
    assert slept(format_datetime(NOW - timedelta(hours=1), usegmt=True)) <= 10
    assert slept("soon") <= 10


@pytest.mark.parametrize("asked", ["86400", "1e999", format_datetime(NOW + timedelta(days=1), usegmt=True)])
def test_a_pause_of_a_day_is_an_hour(asked: str) -> None:
    assert LONGEST_PAUSE_S <= slept(asked) <= LONGEST_PAUSE_S + 10


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"status": 500, "body": "{}"}, "HTTP 500"),
        ({"status": 503, "body": "overloaded"}, "HTTP 503: overloaded"),
        ({"status": 502, "body": "<html>Bad gateway</html>"}, "HTTP 502"),
        ({"hangup": True}, "no connection to http://127.0.0.1"),
        ({"body": "<html>busy</html>"}, "the endpoint's answer is not JSON: '<html>busy</html>'"),
        ({"body": '{"error": {"message": "upstream failed"}}'}, "the endpoint reports an error: upstream failed"),
        ({"body": '{"choices": []}'}, "not a model's reply"),
        ({"body": "[1, 2]"}, "not a model's reply: [1, 2]"),
        ({"body": GOOD_BODY, "headers": {"Content-Encoding": "gzip"}}, "the answer broke off"),
        ({"text": "half of it", "last": 2}, "the answer broke off before its end: the call's tokens are estimated"),
        ({"events": [{"choices": []}, {"error": {"code": 502, "message": "gone"}}]}, "reports an error: gone"),
        ({"events": ["nonsense"]}, "the endpoint's answer is not JSON: 'nonsense'"),
    ],
)
def test_what_may_pass_is_tried_again_and_written_down(fault: Line, error: str) -> None:
    with model(fault, fault, GOOD) as (asked, endpoint):
        assert asked.complete().text == "here"
    assert len(endpoint.requests) == 3
    assert [bool(error in found) for found in asked.errors] == [True, True, False]
    first, second = asked.time.slept
    assert 0.5 <= first <= 1.0 <= second <= 2.0


def test_a_failed_answer_that_was_billed_is_charged() -> None:
    billed = {"body": '{"choices": [], "usage": {"prompt_tokens": 70, "completion_tokens": 30}}'}
    with model(billed, GOOD, **PRICED) as (asked, _):
        asked.complete()
    first, second = asked.desk.calls
    assert first["usage"] == Usage(70, 0, 30)
    assert first["usd"] > 0
    assert second["usage"] == Usage(10, 0, 2)


def test_an_endpoint_that_does_not_answer_in_time_is_asked_again() -> None:
    with model({"pause_s": 600, **GOOD}, GOOD, timeout_s=0.1) as (asked, _):
        assert asked.complete().text == "here"
    assert asked.errors[0] == "nothing came for 0.1 s (silence_timeout_s): the call's tokens are estimated"
    assert asked.errors[-1] == ""


def test_an_answer_that_trickles_in_has_no_more_time_than_another() -> None:
    ticking = Time(tick=30.0)

    def at_once(request: dict[str, Any]) -> Line:
        ticking.tick = 0.0
        return GOOD

    with model({"whole": True, **GOOD}, at_once, time=ticking, timeout_s=20.0) as (asked, _):
        assert asked.complete().text == "here"
    assert asked.errors == ["no whole answer within 20 s (request_timeout_s): the call's tokens are estimated", ""]


def test_silence_in_a_reply_is_noticed_and_borne_twice_as_long_the_next_time() -> None:
    stalls = {"stall_s": 600, **GOOD}
    with model(stalls, stalls, GOOD, silence_s=0.1, **PRICED) as (asked, _):
        assert asked.complete().text == "here"
    silent, again, *_, good = asked.desk.calls
    assert [silent["error"], again["error"], good["error"]] == [
        "nothing came for 0.1 s (silence_timeout_s): the call's tokens are estimated",
        "nothing came for 0.2 s (silence_timeout_s): the call's tokens are estimated",
        "",
    ]
    assert silent["usage"].input_tokens > 20
    assert silent["usd"] > 0


def test_a_request_that_never_reached_the_endpoint_costs_nothing() -> None:
    with model({"hangup": True}, GOOD, **PRICED) as (asked, _):
        asked.complete()
    assert asked.desk.calls[0]["usage"] == Usage()


def test_how_much_of_a_reply_has_come_is_noted_now_and_then() -> None:
    def half_has_come() -> None:
        while len(asked.desk.heard) < 3:
            sleep(0.01)

    with model({"stall": half_has_come, "text": "x" * 40}) as (asked, _):
        asked.complete()
    assert asked.desk.heard == [None, None, 20], "the first request was for the other API"


@contextmanager
def nobody() -> Iterator[int]:
    """Yield a port at which nobody answers, and which no other process gets meanwhile; an endpoint may take it over."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


def test_an_endpoint_that_is_away_for_an_hour_is_waited_for() -> None:
    back: list[Endpoint] = []

    def come_back() -> None:
        if time.seconds > 3600 and not back:
            back.append(Endpoint([GOOD], port).__enter__())

    time = Time(on_sleep=come_back)
    with nobody() as port:
        asked = Caller(f"http://127.0.0.1:{port}/v1", FakeDesk(), time, 600.0, {})
        with closing(asked.client):
            assert asked.complete().text == "here"
        back[0].__exit__()
    assert 3600 < time.seconds < 3700
    assert all("Connection refused" in error for error in asked.errors[:-1])
    assert max(time.slept) <= 10


def test_an_endpoint_that_makes_each_mistake_once_is_outlived_and_every_request_has_a_row() -> None:
    later = {"status": 429, "body": "slow", "headers": {"Retry-After": "86400"}}
    wild = {"body": '{"choices": [{"message": {"content": "here"}}], "usage": {"prompt_tokens": 1e999}}'}
    mistakes: list[Line] = [
        {"body": "<html>busy</html>"}, {"body": "[1, 2]"}, {"status": 503, "body": "down"}, later, {"hangup": True},
        {"text": "x" * 300_000, "usage": False}, {"text": "half", "last": 1}, {"body": '{"choices": 1e999}'},
        {"status": 500, "body": "down", "headers": {"Content-Encoding": "gzip"}}, {"events": ["nonsense"]},
    ]  # fmt: skip
    with model(*mistakes, wild, GOOD, context_tokens=8_000, **PRICED) as (asked, endpoint):
        assert [asked.complete().text, asked.complete().text] == ["here", "here"]
    assert len(asked.errors) == len(endpoint.requests) == len(mistakes) + 2
    assert [bool(error) for error in asked.errors] == [True] * (len(mistakes) + 1) + [False]
    assert max(call["usage"].tokens for call in asked.desk.calls) <= 8_000
    assert asked.desk.calls[-1]["usd"] == pytest.approx((10 * 1.0 + 2 * 4.0) / 1e6, abs=1e-12)
    assert sum(asked.time.slept) < LONGEST_PAUSE_S + 600


def test_what_is_waited_for_is_said_with_the_failures_and_how_often_each_came() -> None:
    down, slow = {"status": 503, "body": "down"}, {"status": 429, "body": "slow", "headers": {"Retry-After": "90"}}
    with model(down, down, slow, GOOD, down, GOOD) as (asked, endpoint):
        asked.complete()
        asked.complete()
    assert [trouble for _, trouble in asked.desk.waits] == [
        f"{endpoint.url}/: HTTP 503: down",
        f"{endpoint.url}/: HTTP 503: down (2 times)",
        f"{endpoint.url}/: HTTP 503: down (2 times); HTTP 429: slow",
        f"{endpoint.url}/: HTTP 503: down",
    ]
    assert [round(seconds) for seconds, _ in asked.desk.waits][2] == 90


def test_waiting_ends_with_the_budget() -> None:
    desk = FakeDesk()

    def end() -> None:
        desk.budget = Left(spent="its time is up") if time.seconds > 100 else Left()

    time = Time(on_sleep=end)
    with nobody() as port:
        asked = Caller(f"http://127.0.0.1:{port}/v1", desk, time, 600.0, {})
        with closing(asked.client), pytest.raises(BudgetSpent, match="its time is up"):
            asked.complete()
    assert time.seconds < 115


def test_no_request_is_made_without_budget() -> None:
    with model(GOOD) as (asked, endpoint):
        asked.desk.budget = Left(spent="the run has used all")
        with pytest.raises(BudgetSpent, match="used all"):
            asked.complete()
    assert endpoint.requests == []


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (401, '{"error": {"message": "Incorrect key"}}', "HTTP 401: Incorrect key: is the key"),
        (400, '{"error": {"message": "unknown top_k"}}', "HTTP 400: unknown top_k: see the model's settings"),
        (404, '{"error": {"message": "no such model"}}', "HTTP 404: no such model: is the model's name right"),
        (429, '{"error": {"message": "pay", "code": "insufficient_quota"}}', "HTTP 429: pay"),
    ],
)
def test_what_asking_again_does_not_help_is_said_in_one_line(status: int, body: str, message: str) -> None:
    with model({"status": status, "body": body}) as (asked, endpoint), pytest.raises(ModelRefused) as error:
        asked.complete()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(endpoint.requests) == 1
    assert [f"model 'm': {found}" for found in asked.errors] == [str(error.value)]


@pytest.mark.parametrize(
    "error",
    [
        '"message": "too many", "code": "context_length_exceeded"',
        '"message": "This model\'s maximum context length is 8192 tokens"',
        '"message": "the request exceeds the available context size"',
    ],
)
def test_a_conversation_that_is_too_long_is_told_apart(error: str) -> None:
    with model({"status": 400, "body": f'{{"error": {{{error}}}}}'}) as (asked, _), pytest.raises(ContextOverflow):
        asked.complete()


def test_a_server_that_speaks_something_else_is_given_up():
    with model({"body": "<html>hello</html>"}) as (asked, endpoint), pytest.raises(ModelRefused, match="not JSON"):
        asked.complete()
    assert len(endpoint.requests) == 5


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ({"text": "half a", "finish": "length"}, "cut off at the limit of output tokens"),
        ({"text": None, "finish": "content_filter"}, "withheld by the content filter"),
        ({"text": ""}, "empty"),
    ],
)
def test_a_reply_of_little_use_is_given_back_and_its_problem_written_down(line: Line, problem: str) -> None:
    with model(line) as (asked, _):
        reply = asked.complete()
    assert reply.problem == problem
    assert asked.errors == [problem]
    assert asked.desk.calls[0]["usage"] == Usage(1000, 0, 100)


@pytest.mark.parametrize("count", ["1e400", "1" + "0" * 30, "1" + "0" * 400, "NaN", "-Infinity"])
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_a_count_of_tokens_that_cannot_be_is_estimated_instead_and_the_call_recorded(count: str, api: str) -> None:
    bodies = {
        "chat": '{"choices": [{"message": {"content": "here"}}], "usage": {"prompt_tokens": COUNT}}',
        "responses": '{"object": "response", "output": [{"type": "message", "content": [{"text": "here"}]}],'
        ' "usage": {"input_tokens": COUNT}}',
    }
    with model({"body": bodies[api].replace("COUNT", count)}, apis=[api], api=api, **PRICED) as (asked, _):
        assert asked.complete().text == "here"
    (call,) = asked.desk.calls
    assert 5 < call["usage"].tokens < 100
    assert 0 < call["usd"] < 1e-3
    assert count.startswith("-") or call["error"].endswith("is not believed: the call's tokens are estimated")


def test_an_event_with_a_place_that_is_no_number_is_not_a_reply() -> None:
    event = '{"type": "response.output_item.done", "output_index": Infinity, "item": {}}'
    with model({"events": [event]}, GOOD, apis=["responses"], api="responses") as (asked, _):
        assert asked.complete().text == "here"
    assert "not a model's reply" in asked.errors[0]


@pytest.mark.parametrize("whole", [True, False])
def test_an_answer_longer_than_the_context_is_broken_off_and_charged_with_no_more_than_the_context(whole: bool) -> None:
    endless = {"text": "x" * 3_000_000, "usage": False, "whole": whole}
    with model(endless, GOOD, context_tokens=128_000, **PRICED) as (asked, _):
        assert asked.complete().text == "here"
    call = asked.desk.calls[0]
    assert call["usage"].tokens <= 128_000
    assert call["usd"] <= 128_000 * 4e-6
    assert call["error"].startswith("more came than the model's context holds (context_tokens): ")


def test_a_model_that_writes_without_end_is_given_up() -> None:
    endless = {"text": "x" * 300_000}
    with model(endless, context_tokens=8_000) as (asked, endpoint), pytest.raises(ModelRefused, match="more came than"):
        asked.complete()
    assert len(endpoint.requests) == 5


def test_a_body_without_end_is_not_read_to_its_end() -> None:
    with model({"body": "x" * 9_000_000}, GOOD, context_tokens=8_000) as (asked, _):
        assert asked.complete().text == "here"
    assert asked.errors[0].startswith("more came than")


def test_an_error_whose_own_text_breaks_off_is_tried_again_and_written_down() -> None:
    broken = {"status": 500, "body": "down", "headers": {"Content-Encoding": "gzip"}}
    with model(broken, GOOD) as (asked, _):
        assert asked.complete().text == "here"
    assert "DecodingError" in asked.errors[0]


def test_tokens_are_estimated_where_the_endpoint_counts_none() -> None:
    with model({"text": "x" * 400, "usage": False}, **PRICED) as (asked, _):
        usage = asked.complete().usage
    assert usage.output_tokens == 101
    assert usage.input_tokens > 10


def test_unusual_answers_are_read_all_the_same() -> None:
    call = {"function": {"name": "look", "arguments": {"at": 1}}}
    parts = [{"type": "text", "text": "a\\ud800"}, {"type": "text", "text": "b"}]
    message = {"content": parts, "tool_calls": [call]}
    body = json.dumps({"choices": [{"message": message}]}).replace("\\\\ud800", "\\ud800")
    with model({"body": body}) as (asked, _):
        reply = asked.complete()
    assert reply.text == "a?b"
    assert reply.calls == (ToolCall("call_0", "look", '{"at": 1}'),)


def test_arguments_that_are_no_json_do_not_go_back_to_the_server() -> None:
    with model({"calls": [["look", '{"at": ']]}) as (asked, _):
        reply = asked.complete()
    assert reply.calls[0].arguments == '{"at": '
    assert reply.message["tool_calls"][0]["function"]["arguments"] == "{}"


def test_messages_of_the_user_that_follow_each_other_are_sent_as_one() -> None:
    talk = [*HELLO, {"role": "assistant", "content": "yes"}, *HELLO, *HELLO]
    with model(GOOD) as (asked, endpoint):
        asked.model.complete(talk, ())
    assert [(m["role"], m["content"]) for m in endpoint.requests[0]["messages"]] == [
        ("user", "hello"), ("assistant", "yes"), ("user", "hello\n\nhello"),
    ]  # fmt: skip


def test_a_model_that_can_be_replaced_is_not_waited_for_and_its_last_call_says_by_which() -> None:
    with model({"status": 503, "body": "down"}, successor="n") as (asked, endpoint), pytest.raises(ModelFailing):
        asked.complete()
    assert len(endpoint.requests) == MOST_FAILURES
    errors = [call["error"] for call in asked.desk.calls]
    assert errors == ["HTTP 503: down"] * (MOST_FAILURES - 1) + ["HTTP 503: down; model 'n' is asked instead"]
    later = {"status": 429, "body": "{}", "headers": {"Retry-After": "3600"}}
    with model(later, successor="n") as (asked, endpoint), pytest.raises(ModelFailing):
        asked.complete()
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning_content": "it is dark"},
        {
            "reasoning": "it is dark",
            "reasoning_details": [{"type": "reasoning.text", "text": "dark", "signature": "s"}],
        },
    ],
)
def test_reasoning_is_kept_and_goes_back_in_the_fields_in_which_it_came(fields: dict[str, Any]) -> None:
    with model({"calls": [["look", {}]], "thought": fields}) as (asked, endpoint):
        message = asked.complete(TOOLS).message
        asked.complete(TOOLS, [*HELLO, message])
        other = {**message, "thought": {**message["thought"], "model": "other"}}
        asked.complete(TOOLS, [*HELLO, other])
    assert message["thought"] == {"api": "chat", "model": "m", "fields": fields}
    assert thought_text(message) == "it is dark"
    bare = {key: value for key, value in message.items() if key != "thought"}
    assert [request["messages"][1] for request in endpoint.requests[1:]] == [bare | fields, bare]


def test_pieces_of_a_block_of_reasoning_are_put_together() -> None:
    def chunk(**block: Any) -> dict[str, Any]:
        return {"choices": [{"delta": {"reasoning_details": [{"type": "reasoning.text", "index": 0, **block}]}}]}

    events = [chunk(text="it is "), chunk(text="dark"), chunk(signature="s"), chunk(index=1, text="now"), "[DONE]"]
    with model({"events": events}) as (asked, _):
        thought = asked.complete().thought
    assert thought["fields"]["reasoning_details"] == [
        {"type": "reasoning.text", "index": 0, "text": "it is dark", "signature": "s"},
        {"type": "reasoning.text", "index": 1, "text": "now"},
    ]


def test_reasoning_that_a_server_refuses_is_left_out() -> None:
    def respond(request: dict[str, Any]) -> Line:
        if any("reasoning_content" in message for message in request["messages"]):
            return {"status": 400, "body": '{"error": {"message": "please remove the reasoning_content"}}'}
        return {"text": "yes", "thought": {"reasoning_content": "hm"}}

    with model(respond) as (asked, endpoint):
        message = asked.complete().message
        assert asked.complete((), [*HELLO, message]).text == "yes"
    assert len(endpoint.requests) == 3


def test_reasoning_that_a_server_misses_is_given_empty() -> None:
    def respond(request: dict[str, Any]) -> Line:
        if all("reasoning_content" in message for message in request["messages"] if message["role"] == "assistant"):
            return GOOD
        return {"status": 400, "body": '{"error": {"message": "Missing `reasoning_content` field at message index 1"}}'}

    with model(respond) as (asked, endpoint):
        assert asked.complete((), [*HELLO, {"role": "assistant", "content": "yes"}]).text == "here"
    assert endpoint.requests[-1]["messages"][1] == {"reasoning_content": "", "role": "assistant", "content": "yes"}


def part(index: int | None, id_: str, name: str, arguments: Any) -> dict[str, Any]:
    call = {"id": id_, "function": {"name": name, "arguments": arguments}}
    return {"choices": [{"delta": {"tool_calls": [call if index is None else {"index": index, **call}]}}]}


@pytest.mark.parametrize(
    "events",
    [
        [part(0, "a", "look", ""), part(0, "", "", '{"at"'), part(0, "", "", ": 1}"), part(1, "b", "look", "{}")],
        [part(0, "a", "look", '{"at": 1}'), part(0, "b", "look", "{}")],
        [part(None, "a", "look", '{"at"'), part(None, "", "", ": 1}"), part(None, "b", "look", {})],
    ],
)
def test_calls_are_put_together_however_a_server_numbers_them(events: list[Any]) -> None:
    with model({"events": [*events, "[DONE]"]}) as (asked, _):
        calls = asked.complete(TOOLS).calls
    assert [(call.id, call.name, call.arguments or "{}") for call in calls] == [
        ("a", "look", '{"at": 1}'), ("b", "look", "{}"),
    ]  # fmt: skip


def test_usage_in_a_choice_is_read_too() -> None:
    end = {"choices": [{"delta": {"content": "x"}, "finish_reason": "stop", "usage": {"prompt_tokens": 7}}]}
    with model({"events": [end]}) as (asked, _):
        assert asked.complete().usage == Usage(7, 0, 0)
