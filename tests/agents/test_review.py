"""A model's review of a trajectory: what it is shown, what is taken from it, and what is not."""

import json
import random
from typing import Any

import pytest
from pydantic import ValidationError

from avo.agents.desk import FakeDesk
from avo.agents.errors import BudgetSpent, ModelRefused
from avo.agents.model import Reply, ScriptedModel
from avo.agents.review import Advice, advise, read_review
from avo.agents.settings import ModelSettings
from avo.agents.supervisor import Diagnosis, Level, SearchTrajectory
from avo.lineage_db.decision import requirement
from tests.agents.world import World

GOOD = {
    "assessment": "tile sizes only were tried",
    "directions": ["split the loop at the diagonal", "let the grid be persistent"],
}


def asked(*script: Any, models: tuple[str, ...] = ("m",)) -> tuple[Advice | None, ScriptedModel]:
    """Return the advice on a small stalled run, and the model that was asked."""
    world = World()
    world.accept("tflops = 110.0", (0,), "larger tiles reuse more")
    world.fail()
    brief, model = world.brief(), ScriptedModel(*script)
    advice = advise(
        [ModelSettings(name=name) for name in models],
        lambda settings, desk, rng: model,
        FakeDesk().desk,
        brief.problem,
        brief.suite,
        brief.target,
        requirement(0.02, 0.8, measured=False),
        SearchTrajectory(brief.versions, brief.attempts, (), (), {}),
        (),
        Diagnosis(Level.REDIRECT, 4, "5 steps in a row without a new version", None),
        seed=1,
    )
    return advice, model


def test_directions_come_from_the_model_that_saw_the_whole_trajectory() -> None:
    advice, model = asked(Reply(f"Here it is:\n```json\n{json.dumps(GOOD)}\n```"))
    assert advice == Advice("m", tuple(GOOD["directions"]))
    (question,) = model.asked[0]
    for words in ("5 steps in a row", "larger tiles", "parse error", "tflops = 110.0", "One JSON object"):
        assert words in question["content"]
    assert requirement(0.02, 0.8, measured=False) in question["content"]


def test_an_answer_in_the_wrong_form_is_asked_for_once_more_with_what_is_wrong() -> None:
    bad = GOOD | {"directions": ["short"]}
    advice, model = asked(Reply(json.dumps(bad)), Reply(json.dumps(GOOD)))
    assert advice is not None
    assert "directions" in model.asked[1][-1]["content"]


@pytest.mark.parametrize(
    "reply",
    [
        Reply("no idea"),
        Reply(""),
        Reply("{}"),
        ModelRefused("no"),
        BudgetSpent("none left"),
        Reply('{"directions": 3}'),
    ],
)
def test_where_nothing_usable_comes_there_is_no_advice(reply: Reply | Exception) -> None:
    advice, model = asked(reply)
    assert advice is None
    assert len(model.asked) <= 2


@pytest.mark.parametrize("change", [{"directions": []}, {"directions": ["x" * 20] * 7}, {"assessment": ""}])
def test_a_review_has_an_assessment_and_several_directions(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        read_review(json.dumps(GOOD | change))
    assert read_review(json.dumps(GOOD | {"more": random.Random(0).random()})).directions == GOOD["directions"]
