"""What the caller of the tools has is not sent again: its own sources, and the results of calls that it repeats."""

import json
from typing import Any

import pytest

from avo.agents.conversation import MESSAGE
from avo.agents.errors import ContextOverflow
from avo.agents.model import Reply, ScriptedModel
from avo.agents.settings import ModelSettings
from avo.agents.tools import Toolbox
from avo.agents.tools.editing import changed_lines
from avo.agents.tools.shown import Shown
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.inspection import Findings
from avo.seeds import seed_source
from tests.agents.test_agentic import run, says, submit, told
from tests.agents.world import World

KERNEL = seed_source("mha")
LINES = len(KERNEL.splitlines())


def call(box: Toolbox, name: str, /, **arguments: Any) -> str:
    return box.call(name, json.dumps(arguments))


def test_a_source_that_the_model_has_written_is_not_sent_back_but_parts_of_it_are() -> None:
    box = Toolbox(World().brief())
    call(box, "write_source", source=KERNEL)
    assert call(box, "view_source").startswith(f"you have it above as it is now, {LINES} lines: ask for a function")
    assert call(box, "view_source", first=1, last=2) == "\n".join(
        f"{number:>4} {line}" for number, line in enumerate(KERNEL.splitlines()[:2], 1)
    )
    first = KERNEL.splitlines()[0]
    assert call(box, "edit_source", old=f"{first}\n", new=f"{first}\n\n").startswith("edited: line 2 (-0 +1)")
    assert len(call(box, "view_source")) > len(KERNEL), "after an edit it is not above"
    assert call(box, "view_source").startswith("you have it above")


def test_a_function_is_shown_with_its_decorators_and_numbers_and_an_unknown_one_is_told_which_there_are() -> None:
    box = Toolbox(World().brief())
    source = "import x\n\n@x.jit\ndef one(a):\n    return a\n\n\ndef two():\n    def three():\n        pass\n"
    call(box, "write_source", source=source)
    assert call(box, "view_source", function="one") == "   3 @x.jit\n   4 def one(a):\n   5     return a"
    assert call(box, "view_source", function="three") == "   9     def three():\n  10         pass"
    said = call(box, "view_source", function="four")
    assert said == "error: there is no function 'four': those of the working source are one, two, three"
    assert "at most one of last, function" in call(box, "view_source", function="one", last=3)
    call(box, "write_source", source="def (")
    assert "the source does not parse" in call(box, "view_source", function="one")


def test_the_same_call_with_the_same_result_gets_its_first_line_and_a_hint() -> None:
    box = Toolbox(World().brief())
    note = call(box, "read_note", id="exp2")
    again = call(box, "read_note", id="exp2")
    assert again.splitlines()[0] == note.splitlines()[0]
    assert "the rest is as 1 calls before: you have it above" in again
    assert len(again) < len(note) / 4
    assert call(box, "read_note", id="exp2") != note
    for _ in range(40):
        call(box, "recall", query="nothing")
    assert call(box, "read_note", id="exp2") == note, "it may be lost by now"
    box.shown.forget()
    assert call(box, "read_note", id="exp2") == note


def test_a_repeated_check_that_finds_a_fault_still_fails() -> None:
    world = World()
    world.desk.findings = Findings(Fault(Status.INCORRECT, "wrong in\n" + "many places\n" * 90))
    box = Toolbox(world.brief())
    assert call(box, "check") != call(box, "check")
    assert call(box, "check").startswith("incorrect: wrong in\n[the rest is as")


def test_another_result_of_the_same_call_is_sent_in_full() -> None:
    shown = Shown()
    first, second = "a" * 500, "b" * 500
    assert [shown.answer("check", "{}", each) for each in (first, second, first)] == [first, second, first]
    assert shown.answer("check", "{}", "short") == shown.answer("check", "{}", "short") == "short"


def test_a_version_whose_source_was_read_is_told_without_it() -> None:
    world = World()
    world.versions.clear()
    world.attempts.clear()
    world.accept(f"tflops = 100.0\n{KERNEL}")
    world.accept(f"tflops = 110.0\n{KERNEL}", (0,), "because of y")
    box = Toolbox(world.brief())
    box.shown.add(world.versions[1].attempt.source)  # as the brief has it
    said = call(box, "read_version", version=1)
    assert "because of y" in said
    assert said.endswith("[its source: as you have it above]")
    assert KERNEL in call(box, "read_version", version=0)
    call(box, "write_source", version=0)
    assert call(box, "view_source").startswith("you have it above")


def test_after_a_whole_source_with_few_changes_edits_are_advised() -> None:
    box = Toolbox(World().brief())
    assert "edit_source" not in call(box, "write_source", source=KERNEL)
    said = call(box, "write_source", source=f"{KERNEL}\n# one more\n")
    assert said.endswith("; only 0 lines went and 2 came: edit_source says that in less")


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("a\nb\nc", "a\nx\nc", "line 2 (-1 +1)"),
        ("a\nb\nc", "a\nx\ny\nz\nc", "lines 2 to 4 (-1 +3)"),
        ("a\nb\nc\nd", "x\nb\nc", "line 1 (-1 +1), line 4 (-1 +0)"),
        ("a", "a", ""),
    ],
)
def test_an_edit_is_told_by_its_lines(old: str, new: str, where: str) -> None:
    assert changed_lines(old, new)[2] == where


def test_the_source_of_the_brief_is_not_sent_again_by_the_first_call() -> None:
    world = World()
    world.versions.clear()
    world.attempts.clear()
    world.accept(f"tflops = 100.0\n{KERNEL}")
    model = ScriptedModel(says(("view_source", {})), says(("read_version", {"version": 0})), says(submit(None)))
    run(world, model)
    assert told(model, 1).startswith("you have it above")
    assert told(model, 2).endswith("[its source: as you have it above]")


def test_what_was_compacted_away_is_sent_again() -> None:
    look, text = says(("run_python", {"code": "print('x')"})), "x" * 9000
    world = World()
    world.desk.findings = Findings(text=text)
    settings = ModelSettings(name="m", context_tokens=12_000)
    model = ScriptedModel(look, look, ContextOverflow("too long"), Reply("short"), look, says(submit(None)))
    run(world, model, settings)
    said = [content["message"] for kind, content in world.desk.entries if kind == MESSAGE]
    first, second, third, _ = (each["content"] for each in said if each["role"] == "tool")
    assert len(second) < len(first) / 4
    assert third == first
