"""Conversations that span steps: what the next step is told, when one ends, and what an interruption leaves of it."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from avo.agents.agentic import Agentic
from avo.agents.conversation import CONTINUED
from avo.agents.errors import ContextOverflow
from avo.agents.model import Reply, ScriptedModel
from avo.agents.operator import Previous, Proposal
from avo.agents.settings import ModelSettings, Settings
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.inspection import Findings
from avo.lineage_db.entries import Message
from avo.lineage_db.records import Step, StepState, Submission, Version
from tests.agents.test_agentic import EVALUATE, MODEL, run, says, submit, told, write
from tests.agents.world import World
from tests.avo.fakes import NOW

LAST = Step(4, 1, 4, "w0", "agent", StepState.DONE, None, NOW, NOW, "submitted", Submission(2, "c", "h", "e", "s"))


def recorded(world: World, step: int = 4) -> list[Message]:
    """Return the transcript so far as the database gives it back, and begin a new one."""
    kept = json.loads(json.dumps(world.desk.entries))
    world.desk.entries.clear()
    return [Message(step, number, kind, content, NOW) for number, (kind, content) in enumerate(kept)]


def after_a_step(world: World) -> Previous:
    """Return a step whose attempt 2 was accepted as version 1, while another worker failed."""
    run(world, ScriptedModel(says(write("tflops = 120.0"), EVALUATE), says(submit(2))))
    attempt = world.desk.attempts[2]
    world.versions.append(Version(1, 1, (0,), NOW, attempt, step_number=4))
    world.attempts.append(replace(world.attempts[0], attempt_id=2, step_number=4, version=1, geomean_tflops=120.0))
    world.fail("nonsense")
    world.attempts[-1] = replace(world.attempts[-1], finished=NOW + timedelta(minutes=1))
    return Previous(LAST, recorded(world), "m")


def going_on(world: World, model: ScriptedModel, settings: Settings, **brief: Any) -> Proposal:
    return Agentic(settings, lambda *_: model).vary(world.brief(**brief))


TWO = Settings((MODEL,), continue_steps=2)


def test_a_step_goes_on_with_the_conversation_of_the_last_and_is_told_how_that_ended() -> None:
    world = World()
    previous = after_a_step(world)
    model = ScriptedModel(says(submit(None)))
    going_on(world, model, TWO, previous=previous)
    before, said = model.asked[0][:-1], told(model)
    assert [m["role"] for m in before] == ["system", "user", "assistant", "tool", "tool", "assistant", "tool"]
    assert "Step 4 of yours has ended: attempt 2 was accepted as version 1." in said
    assert "not a kernel: nonsense" in said.partition("# New since")[2]
    assert "It is version 1, the best so far.\n```python\ntflops = 120.0\n```" in said
    assert world.kinds()[0] == CONTINUED
    again = ScriptedModel(says(submit(None)))
    going_on(world, again, TWO, previous=Previous(replace(LAST, number=5), recorded(world), "m"))
    assert [m["role"] for m in again.asked[0]] == ["system", "user"], "two steps are as many as were asked for"
    alone = ScriptedModel(says(submit(None)))
    going_on(world, alone, Settings((MODEL,)), previous=previous)
    assert [m["role"] for m in alone.asked[0]] == ["system", "user"]


def test_a_refusal_is_told_with_its_reason() -> None:
    world = World()
    previous = after_a_step(world)
    world.attempts[1] = replace(world.attempts[1], version=None)
    model = ScriptedModel(says(submit(None)))
    refused = replace(previous, step=replace(LAST, reason="faster; not accepted: +0.4% in the mean"))
    going_on(world, model, TWO, previous=refused)
    assert "it added no version: faster; not accepted: +0.4% in the mean." in told(model)


def test_a_conversation_keeps_its_model_as_long_as_it_is_there() -> None:
    world = World()
    previous = after_a_step(world)
    other = ModelSettings(name="other", weight=1e9)
    for models, previous_model, asked in (((MODEL, other), "m", "m"), ((MODEL, other), "gone", "other")):
        names: list[str] = []
        model = ScriptedModel(says(submit(None)))

        def make(chosen: ModelSettings, *_: Any, names: list[str] = names, model: Any = model) -> Any:
            names.append(chosen.name)
            return model

        settings = Settings(models, continue_steps=9)
        Agentic(settings, make).vary(world.brief(previous=replace(previous, model=previous_model)))
        assert names == [asked]
        assert (len(model.asked[0]) > 2) == (asked == "m")


def test_a_continued_step_that_was_killed_goes_on_and_is_compacted_without_losing_how_it_began() -> None:
    world = World()
    previous = after_a_step(world)
    world.desk.findings = None
    with pytest.raises(EvaluatorUnavailable):
        going_on(world, ScriptedModel(says(("check", {}))), TWO, previous=previous)
    transcript = recorded(world, 5)
    world.desk.findings = Findings(text="x" * 40_000)
    turn = says(("run_python", {"code": "print('x')"}))
    model = ScriptedModel(turn, turn, turn, ContextOverflow("too long"), Reply("short"), says(submit(None)))
    going_on(world, model, TWO, transcript=transcript)
    assert [m["role"] for m in model.asked[0]][-4:] == ["user", "assistant", "tool", "user"]
    compacted = model.asked[-1][2]["content"]
    assert "# How this step began\nStep 4 of yours has ended" in compacted
    final = ScriptedModel(says(submit(None)))
    going_on(world, final, TWO, previous=Previous(replace(LAST, number=5), recorded(world), "m"))
    assert len(final.asked[0]) == 2, "an interrupted step counts once, and is known to be the second"


def test_an_interrupted_step_is_told_what_is_new() -> None:
    world = World()
    world.desk.findings = None
    with pytest.raises(EvaluatorUnavailable):
        run(world, ScriptedModel(says(("check", {}))))
    transcript = recorded(world)
    other = world.accept("tflops = 110.0", (0,))
    world.versions[-1] = replace(other, accepted=NOW + timedelta(minutes=1))
    model = ScriptedModel(says(submit(None)))
    run(world, model, transcript=transcript)
    assert "# New since this step began\nVersions" in told(model)
    assert "v1  v0       110  +10.0%" in told(model)
