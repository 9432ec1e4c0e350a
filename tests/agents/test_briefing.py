"""Briefs: each attempt is told of in one place."""

from dataclasses import replace
from datetime import timedelta

import pytest

from avo.agents.briefing import continued, opening, taken_up
from avo.agents.handover import handover
from avo.agents.operator import Previous
from avo.agents.tools import StepAttempt, Workbench
from avo.lineage_db.entries import Memory
from avo.lineage_db.records import Step, StepState
from tests.agents.world import UNRESOLVED, World
from tests.avo.fakes import NOW, SEED

WHY = "because of the barriers"


@pytest.fixture
def world() -> World:
    """A run of two versions, an attempt that is unresolved, one that failed, and the record's handover of both."""
    world = World()
    world.accept("tflops = 110.0", (0,), WHY)
    world.fail("tflops = 115.0", WHY, UNRESOLVED)
    world.fail("nonsense", WHY)
    return world


def left(world: World) -> Memory:
    tried = [StepAttempt(each.attempt_id, WHY, each.change, "+5%", "as it was", 0.0) for each in world.attempts]
    text = handover(Workbench(SEED, (0,), attempts=tried), "its time is up", "barriers are next")
    return Memory(1, 1, 3, text, NOW, handover=True)


def test_each_attempt_is_in_one_place_of_a_brief(world: World) -> None:
    said = opening(world.brief(memories=(left(world),)), SEED)
    assert [said.count(f"to {each}") for each in ("tflops = 110.0", "tflops = 115.0", "nonsense")] == [1, 1, 1]
    assert "The step ended: its time is up.\nLast said: barriers are next" in said


def test_where_the_lineage_is_cut_memory_still_tells_of_its_attempts(world: World) -> None:
    for speed in range(120):
        world.accept(f"tflops = {200 + speed}.0", (0,), WHY)
        world.attempts[-1] = replace(world.attempts[-1], change="a long word " * 20)
        world.versions[-1] = replace(world.versions[-1], whole_change="a long word " * 20)
    assert WHY in opening(world.brief(), SEED)


def test_a_step_that_is_taken_up_is_told_of_its_own_attempts_once(world: World) -> None:
    mine = [StepAttempt(4, WHY, "to nonsense", "+5%", "parse error", 0.0)]
    said = taken_up(world.brief(), Workbench(SEED, (0,), attempts=mine))
    assert said.count("to nonsense") == 1
    assert "- attempt 4: parse error [to nonsense]" in said


def test_what_is_unresolved_is_no_news_besides(world: World) -> None:
    step = Step(9, 1, 9, "w0", "agent", StepState.DONE, None, NOW, NOW, "")
    world.attempts = [replace(each, finished=NOW + timedelta(days=1)) for each in world.attempts]
    said = continued(world.brief(), Previous(step, (), "m"), SEED)
    assert [said.count(f"to {each}") for each in ("tflops = 115.0", "nonsense")] == [1, 1]
