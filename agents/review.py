"""A model's review of a run's whole trajectory, which gives the supervisor's redirections their directions."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from avo.agents.agentic import choose
from avo.agents.descent import Descent
from avo.agents.desk import Desk
from avo.agents.errors import BudgetSpent, ModelRefused
from avo.agents.memory import Lesson, lessons
from avo.agents.model import ChatMessage
from avo.agents.prompts import render
from avo.agents.relay import MakeModel
from avo.agents.settings import ModelSettings
from avo.agents.supervisor import Diagnosis, SearchTrajectory
from avo.agents.task import task
from avo.agents.tools.tables import lineage, short
from avo.evaluator.problem import Problem
from avo.evaluator.target import Target
from avo.lineage_db.entries import Memory
from avo.lineage_db.records import AttemptSummary

_TRIES = 2
"""How often a model is asked before a badly formed answer is given up."""
_ATTEMPTS, _FAILURES, _LESSONS = 40, 12, 20
"""How many attempts, faults and lessons the model is shown, each."""

Direction = Annotated[str, StringConstraints(strip_whitespace=True, min_length=10, max_length=600)]


class Review(BaseModel):
    """The model's answer."""

    model_config = ConfigDict(extra="ignore", strict=True)

    assessment: str = Field(min_length=1)
    """Why the search makes no progress."""
    directions: list[Direction] = Field(min_length=2, max_length=6)


@dataclass(frozen=True, slots=True)
class Advice:
    """Directions, and the model that gave them."""

    source: str
    directions: tuple[str, ...]


def advise(
    models: Sequence[ModelSettings],
    make_model: MakeModel,
    desk: Desk,
    problem: Problem,
    suite: str,
    target: Target,
    requirement: str,
    trajectory: SearchTrajectory,
    memories: Sequence[Memory],
    diagnosis: Diagnosis,
    seed: int,
) -> Advice | None:
    """Return what one of ``models``, drawn by ``seed``, says should be tried; None where no model gives an answer.

    ``requirement`` says in words what a version has to be. The calls are charged to the step of ``desk``.
    """
    rng = random.Random(seed)
    chosen = choose(models, rng, ())
    values = task(problem, target, suite, requirement) | {
        "reason": diagnosis.reason,
        "lineage": lineage(
            trajectory.versions,
            trajectory.attempts[-_ATTEMPTS:],
            target.kind,
            Descent(trajectory.versions, trajectory.attempts),
        ),
        "faults": _faults(trajectory.attempts),
        "memory": [short(lesson.text, 300) for lesson in _lessons(trajectory, memories)],
        "given": [direction for made in trajectory.active for direction in made.directions],
        "source": trajectory.champions[-1].attempt.source,
    }
    messages: list[ChatMessage] = [{"role": "user", "content": render("review", **values)}]
    try:
        model = make_model(chosen, desk, rng)
        for _ in range(_TRIES):
            reply = model.complete(messages, ())
            try:
                return Advice(chosen.name, tuple(read_review(reply.text).directions))
            except ValidationError as error:
                messages += [reply.message, {"role": "user", "content": _complaint(error)}]
    except (ModelRefused, BudgetSpent):
        return None
    return None


def read_review(text: str) -> Review:
    """Return the review in an answer, which may say something around the JSON; raise ``ValidationError``."""
    return Review.model_validate_json(text[max(text.find("{"), 0) : text.rfind("}") + 1] or "{}")


def _complaint(error: ValidationError) -> str:
    wrong = error.errors(include_url=False)[0]
    place = ".".join(map(str, wrong["loc"])) or "the answer"
    return render("review_again", place=place, wrong=wrong["msg"])


def _faults(attempts: Sequence[AttemptSummary]) -> list[tuple[int, str]]:
    """Return the most frequent faults, with their counts."""
    counted = Counter(
        f"{attempt.status.words}: {short(attempt.message)}" for attempt in attempts if not attempt.geomean_tflops
    )
    return [(count, reason) for reason, count in counted.most_common(_FAILURES)]


def _lessons(trajectory: SearchTrajectory, memories: Sequence[Memory]) -> Sequence[Lesson]:
    return lessons(memories, trajectory.attempts, trajectory.versions)[-_LESSONS:]
