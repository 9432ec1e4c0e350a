"""Supervising a run: before a step, look at the trajectory, and record what operators should be told."""

from collections.abc import Callable
from datetime import datetime

from avo.agents.review import Advice
from avo.agents.supervisor import (
    REMEMBERED,
    Diagnosis,
    Level,
    Patience,
    SearchTrajectory,
    diagnose,
    since_growth,
    untried_moves,
)
from avo.evaluator.target import Target
from avo.knowledge_base.library import Library
from avo.lineage_db.entries import Intervention
from avo.lineage_db.records import Run
from avo.lineage_db.store import Store

KNOWLEDGE = "knowledge base"
"""Source of directions that do not come from a model."""
Advise = Callable[[SearchTrajectory, Diagnosis], Advice | None]
"""Returns a model's directions, or None where it has none."""


def supervise(
    store: Store,
    run: Run,
    target: Target,
    patience: Patience,
    knowledge: Library,
    clock: Callable[[], datetime],
    advise: Advise | None = None,
) -> tuple[Intervention, ...]:
    """Intervene in ``run`` if that is due; return the interventions since its lineage last grew, oldest first.

    Directions come from ``advise``; where it gives none, they are untried moves of the knowledge base. Where several
    workers find the same at the same time, one intervenes. Raises the store's errors.
    """
    history = store.history(run.id)
    if not history.versions:
        return ()
    told = store.journal.interventions(run.id, last=REMEMBERED)
    mark = max(history.versions[-1].step_number, told[-1].after_step if told else 0)
    steps = store.steps(run.id, after=mark)
    trajectory = SearchTrajectory(history.versions, history.attempts, steps, told, history.firsts)
    found = diagnose(trajectory, patience)
    if found is None:
        return trajectory.active
    advice = _directions(trajectory, found, run, target, knowledge, advise)
    store.journal.intervene(
        run.id,
        after_step=found.after_step,
        level=found.level,
        reason=found.reason,
        directions=advice.directions,
        source=advice.source,
        restart_from=found.restart_from,
        now=clock(),
        seen=told[-1].id if told else 0,
    )
    return since_growth(store.journal.interventions(run.id, last=REMEMBERED), history.versions)


def _directions(
    trajectory: SearchTrajectory, found: Diagnosis, run: Run, target: Target, knowledge: Library, advise: Advise | None
) -> Advice:
    if found.level is Level.NUDGE:
        return Advice("", ())
    if advise is not None and (advice := advise(trajectory, found)) is not None:
        return advice
    moves = untried_moves(trajectory.versions, trajectory.attempts, target, run.problem, knowledge)
    return Advice(KNOWLEDGE if moves else "", moves)
