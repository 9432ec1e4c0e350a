"""Models that stand in for each other: for a step when one keeps failing, and the first is tried again later."""

import random
from collections.abc import Mapping

import pytest

from avo.agents.desk import FakeDesk
from avo.agents.errors import BudgetSpent, ContextOverflow, ModelFailing, ModelRefused
from avo.agents.model import Reply, ScriptedModel
from avo.agents.relay import REST_S, Relay, chat_models
from avo.agents.settings import ModelSettings, Settings
from tests.agents.endpoint import Endpoint

FAILING, REFUSED = ModelFailing("down"), ModelRefused("no such model")
HELLO = [{"role": "user", "content": "hello"}]


def relay(contexts: Mapping[str, int] | None = None, **models: ScriptedModel) -> Relay:
    contexts = contexts or {}
    line = [ModelSettings(name=name, context_tokens=contexts.get(name, 128_000)) for name in models]
    return Relay(line, lambda settings, successor: models[settings.name])


def test_a_model_that_keeps_failing_is_replaced_for_the_rest_of_the_step() -> None:
    first, second = ScriptedModel(FAILING), ScriptedModel(Reply("here"))
    asked = relay(first=first, second=second)
    assert [asked.complete(HELLO, ()).text, asked.complete(HELLO, ()).text] == ["here", "here"]
    assert (len(first.asked), len(second.asked)) == (1, 2)


def test_where_all_keep_failing_they_are_asked_in_turn() -> None:
    first, second = ScriptedModel(FAILING, FAILING, Reply("back")), ScriptedModel(FAILING)
    assert relay(first=first, second=second).complete(HELLO, ()).text == "back"
    assert (len(first.asked), len(second.asked)) == (3, 2)


def test_a_model_that_refuses_is_not_asked_again_and_the_last_refusal_is_passed_on() -> None:
    first, second = ScriptedModel(REFUSED), ScriptedModel(FAILING, ModelRefused("wrong key"))
    with pytest.raises(ModelRefused, match="wrong key"):
        relay(first=first, second=second).complete(HELLO, ())
    assert (len(first.asked), len(second.asked)) == (1, 2)


@pytest.mark.parametrize("end", [BudgetSpent("all"), ContextOverflow("too long")])
def test_a_budget_or_a_conversation_that_is_too_long_replaces_nobody(end: Exception) -> None:
    second = ScriptedModel(Reply("here"))
    with pytest.raises(type(end)):
        relay(first=ScriptedModel(end), second=second).complete(HELLO, ())
    assert second.asked == []


def test_a_model_with_a_smaller_context_takes_over_once_the_conversation_fits() -> None:
    second = ScriptedModel(Reply("here"))
    asked = relay({"second": 10_000}, first=ScriptedModel(FAILING), second=second)
    with pytest.raises(ContextOverflow) as overflow:
        asked.complete([{"role": "user", "content": "x" * 40_000}], ())
    assert overflow.value.context_tokens == 10_000
    assert second.asked == []
    assert asked.complete(HELLO, ()).text == "here"


def test_later_steps_begin_with_the_next_model_until_the_first_has_rested() -> None:
    now = [0.0]
    wrong = {"status": 401, "body": '{"error": {"message": "Incorrect key"}}'}
    with Endpoint([wrong, {"text": "first"}]) as one, Endpoint([{"text": "second"}]) as two:
        listed = [ModelSettings(name="m", base_url=each.url, api="chat") for each in (one, two)]
        make = chat_models(Settings(listed), lambda: now[0])

        def step() -> str:
            return make(listed[0], FakeDesk().desk, random.Random(0)).complete(HELLO, ()).text

        said = [step(), step()]
        now[0] = REST_S
        said.append(step())
    assert said == ["second", "second", "first"]
    assert (len(one.requests), len(two.requests)) == (2, 2)


def test_the_last_call_of_a_model_that_is_given_up_says_which_is_asked_instead() -> None:
    refused = {"status": 404, "body": '{"error": {"message": "no such model"}}'}
    desk = FakeDesk()
    with Endpoint([refused]) as endpoint:
        listed = [ModelSettings(name=name, base_url=endpoint.url, api="chat") for name in ("one", "two")]
        model = chat_models(Settings(listed))(listed[0], desk.desk, random.Random(0))
        with pytest.raises(ModelRefused):
            model.complete(HELLO, ())
    told = [(call["model"], call["error"].partition("; ")[2]) for call in desk.calls]
    assert told == [("one", "model 'two' is asked instead"), ("two", "")]
