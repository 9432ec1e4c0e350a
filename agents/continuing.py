"""Which conversation a step goes on with: its own after an interruption, that of the worker's last step, or none."""

from collections.abc import Sequence
from dataclasses import dataclass

from avo.agents.conversation import CONTINUED, RESUMED, messages_in
from avo.agents.operator import Brief
from avo.agents.settings import Settings
from avo.lineage_db.entries import Message


@dataclass(frozen=True, slots=True)
class Thread:
    """A conversation that may span several steps."""

    model: str
    """Name of the model that takes part in it."""
    steps: int = 1
    """How many steps it spans, the one under way included."""


def thread_of(brief: Brief, settings: Settings, drawn: str) -> Thread:
    """Return the conversation of the step of ``brief``; ``drawn`` is the model of a step with a new one.

    It is that of the worker's last step as long as it spans no more than ``continue_steps``, and its model is still
    among the settings. A step that was interrupted goes on as it began.
    """
    known = {model.name for model in settings.models}
    if brief.transcript:
        found = _recorded(brief.transcript)
        return found if found and found.model in known else Thread(drawn)
    last = brief.previous
    if last is None or not messages_in(last.transcript):
        return Thread(drawn)
    before = _recorded(last.transcript) or Thread(drawn)
    model = last.model or drawn
    if before.steps >= settings.continue_steps or model not in known:
        return Thread(drawn)
    return Thread(model, before.steps + 1)


def _recorded(transcript: Sequence[Message]) -> Thread | None:
    """Return the conversation that the last resumption recorded; None if it began with this step."""
    taken_over = (entry.content for entry in reversed(transcript) if entry.kind in (RESUMED, CONTINUED))
    return next((Thread(each["model"], each["steps"]) for each in taken_over if "steps" in each), None)
