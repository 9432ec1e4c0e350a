"""What an endpoint's refusals say about how it wants to be asked; the real client asks it that way from then on."""

from collections.abc import Callable
from typing import Any

import pytest

from avo.agents.errors import ModelRefused
from avo.agents.terms import Terms, mended, other_api
from tests.agents.caller import GOOD, TOOLS, model
from tests.agents.endpoint import Line

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
SENT_ON: Line = {"status": 400, "body": '{"error": {"message": "please use /v1/responses instead."}}'}


def refusing(fits: Callable[[dict[str, Any]], bool], said: str) -> Callable[[dict[str, Any]], Line]:
    """Return an endpoint's line that answers requests that fit and refuses others."""
    refusal = {"status": 400, "body": f'{{"error": {{"message": "{said}"}}}}'}
    return lambda request: GOOD if fits(request) else refusal


def test_an_endpoint_with_both_apis_is_asked_by_the_responses_api() -> None:
    with model(GOOD, apis=("chat", "responses")) as (asked, endpoint):
        assert [asked.complete().text, asked.complete().text] == ["here", "here"]
    assert endpoint.asked == [RESPONSES] * 2


def test_an_endpoint_without_the_responses_api_is_asked_for_it_once() -> None:
    with model(GOOD) as (asked, endpoint):
        assert [asked.complete().text, asked.complete().text] == ["here", "here"]
    assert endpoint.asked == [RESPONSES, CHAT, CHAT]
    assert asked.errors == ["", ""]


def test_the_configured_api_is_used_whatever_the_endpoint_has() -> None:
    with model(GOOD, api="chat", apis=("chat", "responses")) as (asked, endpoint):
        asked.complete()
    assert endpoint.asked == [CHAT]
    with model(SENT_ON, api="chat", apis=("chat", "responses")) as (asked, endpoint), pytest.raises(ModelRefused):
        asked.complete()
    assert endpoint.asked == [CHAT]
    with model(GOOD, api="responses") as (asked, endpoint), pytest.raises(ModelRefused, match="HTTP 404"):
        asked.complete()
    assert endpoint.asked == [RESPONSES]


def test_a_model_that_neither_api_knows_is_refused_after_both_were_asked() -> None:
    missing = {"status": 404, "body": '{"error": {"message": "no such model"}}'}
    with model(missing, apis=("chat", "responses")) as (asked, endpoint):
        for _ in range(2):
            with pytest.raises(ModelRefused, match="no such model: is the model's name right"):
                asked.complete()
            asked.line.terms = Terms()
    assert endpoint.asked == [RESPONSES, CHAT] * 2
    assert len(asked.errors) == 2


def test_an_endpoint_that_sends_on_to_what_it_has_not_is_given_up() -> None:
    with model(SENT_ON) as (asked, endpoint), pytest.raises(ModelRefused, match="please use"):
        asked.complete()
    assert endpoint.asked == [RESPONSES, CHAT]


def test_an_endpoint_that_has_answered_is_asked_in_the_same_way_whatever_comes_later() -> None:
    page, missing = {"body": "<html>Maintenance</html>"}, {"status": 404, "body": "gone"}
    with model(GOOD, page, GOOD, missing, apis=("chat", "responses")) as (asked, endpoint):
        assert [asked.complete().text, asked.complete().text] == ["here", "here"]
        with pytest.raises(ModelRefused, match="gone"):
            asked.complete()
    assert endpoint.asked == [RESPONSES] * 4


def test_a_page_in_the_place_of_a_response_leads_to_chat_completions() -> None:
    page = {"body": "<html>Welcome</html>"}
    with model(page, GOOD, apis=("chat", "responses")) as (asked, endpoint):
        assert asked.complete().text == "here"
    assert endpoint.asked == [RESPONSES, CHAT]


def test_an_endpoint_that_is_down_for_a_moment_is_not_asked_by_another_api() -> None:
    down = {"status": 503, "body": "overloaded"}
    with model(*[down] * 4, GOOD, apis=("chat", "responses")) as (asked, endpoint):
        assert asked.complete().text == "here"
    assert endpoint.asked == [RESPONSES] * 5


def test_an_endpoint_that_fails_on_responses_again_and_again_is_asked_for_chat_completions() -> None:
    broken = {"status": 500, "body": "{}"}
    with model(*[broken] * 3, GOOD, apis=("chat", "responses")) as (asked, endpoint):
        assert asked.complete().text == "here"
    assert endpoint.asked == [*[RESPONSES] * 3, CHAT]


@pytest.mark.parametrize(
    ("api", "fits", "said"),
    [
        ("chat", lambda request: "stream_options" not in request, "Extra inputs: stream_options"),
        ("chat", lambda request: "stream" not in request, "Your organization must be verified to stream this model."),
        ("chat", lambda request: "max_completion_tokens" in request, "Unsupported: use max_completion_tokens instead."),
        ("responses", lambda request: "include" not in request, "Encrypted content is not supported with this model."),
        ("responses", lambda request: not request["tools"][0]["strict"], "Invalid schema for function 'look'"),
    ],
)
def test_a_refusal_that_says_how_to_ask_is_followed_from_then_on(
    api: str, fits: Callable[[dict[str, Any]], bool], said: str
) -> None:
    line = refusing(fits, said)
    with model(line, apis=(api,), max_output_tokens=99) as (asked, endpoint):
        assert [asked.complete(TOOLS).text, asked.complete(TOOLS).text] == ["here", "here"]
    assert [fits(request) for request in endpoint.requests][-2:] == [True, True]
    assert asked.errors == ["", ""]


def test_a_refusal_is_not_followed_twice() -> None:
    line = refusing(lambda _: False, "stream_options, stream, max_completion_tokens")
    with model(line) as (asked, endpoint), pytest.raises(ModelRefused, match="see the model's settings"):
        asked.complete()
    assert len(endpoint.requests) == 4


def test_chat_completions_may_send_on_to_the_responses_api() -> None:
    assert other_api(Terms("chat"), 400, "please use /v1/responses instead", known=True) == "responses"
    assert other_api(Terms("chat"), 400, "wrong", known=False) is None
    assert other_api(Terms(), 404, "gone", known=True) is None
    assert other_api(Terms(), 401, "key", known=False) is None


def test_words_that_point_to_nothing_change_nothing() -> None:
    assert mended(Terms(), "upstream error") is None
    assert mended(Terms("chat"), "unknown top_k") is None
