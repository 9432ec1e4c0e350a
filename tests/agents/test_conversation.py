"""Conversations: recorded before they go on, counted, compacted without losing what must stay exact."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avo.agents.conversation import MESSAGE, SUMMARY, Conversation, mechanical_summary, turns, unanswered
from avo.agents.errors import BudgetSpent, ModelRefused
from avo.agents.model import ChatMessage, Reply, ScriptedModel, ToolCall, Usage


def message(role: str, content: str, calls: tuple[str, ...] = ()) -> ChatMessage:
    made: ChatMessage = {"role": role, "content": content}
    if calls:
        made["tool_calls"] = [{"id": call, "function": {"name": "look", "arguments": "{}"}} for call in calls]
    return made


def result(call: str, content: str) -> ChatMessage:
    return {"role": "tool", "tool_call_id": call, "content": content}


def exact(summary: str) -> ChatMessage:
    return {"role": "user", "content": f"{summary}; the source"}


class Book:
    def __init__(self, context_tokens: int = 4000, reply_tokens: int | None = 400) -> None:
        self.entries: list[tuple[str, dict[str, Any]]] = []
        self.talk = Conversation(
            lambda kind, content: self.entries.append((kind, content)), context_tokens, reply_tokens
        )
        self.talk.add(message("system", "s"))
        self.talk.add(message("user", "u"))

    def _record(self, kind: str, content: dict[str, Any]) -> None:
        self.entries.append((kind, content))

    def turn(self, number: int, chars: int, calls: int = 1) -> None:
        ids = tuple(f"{number}-{i}" for i in range(calls))
        self.talk.add(message("assistant", f"turn {number}", ids))
        for call in ids:
            self.talk.add(result(call, f"result {call} " + "x" * chars))


def test_every_message_is_recorded_as_it_is() -> None:
    book = Book()
    book.turn(1, 10)
    assert [entry["message"] for kind, entry in book.entries if kind == MESSAGE] == book.talk.messages


def test_tokens_are_those_counted_and_an_estimate_of_what_came_since() -> None:
    book = Book()
    book.talk.reply(Reply("hello", usage=Usage(3000, 0, 50)))
    assert book.talk.tokens == 3050
    assert not book.talk.full
    book.talk.add(message("user", "x" * 2400))
    assert 3650 <= book.talk.tokens <= 3700
    assert book.talk.full


def test_the_older_turns_become_a_summary_and_the_latest_stay() -> None:
    book = Book()
    for number in range(6):
        book.turn(number, 1500, calls=2)
    model = ScriptedModel(Reply("what was learnt"))
    assert book.talk.compact(model, exact)
    head, summary, latest = book.talk.messages[:2], book.talk.messages[2], book.talk.messages[3:]
    assert [m["content"] for m in head] == ["s", "u"]
    assert summary["content"] == "what was learnt; the source"
    assert [m["content"] for m in latest if m["role"] == "assistant"] == ["turn 5"]
    assert not book.talk.full
    assert book.entries[-1] == (SUMMARY, {"messages": book.talk.messages})
    (asked,) = model.asked
    assert "turn 0" in asked[1]["content"]
    assert "turn 5" not in asked[1]["content"]


@pytest.mark.parametrize("trouble", [Reply(""), ModelRefused("gone")])
def test_where_the_model_cannot_summarise_a_list_of_calls_has_to_do(trouble: Reply | ModelRefused) -> None:
    book = Book()
    for number in range(6):
        book.turn(number, 1500, calls=2)
    assert book.talk.compact(ScriptedModel(trouble), exact)
    assert "look {} -> result 0-0 ...\n" in book.talk.messages[2]["content"]


def test_a_budget_that_is_spent_while_summarising_is_no_reason_to_lose_anything() -> None:
    book = Book()
    for number in range(6):
        book.turn(number, 1500)
    before = list(book.talk.messages)
    with pytest.raises(BudgetSpent):
        book.talk.compact(ScriptedModel(BudgetSpent("all")), exact)
    assert book.talk.messages == before


def test_nothing_to_summarise_is_said() -> None:
    book = Book()
    assert not book.talk.compact(ScriptedModel(Reply("?")), exact)
    assert len(book.talk.messages) == 2


def test_a_model_that_takes_less_than_was_thought_is_sent_less() -> None:
    book = Book(context_tokens=100_000)
    for number in range(6):
        book.turn(number, 4000)
    before = book.talk.tokens
    book.talk.too_long()
    assert book.talk.full
    book.talk.compact(ScriptedModel(Reply("summary")), exact)
    assert book.talk.tokens < before / 2


def test_a_model_whose_smaller_context_is_known_is_sent_what_fits() -> None:
    book = Book(context_tokens=100_000)
    for number in range(6):
        book.turn(number, 4000)
    book.talk.too_long(3000)
    book.talk.compact(ScriptedModel(Reply("summary")), exact)
    assert len(book.talk.messages) == 3, "no turn fits beside the summary"


def test_the_models_reasoning_is_recorded_and_stays_with_the_latest_turns() -> None:
    thought = {"api": "chat", "model": "m", "fields": {"reasoning_content": "hm"}}
    book = Book()
    for number in range(6):
        book.turn(number, 1500)
    book.talk.reply(Reply("so be it", usage=Usage(3000, 0, 50), thought=thought))
    assert book.talk.compact(ScriptedModel(Reply("summary")), exact)
    assert book.talk.messages[-1] == {"role": "assistant", "content": "so be it", "thought": thought}
    assert {"message": book.talk.messages[-1]} in [entry for _, entry in book.entries]


def test_a_summary_is_summarised_in_its_turn() -> None:
    book = Book()
    for number in range(12):
        book.turn(number, 2500)
        if book.talk.full:
            assert book.talk.compact(ScriptedModel(Reply(f"until {number}")), exact)
    assert [m["content"] for m in book.talk.messages].count("u") == 1
    assert sum("the source" in (m["content"] or "") for m in book.talk.messages) == 1


@pytest.mark.long
@given(
    sizes=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6000)), max_size=12), context=st.integers(4000, 20_000)
)
def test_calls_and_results_are_never_separated(sizes: list[tuple[int, int]], context: int) -> None:
    book = Book(context)
    for number, (calls, chars) in enumerate(sizes):
        book.turn(number, chars, calls)
    book.talk.compact(ScriptedModel(Reply("summary")), exact)
    waiting: list[str] = []
    for each in book.talk.messages:
        if each["role"] == "tool":
            assert each["tool_call_id"] == waiting.pop(0)
        else:
            assert waiting == []
            waiting = [call["id"] for call in each.get("tool_calls", ())]
    assert waiting == []


def test_calls_without_results_are_found_in_the_last_turn_only() -> None:
    talk = [message("assistant", "", ("a",)), result("a", "x"), message("assistant", "", ("a", "b")), result("a", "y")]
    assert unanswered(talk) == ["b"]
    assert unanswered(talk[:2]) == []
    assert unanswered([]) == []
    assert [len(turn) for turn in turns(talk)] == [2, 2]


def test_a_mechanical_summary_of_nothing_says_so() -> None:
    assert mechanical_summary([message("user", "hello")]) == "nothing was called"


def test_a_reply_with_calls_is_a_message_that_can_be_sent_back() -> None:
    reply = Reply("", (ToolCall("1", "look", "{}"), ToolCall("2", "look", "[")))
    calls = reply.message["tool_calls"]
    assert [call["function"]["arguments"] for call in calls] == ["{}", "{}"]
    assert reply.message["content"] is None
