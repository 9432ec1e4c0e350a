"""What a step is told at its start: where the run stands, what it has learnt, and what is left of the budgets."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from avo.agents.descent import Descent
from avo.agents.desk import Desk
from avo.agents.handover import without_attempts
from avo.agents.memory import Lesson, handed_over, lessons, matter_at_hand, ranked
from avo.agents.operator import Brief, Previous
from avo.agents.prompts import render
from avo.agents.tools.tables import cut, lineage, short, unresolved
from avo.agents.tools.workbench import Workbench
from avo.evaluator.catalogue import get_problem
from avo.evaluator.problem import signature
from avo.lineage_db.records import AttemptSummary, Step, Version

LESSONS = 12
"""Largest number of lines of memory in a brief."""
HANDOVERS = 2
"""Largest number of handovers in a brief, the latest."""
_ATTEMPTS = 10
"""Largest number of attempts in a brief that were not accepted, the latest."""
_LINEAGE_CHARS = 8_000
_LESSON_CHARS = 500


def opening(brief: Brief, source: str) -> str:
    """Return the first message of a step to its agent; ``source`` is the working source."""
    taken = brief.transferred
    of_taken = "" if taken is None else lineage(taken.versions, (), brief.target.kind)
    return render(
        "brief",
        problem=brief.problem,
        transferred=taken,
        transferred_lineage=cut(of_taken, _LINEAGE_CHARS // 2),
        transferred_source=source_to_adapt(brief),
        **_standing(brief),
        **_start(brief, source),
    )


def taken_up(brief: Brief, bench: Workbench) -> str:
    """Return the first message to an agent that resumes another agent's step: all that is known, and its state."""
    return render(
        "taken_up",
        **_standing(brief, {attempt.attempt_id for attempt in bench.attempts}),
        attempts=bench.lines,
        budget=budget(brief.desk),
        parents=bench.parents,
        built_on=bench.built_on,
        source=bench.source,
    )


def resumed(brief: Brief, bench: Workbench) -> str:
    """Return the message to an agent whose conversation goes on after an interruption; ``bench`` is its step's."""
    mine = {attempt.attempt_id for attempt in bench.attempts}
    return render("resumed", budget=budget(brief.desk), news=_news(brief, brief.transcript[0].written, mine))


def continued(brief: Brief, previous: Previous, source: str) -> str:
    """Return the message that begins a step in the conversation of the worker's last step."""
    step = previous.step
    mine = {attempt.attempt_id for attempt in brief.attempts if attempt.step_number == step.number}
    later = [each for each in brief.memories if each.written > step.started and each.step_number != step.number]
    return render(
        "continued",
        step=step.number,
        ended=_ended(brief, step),
        news=_news(brief, step.started, mine | {each.attempt_id for each in brief.unresolved}),
        examined=brief.desk.news(),
        unresolved=unresolved(brief.unresolved),
        handovers=handed_over(later, brief.attempts, HANDOVERS),
        interventions=brief.interventions,
        **_start(brief, source),
    )


def budget(desk: Desk) -> str:
    """Return what is left of the budgets, in words."""
    return render("budget", left=desk.left())


def learnt(brief: Brief) -> list[str]:
    """Return the lines of the run's memory that matter most for a step on the best version."""
    return [short(lesson.text, _LESSON_CHARS) for lesson in _lessons(brief)]


def source_to_adapt(brief: Brief) -> str:
    """Return the kernel of another problem with another signature; empty if there is none."""
    taken = brief.transferred
    other = taken is not None and signature(get_problem(taken.run.problem)) != signature(brief.problem)
    return taken.source if taken is not None and other else ""


def _standing(brief: Brief, mine: Collection[int] = ()) -> dict[str, Any]:
    """Return the template variables on the lineage and on what the run has learnt, each attempt in one place.

    The attempts ``mine`` are told of elsewhere.
    """
    open_ = [each for each in brief.unresolved if each.attempt_id not in mine]
    told = {*mine, *(each.attempt_id for each in open_)}
    if len(_table(brief, brief.versions, ())) <= _LINEAGE_CHARS:
        told |= {version.attempt.id for version in brief.versions}
    lines = [lesson for lesson in _lessons(brief) if lesson.attempt_id not in told]
    elsewhere = {*told, *(lesson.attempt_id for lesson in lines)}
    latest = [each for each in brief.not_accepted[-_ATTEMPTS:] if each.attempt_id not in elsewhere]
    everywhere = {each for each in elsewhere if each is not None} | {each.attempt_id for each in latest}
    handovers = handed_over(brief.memories, brief.attempts, HANDOVERS)
    return {
        "lineage": cut(_table(brief, brief.versions, latest), _LINEAGE_CHARS),
        "unresolved": unresolved(open_),
        "handovers": [replace(each, text=without_attempts(each.text, everywhere)) for each in handovers],
        "memory": [short(lesson.text, _LESSON_CHARS) for lesson in lines],
        "examined": brief.desk.news(),
        "interventions": brief.interventions,
    }


def _start(brief: Brief, source: str) -> dict[str, Any]:
    """Return the template variables on what a step begins with."""
    return {
        "budget": budget(brief.desk),
        "parent_number": brief.parent.number,
        "best_number": brief.versions[-1].number,
        "source": source,
    }


def _news(brief: Brief, since: datetime, mine: Collection[int]) -> str:
    """Return what was accepted and tried after ``since``, without the attempts ``mine``; empty if there is nothing."""
    versions = [each for each in brief.versions if each.accepted > since and each.attempt.id not in mine]
    attempts = [
        each
        for each in brief.attempts
        if each.version is None and each.finished > since and each.attempt_id not in mine
    ]
    return cut(_table(brief, versions, attempts[-_ATTEMPTS:]), _LINEAGE_CHARS)


def _lessons(brief: Brief) -> Sequence[Lesson]:
    found = lessons(brief.memories, brief.attempts, brief.versions, brief.directions)
    return ranked(found, matter_at_hand(brief.parent, brief.attempts), LESSONS)


def _table(brief: Brief, versions: Sequence[Version], attempts: Sequence[AttemptSummary]) -> str:
    return lineage(versions, attempts, brief.target.kind, Descent(brief.versions, brief.attempts))


def _ended(brief: Brief, step: Step) -> str:
    """Return how a step ended, in words."""
    number = step.submission.attempt_id if step.submission else None
    submitted = next((attempt for attempt in brief.attempts if attempt.attempt_id == number), None)
    if submitted is not None and submitted.version is not None:
        return f"attempt {number} was accepted as version {submitted.version}"
    return f"it added no version: {step.reason}"
