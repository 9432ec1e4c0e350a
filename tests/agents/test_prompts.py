"""Prompts: each renders from a sample, and none from less."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jinja2 import UndefinedError

from avo.agents import prompts
from avo.agents.desk import Left
from avo.agents.memory import Handover
from avo.agents.prompts import render
from avo.agents.task import told
from avo.lineage_db.decision import requirement
from avo.lineage_db.entries import Intervention
from tests.agents.world import UNRESOLVED, World

NOW = datetime(2026, 1, 1, tzinfo=UTC)

NAMES = sorted(path.stem for path in Path(prompts.__file__).parent.glob("*.j2"))


def sample() -> dict[str, Any]:
    world = World()
    world.accept("tflops = 110.0", (0,))
    world.fail("tflops = 115.0", decision=UNRESOLVED)
    return told(world.brief()) | {
        "lineage": "v0 100.0",
        "transferred": None,
        "transferred_lineage": "",
        "transferred_source": "x = 1",
        "memory": ["tiles of 64 spill"],
        "handovers": [Handover(3, 1, "tiles of 64 next")],
        "news": "",
        "examined": ["attempt 1 was examined closely: it passed"],
        "ended": "attempt 2 was accepted as version 1",
        "began": "",
        "built_on": None,
        "interventions": [Intervention(1, 1, 9, "restart", "five steps", ("persistence",), "", 0, NOW)],
        "budget": "Left: 3 evaluations.",
        "parent": world.versions[-1],
        "parents": (0, 1),
        "parent_scores": "correct",
        "source": "y = 2",
        "task": "task.md",
        "minutes": 30.0,
        "left": Left(tokens=1000, usd=2.5, evaluations=3, minutes=10.0),
        "summary": "learnt",
        "attempts": ["attempt 1: slow"],
        "results": {"check": "ok"},
        "parent_number": 1,
        "best_number": 1,
        "turns": 4,
        "inspirations": world.versions[:1],
        "diffs": ["- a"],
        "failures": ["b: c"],
        "exemplar": ("known mha h100", "x = 1"),
        "notes": "Tiles of 64 spill.",
        "faults": [(3, "incorrect: case odd")],
        "given": ["persistence"],
        "place": "directions.0",
        "wrong": "too short",
        "run": {"name": "mine", "problem": "mha", "target": "h100", "suite": "quick", "state": "stopped"},
        "versions": 2,
        "said": "",
        "step": 4,
        "version": None,
        "failure": "",
        "reason": "slower",
        "best": world.versions[-1],
        "requirement": requirement(0.01, 0.9, measured=False),
        "unresolved": "5 v0 115.0",
        "better": [(world.attempts[-1], "- b")],
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_renders_from_a_sample_brief(name: str) -> None:
    values = sample() | ({"problem": "empty"} if name == "nudge" else {})
    text = render(name, **values)
    assert text
    assert "{{" not in text
    assert "None" not in text
    assert "\n\n\n" not in text
    assert re.findall(r"[^\n]\n# .*", text) == [], "headings stand apart"


@pytest.mark.parametrize("name", ["system", "brief", "compacted", "single_turn", "nudge", "budget"])
def test_a_prompt_that_lacks_something_is_no_prompt(name: str) -> None:
    with pytest.raises(UndefinedError):
        render(name)


def test_a_budget_names_what_is_limited() -> None:
    assert render("budget", left=Left()).startswith("No limit is set")
    said = render("budget", left=Left(tokens=1000, usd=2.5, evaluations=3, minutes=10.0))
    assert said.startswith("Left: 3 evaluations, 1000 tokens, 2.50 USD, 10 minutes.")


def test_the_requirement_that_is_told_is_the_one_that_decides() -> None:
    world = World()
    said = render("system", **told(world.brief(requirement=requirement(0.02, 0.8, measured=False))))
    assert "higher than the best version's by at least 2%" in said
    assert "in at least 80% of the joint draws" in said
    assert "draws" not in render("system", **told(world.brief(requirement=requirement(0.02, 0.8, measured=True))))
    assert "When an attempt becomes a version" not in render("system", **told(world.brief()))
