"""The request before a run finds each mistake that a user can make with an endpoint, and says what to change."""

import json
from typing import Any

import pytest

from avo.agents.errors import ModelRefused
from avo.agents.model import Usage
from avo.agents.probe import probe
from avo.agents.settings import ModelSettings
from tests.agents.caller import PRICED
from tests.agents.endpoint import Endpoint, Line

READY: Line = {"calls": [["ready", {}]]}
VLLM = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'


def ask(*probed: Line, tools: bool = True, apis: Any = ("chat",), **settings: Any) -> tuple[Any, str, int]:
    with Endpoint([], apis=apis, probed=probed) as endpoint:
        model = ModelSettings(name="m", base_url=endpoint.url, **settings)
        return *probe(model, {"OPENAI_API_KEY": "secret"}, tools=tools, wait_s=5.0), endpoint.probes


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_a_model_that_calls_the_tool_is_asked_once_and_its_cost_known(api: str) -> None:
    (call,), trouble, asked = ask(READY, apis=(api,), **PRICED)
    assert (trouble, asked, call["usage"]) == ("", 1, Usage(1000, 0, 100))
    assert call["usd"] == pytest.approx(1.4e-3)


def error(status: int, message: str) -> Line:
    return {"status": status, "body": json.dumps({"error": {"message": message}})}


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (error(401, "Incorrect key"), "HTTP 401: Incorrect key: is the key right?"),
        (error(404, "no model m"), "HTTP 404: no model m: is the model's name right"),
        (error(400, VLLM), f"HTTP 400: {VLLM}"),
        (error(500, "tools param requires --jinja flag"), "tools param requires --jinja flag"),
        ({"body": "<html>Welcome</html>"}, "is not JSON: '<html>Welcome</html>': does its address end as"),
        ({"text": '<tool_call>{"name": "ready"}</tool_call>'}, "--enable-auto-tool-choice --tool-call-parser NAME"),
        ({"text": "I am ready."}, "it answers without the call of a tool that it was asked for"),
    ],
)
def test_each_mistake_that_lasts_is_refused_in_one_line_that_names_the_model(mistake: Line, said: str) -> None:
    with pytest.raises(ModelRefused) as refused:
        ask(mistake)
    assert str(refused.value).startswith("model 'm': ")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_address_at_which_nobody_answers_is_refused() -> None:
    with Endpoint([]) as endpoint:
        model = ModelSettings(name="m", base_url=endpoint.url)
    with pytest.raises(ModelRefused, match="does the server run, and is its address right"):
        probe(model, {"OPENAI_API_KEY": "secret"}, tools=True)


def test_an_endpoint_that_is_busy_is_no_mistake() -> None:
    calls, trouble, asked = ask(error(503, "overloaded"))
    assert (trouble, asked) == ("model 'm': HTTP 503: overloaded", 2)
    assert [call["error"] for call in calls] == ["HTTP 503: overloaded"] * 2


def test_a_pause_that_a_busy_endpoint_asks_for_is_left_to_the_search() -> None:
    busy = {"status": 429, "body": '{"error": {"message": "slow down"}}', "headers": {"Retry-After": "3000"}}
    calls, trouble, _ = ask(busy, busy)
    assert "slow down" in trouble
    assert len(calls) == 1


def test_a_model_may_forget_the_call_once() -> None:
    calls, trouble, _ = ask({"text": "hm"}, READY)
    assert (len(calls), trouble) == (2, "")


def test_a_model_without_tools_is_enough_for_an_operator_that_needs_none() -> None:
    calls, trouble, asked = ask({"text": "ready"}, tools=False)
    assert (len(calls), trouble, asked) == (1, "", 1)
