"""Superseded sources and measurements: left out all at once, and sent again when the model asks again."""

import json
from typing import Any

import pytest

from avo.agents import responses
from avo.agents.conversation import SHORTENED, messages_in
from avo.agents.errors import BudgetSpent
from avo.agents.model import RESPONSES, THOUGHT, ChatMessage, ScriptedModel
from avo.agents.settings import ModelSettings
from avo.agents.superseded import texts, without_superseded
from avo.agents.terms import Terms
from avo.evaluator.inspection import Findings
from avo.lineage_db.entries import Message
from avo.seeds import seed_source
from tests.agents.test_agentic import EVALUATE, run, says, submit, told, write
from tests.agents.world import World
from tests.avo.fakes import NOW

KERNEL = seed_source("mha")
LONG = "x" * 500
THOUGHTS = {"api": RESPONSES, "model": "m", "items": [{"at": 0, "item": {"type": "reasoning", "content": ["hm"]}}]}
BRIEF = f"# Working source\nIt is version 0.\n```python\n{KERNEL}\n```\n"


def talk(*calls: tuple[str, dict[str, Any], str], brief: str = BRIEF) -> list[ChatMessage]:
    """Return a conversation with a call and its result in each turn; all calls have the same id, as some servers do."""
    made: list[ChatMessage] = [{"role": "system", "content": "s"}, {"role": "user", "content": brief}]
    for name, given, said in calls:
        function = {"name": name, "arguments": json.dumps(given)}
        asked = [{"id": "call_0", "type": "function", "function": function}]
        made.append({"role": "assistant", "content": None, "tool_calls": asked, THOUGHT: THOUGHTS})
        made.append({"role": "tool", "tool_call_id": "call_0", "content": said})
    return made


def changed(messages: list[ChatMessage]) -> list[int]:
    left = without_superseded(messages)
    assert [each["role"] for each in left] == [each["role"] for each in messages]
    assert without_superseded(left) == left
    return [place for place, pair in enumerate(zip(messages, left, strict=True)) if pair[0] != pair[1]]


WRITE, EDIT = (
    ("write_source", {"source": KERNEL}, "written: 9 lines"),
    ("edit_source", {"patch": LONG}, "edited: line 2"),
)
PROFILE, VIEW = ("profile", {"show": "sass"}, LONG), ("view_source", {}, LONG)
STAYING = [("read_note", {"id": "exp2"}, LONG), ("evaluate", {"change": LONG}, LONG), ("read_version", {}, LONG)]


def test_a_whole_source_supersedes_earlier_sources_edits_views_and_measurements() -> None:
    assert changed(talk(WRITE, EDIT, VIEW, PROFILE, *STAYING, WRITE, PROFILE)) == [1, 2, 4, 7, 9]


def test_the_source_that_the_next_step_begins_with_supersedes_earlier_ones() -> None:
    assert changed([*talk(WRITE, PROFILE, *STAYING), {"role": "user", "content": BRIEF}]) == [1, 2, 5]


def test_an_edit_supersedes_measurements_only() -> None:
    assert changed(talk(WRITE, VIEW, PROFILE, *STAYING, EDIT, PROFILE)) == [1, 7]


@pytest.mark.parametrize(
    "calls",
    [
        (WRITE, WRITE, ("write_source", {"version": 0}, "the working source is version 0 again")),
        (WRITE, ("write_source", {"source": ""}, "error: too short")),
        (VIEW, ("run_python", {"code": LONG}, "written: 9 lines")),
        (("profile", {"attempt": 3}, LONG), EDIT),
    ],
    ids=["gone back", "not written", "another tool", "of an attempt"],
)
def test_nothing_else_is_superseded(calls: tuple[Any, ...]) -> None:
    assert changed(talk(*calls, brief="no source")) == []


def test_the_reasoning_before_a_shortened_call_is_sent_back_in_its_place() -> None:
    left = without_superseded(talk(WRITE, WRITE))
    sent = responses.request(ModelSettings(name="m"), Terms(api=RESPONSES), left, ())["input"]
    kinds = [item.get("type", item.get("role")) for item in sent]
    assert kinds == ["user", *["reasoning", "function_call", "function_call_output"] * 2]
    assert "left out" in sent[2]["arguments"]
    assert json.loads(sent[5]["arguments"])["source"] == KERNEL


def test_sources_that_were_written_are_among_the_texts() -> None:
    assert KERNEL in texts(talk(WRITE))
    assert not any(KERNEL in text for text in texts(without_superseded(talk(WRITE, WRITE))[:4]))


def kernel(tflops: int) -> str:
    return f"tflops = {tflops}.0\n{KERNEL}"


def test_a_step_leaves_superseded_texts_out_and_sends_them_again_when_asked() -> None:
    world = World()
    world.versions.clear()
    world.attempts.clear()
    world.accept(kernel(100))
    world.desk.findings = Findings(text=LONG)
    sass = ("profile", {"show": "sass"})
    model = ScriptedModel(
        says(sass),
        says(write(kernel(120)), EVALUATE),
        says(("view_source", {})),
        says(sass),
        says(("read_version", {"version": 0})),
        says(submit(2)),
    )
    run(world, model, ModelSettings(name="m"))
    assert world.kinds().count(SHORTENED) == 1
    assert KERNEL in model.asked[1][1]["content"]
    assert KERNEL not in model.asked[2][1]["content"]
    assert "left out" in model.asked[2][3]["content"]
    assert told(model, 3).startswith("you have it above"), "its own source is still there"
    assert told(model, 4) == LONG, "the same call with the same result, which is no longer above"
    assert KERNEL in told(model, 5), "the source of the brief is no longer above"


def test_a_step_that_was_killed_goes_on_with_the_shortened_conversation() -> None:
    world = World()
    world.versions.clear()
    world.attempts.clear()
    world.accept(kernel(100))
    model = ScriptedModel(says(write(kernel(120)), EVALUATE), says(("read_lineage", {})), BudgetSpent("all"))
    run(world, model)
    entries = json.loads(json.dumps(world.desk.entries))
    assert SHORTENED in world.kinds()
    transcript = [Message(5, number, kind, content, NOW) for number, (kind, content) in enumerate(entries)]
    assert messages_in(transcript) == model.asked[-1]
    again = ScriptedModel(says(submit(None)))
    run(world, again, transcript=transcript)
    assert again.asked[0][:-1] == model.asked[-1]


def test_a_little_that_is_superseded_stays_for_the_sake_of_the_endpoints_cache() -> None:
    world = World()
    world.desk.findings = Findings(text=LONG)
    model = ScriptedModel(says(("profile", {"show": "sass"})), says(write("tflops = 120.0"), EVALUATE), says(submit(2)))
    run(world, model)
    assert SHORTENED not in world.kinds()
    assert model.asked[-1][: len(model.asked[0])] == model.asked[0]
