"""Transcripts as entries, whatever a model or a tool wrote."""

from typing import Any

import pytest

from avo.evaluator.units import TFLOPS
from avo.lineage_db.records import Step
from avo.lineage_db.store import Store
from avo.tui.lines import Entry
from avo.tui.reader import RunReader, Want
from avo.tui.transcript import entries
from tests.avo.recorded import Recorded
from tests.avo.tui.agent_run import say, tool


@pytest.fixture
def run(store: Store) -> Recorded:
    return Recorded(store)


def told(
    run: Recorded, *contents: dict[str, Any], kind: str = "message", step: Step | None = None
) -> tuple[Entry, ...]:
    step = step or run.claim()
    for content in contents:
        say(run, step, kind, **content)
    reader = RunReader("live", lambda: run.now)
    reader.ask(Want(transcript=step.number))
    transcript = reader.read(run.store, None).transcript
    assert transcript is not None
    return entries(transcript, TFLOPS)


def test_a_call_of_a_tool_stands_with_its_result_and_one_without_waits(run: Recorded) -> None:
    found = told(
        run,
        {"role": "assistant", "content": "", "tool_calls": [tool("a", "read", path="x"), tool("b", "run")]},
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "lines\nof it"}]},
    )
    assert [str(entry.title) for entry in found] == ['read {"path": "x"}  → lines', "run {}  → ..."]
    assert found[0].body == "path: x\n──\nlines\nof it"
    assert found[1].body.endswith("no result yet")


def test_what_can_be_read_of_a_models_reasoning_stands_before_what_it_said(run: Recorded) -> None:
    thought = {"api": "chat", "model": "m", "fields": {"reasoning_content": "exp binds\nhere"}}
    found = told(run, {"role": "assistant", "content": "I fold it.", "thought": thought})
    assert [str(entry.title) for entry in found] == ["thought exp binds", "assistant I fold it."]
    assert found[0].body == "exp binds\nhere"


def test_a_result_of_no_known_call_stands_alone(run: Recorded) -> None:
    (entry,) = told(run, {"role": "tool", "tool_call_id": "z", "content": "late"})
    assert (str(entry.title), entry.body) == ("tool late", "late")


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"role": None},
        {"role": "assistant", "content": 7},
        {"role": "assistant", "tool_calls": "none"},
        {
            "role": "assistant",
            "content": [1],
            "tool_calls": [None, {}, {"function": 3}, {"function": {"arguments": 1}}],
        },
        {"role": "tool", "tool_call_id": ["a"], "content": {"a": "\x1b[2J"}},
    ],
)
def test_what_no_model_should_write_is_shown_too(run: Recorded, content: dict[str, Any]) -> None:
    found = told(run, content)
    assert found
    assert all(str(entry.title).isprintable() for entry in found)


def test_an_unknown_kind_is_plain_data(run: Recorded) -> None:
    (entry,) = told(run, {"kept": 3}, kind="state")
    assert (str(entry.title), entry.body) == ('state {"kept": 3}', '{\n  "kept": 3\n}')


def test_a_message_may_stand_in_its_entry_as_it_is(run: Recorded) -> None:
    step = run.claim()
    run.store.journal.add_message(step.id, "message", {"role": "user", "content": "bare"}, now=run.now)
    assert [str(entry.title) for entry in told(run, step=step)] == ["user bare"]
