"""Statements of the store, each within a transaction of its caller's."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, bindparam, exists, func, insert, select, update

from lineage_db import tables
from lineage_db.errors import StepNotRunning, UnknownAttempt, UnknownRun, UnknownVersion
from lineage_db.records import Attempt, Intervention, Memory, RunSummary, Spend, Step, StepState, Trial, Version
from lineage_db.rows import to_attempt, to_intervention, to_memory, to_run, to_step, to_trial, to_version

_RUNS, _STEPS, _ATTEMPTS, _VERSIONS = tables.runs.c, tables.steps.c, tables.attempts.c, tables.versions.c
_CALLS = tables.calls.c
_NAMES_SHOWN = 10
_TAKEN_UP = 5
"""How often in a row a step is taken up from its transcript: what ends it again and again is then left alone."""

# What is asked for with each attempt is built once: to build a statement takes longer than to execute it.
_CHANGED = update(tables.runs).values(changes=_RUNS.changes + 1, updated=bindparam("moment", type_=_RUNS.updated.type))
_SHORT_RUN = [column for column in _RUNS if column.name != "config"]
_OWNER = select(_STEPS.run_id).where(_STEPS.id == bindparam("step_key", type_=_STEPS.id.type)).scalar_subquery()
_LOCK_RUN = _CHANGED.where(_RUNS.id == bindparam("run_key", type_=_RUNS.id.type)).returning(*_SHORT_RUN)
_LOCK_RUN_OF_STEP = _CHANGED.where(_RUNS.id == _OWNER).returning(*_SHORT_RUN)
_SHORT_STEP = select(_STEPS.id, _STEPS.run_id, _STEPS.number, _STEPS.state).where(
    _STEPS.id == bindparam("step_key", type_=_STEPS.id.type)
)
_CLAIMS = select(_STEPS.id, _STEPS.number, _STEPS.turn, _STEPS.unfinished, _STEPS.state, _STEPS.operator, _STEPS.redoes)
_RUN_KEY = bindparam("run_key", type_=_STEPS.id.type)
_BEFORE = (
    _CLAIMS.where(_STEPS.run_id == _RUN_KEY, _STEPS.worker == bindparam("worker"))
    .order_by(_STEPS.number.desc())
    .limit(1)
)
_LEFT = (
    _CLAIMS.where(
        _STEPS.run_id == _RUN_KEY,
        _STEPS.state == StepState.ABANDONED.value,
        _STEPS.unfinished == 0,
        _STEPS.operator == bindparam("operator"),
    )
    .order_by(_STEPS.number)
    .limit(1)
)
_LATER = tables.steps.alias()
_LEFT_AGAIN = (
    _CLAIMS.where(
        _STEPS.run_id == _RUN_KEY,
        _STEPS.state == StepState.ABANDONED.value,
        _STEPS.unfinished.between(1, _TAKEN_UP - 1),
        _STEPS.operator == bindparam("operator"),
        ~exists().where(_LATER.c.run_id == _STEPS.run_id, _LATER.c.redoes == _STEPS.number),
        exists().where(tables.messages.c.step_id == _STEPS.id),
    )
    .order_by(_STEPS.number)
    .limit(1)
)
_LAST_STEP = select(func.max(_STEPS.number)).where(_STEPS.run_id == _RUN_KEY)
_LAST_VERSION = select(func.max(_VERSIONS.number)).where(_VERSIONS.run_id == _RUN_KEY)
_FINISH_STEP = (
    update(tables.steps)
    .where(_STEPS.id == bindparam("step_key", type_=_STEPS.id.type))
    .values(
        state=bindparam("end"),
        finished=bindparam("moment", type_=_STEPS.finished.type),
        reason=bindparam("why", type_=_STEPS.reason.type),
    )
)

_HYPOTHESIS = tables.hypotheses.c.text.label("hypothesis")
_WITH_HYPOTHESIS = select(*_ATTEMPTS, _HYPOTHESIS).outerjoin_from(tables.attempts, tables.hypotheses)
_LINEAGE = (
    select(
        *_ATTEMPTS,
        _HYPOTHESIS,
        _VERSIONS.number,
        _VERSIONS.accepted,
        _VERSIONS.niche,
        _VERSIONS.champion,
        _VERSIONS.step,
        _VERSIONS.parents.label("version_parents"),
    )
    .join_from(tables.versions, tables.attempts)
    .outerjoin(tables.hypotheses)
)
_ATTEMPT = _WITH_HYPOTHESIS.where(
    _ATTEMPTS.run_id == _RUN_KEY, _ATTEMPTS.id == bindparam("attempt_key", type_=_ATTEMPTS.id.type)
)
_KNOWN = (
    _WITH_HYPOTHESIS.where(_ATTEMPTS.run_id == _RUN_KEY, _ATTEMPTS.digest == bindparam("digest"))
    .order_by(_ATTEMPTS.id.desc())
    .limit(1)
)
_OF_PLAN = _WITH_HYPOTHESIS.where(_ATTEMPTS.run_id == _RUN_KEY, _ATTEMPTS.plan_digest == bindparam("digest")).order_by(
    _ATTEMPTS.id
)
_ADD_ATTEMPT = insert(tables.attempts).returning(_ATTEMPTS.id)
_ANNOUNCED = (
    select(_STEPS.id)
    .where(
        _STEPS.run_id == _RUN_KEY,
        _STEPS.state == StepState.RUNNING.value,
        _STEPS.digest == bindparam("said"),
        _STEPS.id != bindparam("step_key", type_=_STEPS.id.type),
        _STEPS.lease_until > bindparam("now", type_=_STEPS.lease_until.type),
    )
    .limit(1)
)
_ANNOUNCE = (
    update(tables.steps)
    .where(_STEPS.id == bindparam("step_key", type_=_STEPS.id.type))
    .values(digest=bindparam("said"))
)
_STEPS_AFTER = (
    select(tables.steps)
    .where(_STEPS.run_id == _RUN_KEY, _STEPS.number > bindparam("after", type_=_STEPS.number.type))
    .order_by(_STEPS.number)
)
_MEMORIES = (
    select(*tables.memories.c, _STEPS.number.label("step_number"))
    .join_from(tables.memories, tables.steps)
    .where(tables.memories.c.run_id == _RUN_KEY)
    .order_by(tables.memories.c.id)
)
_LAST_INTERVENTIONS = (
    select(tables.interventions)
    .where(tables.interventions.c.run_id == _RUN_KEY, tables.interventions.c.id > bindparam("after"))
    .order_by(tables.interventions.c.id.desc())
    .limit(bindparam("most"))
)
_ADD_STEP = insert(tables.steps).returning(*_STEPS)
_TRIALS_OF_RUN = (
    select(
        *(column for column in _ATTEMPTS if column.name not in ("source", "evaluation")),
        _HYPOTHESIS,
        _STEPS.number.label("step_number"),
        _VERSIONS.number.label("version"),
    )
    .join_from(tables.attempts, tables.steps)
    .outerjoin(tables.hypotheses)
    .outerjoin(tables.versions, _VERSIONS.attempt_id == _ATTEMPTS.id)
    .where(_ATTEMPTS.run_id == _RUN_KEY)
    .order_by(_ATTEMPTS.id)
)
_TRIALS = _TRIALS_OF_RUN.where(_ATTEMPTS.id > bindparam("after", type_=_ATTEMPTS.id.type))
_VERSIONS_FROM = _LINEAGE.where(
    _VERSIONS.run_id == _RUN_KEY, _VERSIONS.number >= bindparam("first", type_=_VERSIONS.number.type)
).order_by(_VERSIONS.number)


def unknown_run(connection: Connection, wanted: str | int) -> UnknownRun:
    """Return the error for a run that is not there; it names those that are."""
    newest = select(_RUNS.name).order_by(_RUNS.id.desc()).limit(_NAMES_SHOWN)
    return UnknownRun(wanted, connection.scalars(newest).all())


def lock_run(connection: Connection, run_id: int, now: datetime, **values: Any) -> Row[*tuple[Any, ...]]:
    """Mark the run changed, which keeps other writers out of it until the transaction ends, and return its row.

    ``values`` are columns to set as well; without any the row lacks the configuration, which is long. Raises
    ``UnknownRun``.
    """
    if values:
        change = update(tables.runs).where(_RUNS.id == run_id).values(changes=_RUNS.changes + 1, updated=now, **values)
        row = connection.execute(change.returning(*_RUNS)).one_or_none()
    else:
        row = connection.execute(_LOCK_RUN, {"run_key": run_id, "moment": now}).one_or_none()
    if row is None:
        raise unknown_run(connection, run_id)
    return row


def lock_running_step(
    connection: Connection, step_id: int, now: datetime
) -> tuple[Row[*tuple[Any, ...]], Row[*tuple[Any, ...]]]:
    """Lock the step's run and return the rows of run and step, each without what is long.

    Raises ``StepNotRunning``.
    """
    run = connection.execute(_LOCK_RUN_OF_STEP, {"step_key": step_id, "moment": now}).one_or_none()
    if run is None:
        raise StepNotRunning(step_id, None)
    step = connection.execute(_SHORT_STEP, {"step_key": step_id}).one()
    if step.state != StepState.RUNNING.value:
        raise StepNotRunning(step_id, step.state)
    return run, step


def finish_step(
    connection: Connection, which: ColumnElement[bool], state: StepState, reason: str, now: datetime
) -> list[Step]:
    """End the steps for which ``which`` holds and return them."""
    change = update(tables.steps).where(which).values(state=state.value, finished=now, reason=reason)
    return [to_step(row) for row in connection.execute(change.returning(*_STEPS))]


def claim(connection: Connection, run_id: int, worker: str, operator: str) -> dict[str, Any]:
    """Return the columns of the run's next step that follow from the steps before it.

    A step that was left unfinished is done over, once, by the worker that left it, or by whichever next asks for one of
    the same operator. One that has a transcript, from which it is taken up, is so several times.
    """
    key = {"run_key": run_id}
    before = connection.execute(_BEFORE, {**key, "worker": worker}).one_or_none()
    unfinished, again = 0, None
    if before is not None and before.state == StepState.ABANDONED.value and not _redone(connection, run_id, before):
        unfinished = before.unfinished + 1
        often = _TAKEN_UP if _has_transcript(connection, run_id, before) else 1
        again = before if before.operator == operator and unfinished <= often else None
    if unfinished == 0:
        left = {**key, "operator": operator}
        again = connection.execute(_LEFT, left).one_or_none() or connection.execute(_LEFT_AGAIN, left).one_or_none()
    last = connection.scalar(_LAST_STEP, key)
    turn = (-1 if before is None else before.turn) + (again is None)
    if again is not None and not again.unfinished:
        connection.execute(update(tables.steps).where(_STEPS.id == again.id).values(unfinished=1))
    return {
        "number": 0 if last is None else last + 1,
        "turn": turn,
        "unfinished": unfinished or (0 if again is None else again.unfinished + 1),
        "redoes": None if again is None else again.number,
    }


def _redone(connection: Connection, run_id: int, step: Row[*tuple[Any, ...]]) -> bool:
    """Whether another step does this one over already, which may be another worker's."""
    query = select(_STEPS.id).where(_STEPS.run_id == run_id, _STEPS.redoes == step.number).limit(1)
    return connection.scalar(query) is not None


def _has_transcript(connection: Connection, run_id: int, step: Row[*tuple[Any, ...]]) -> bool:
    """Whether a step, or one that it was to take up, has written anything."""
    found: Row[*tuple[Any, ...]] | None = step
    while found is not None:
        written = select(tables.messages.c.number).where(tables.messages.c.step_id == found.id).limit(1)
        if connection.scalar(written) is not None:
            return True
        earlier = _CLAIMS.where(_STEPS.run_id == run_id, _STEPS.number == found.redoes)
        found = None if found.redoes is None else connection.execute(earlier).one_or_none()
    return False


def conclude(connection: Connection, step_id: int, reason: str, now: datetime) -> None:
    """End a step in order."""
    values = {"step_key": step_id, "end": StepState.DONE.value, "moment": now, "why": reason}
    connection.execute(_FINISH_STEP, values)


def announce(connection: Connection, run_id: int, step_id: int, digest: str, now: datetime) -> bool:
    """Write down which candidate a step evaluates; False when another running one with a lease does so already."""
    values = {"run_key": run_id, "step_key": step_id, "said": digest, "now": now}
    if connection.scalar(_ANNOUNCED, values) is not None:
        return False
    connection.execute(_ANNOUNCE, {"step_key": step_id, "said": digest})
    return True


def steps(connection: Connection, run_id: int, after: int) -> list[Step]:
    """Return the run's steps with numbers larger than ``after``, by number."""
    return [to_step(row) for row in connection.execute(_STEPS_AFTER, {"run_key": run_id, "after": after})]


def memories(connection: Connection, run_id: int) -> list[Memory]:
    """Return the notes of a run, oldest first."""
    return [to_memory(row) for row in connection.execute(_MEMORIES, {"run_key": run_id})]


def interventions(connection: Connection, run_id: int, after: int, most: int) -> list[Intervention]:
    """Return the last interventions of a run, ``most`` of those with ids larger than ``after``, oldest first."""
    rows = connection.execute(_LAST_INTERVENTIONS, {"run_key": run_id, "after": after, "most": most})
    return [to_intervention(row) for row in rows][::-1]


def check_parents(parents: tuple[int, ...], count: int) -> None:
    """Raise ``UnknownVersion`` unless all ``parents`` are numbers of a run's ``count`` versions."""
    for number in parents:
        if not 0 <= number < count:
            raise UnknownVersion(number, count)


def count_versions(connection: Connection, run_id: int) -> int:
    """Return how many versions the run has: they are numbered from 0."""
    last = connection.scalar(_LAST_VERSION, {"run_key": run_id})
    return 0 if last is None else last + 1


def summaries(connection: Connection) -> list[RunSummary]:
    """Return all runs, newest first."""
    tried = select(_ATTEMPTS.run_id, func.count().label("attempts")).group_by(_ATTEMPTS.run_id).subquery()
    accepted = (
        select(
            _VERSIONS.run_id,
            func.count().label("versions"),
            func.max(_ATTEMPTS.geomean_tflops).filter(_VERSIONS.number == 0).label("first"),
        )
        .join_from(tables.versions, tables.attempts)
        .group_by(_VERSIONS.run_id)
        .subquery()
    )
    best = (
        select(_ATTEMPTS.geomean_tflops)
        .join_from(tables.versions, tables.attempts)
        .where(_VERSIONS.run_id == _RUNS.id, _VERSIONS.champion)
        .order_by(_VERSIONS.number.desc())
        .limit(1)
        .scalar_subquery()
    )
    query = (
        select(
            *_RUNS,
            func.coalesce(tried.c.attempts, 0).label("attempts"),
            func.coalesce(accepted.c.versions, 0).label("versions"),
            best.label("best"),
            accepted.c.first,
        )
        .outerjoin_from(tables.runs, tried, tried.c.run_id == _RUNS.id)
        .outerjoin(accepted, accepted.c.run_id == _RUNS.id)
        .order_by(_RUNS.id.desc())
    )
    return [
        RunSummary(to_run(row), row.attempts, row.versions, row.best, row.first) for row in connection.execute(query)
    ]


def attempt(connection: Connection, run_id: int, attempt_id: int) -> Attempt:
    """Return one attempt of the run; raise ``UnknownAttempt``."""
    row = connection.execute(_ATTEMPT, {"run_key": run_id, "attempt_key": attempt_id}).one_or_none()
    if row is None:
        raise UnknownAttempt(attempt_id)
    return to_attempt(row, row.hypothesis)


def attempts(connection: Connection, run_id: int) -> list[Attempt]:
    """Return the run's attempts, oldest first."""
    query = _WITH_HYPOTHESIS.where(_ATTEMPTS.run_id == run_id).order_by(_ATTEMPTS.id)
    return [to_attempt(row, row.hypothesis) for row in connection.execute(query)]


def known_attempt(connection: Connection, run_id: int, digest: str) -> Attempt | None:
    """Return the run's latest attempt of a candidate, if any."""
    row = connection.execute(_KNOWN, {"run_key": run_id, "digest": digest}).one_or_none()
    return None if row is None else to_attempt(row, row.hypothesis)


def attempts_of_plan(connection: Connection, run_id: int, plan_digest: str) -> list[Attempt]:
    """Return the run's attempts with these launch plans, oldest first."""
    rows = connection.execute(_OF_PLAN, {"run_key": run_id, "digest": plan_digest})
    return [to_attempt(row, row.hypothesis) for row in rows]


def add_attempt(connection: Connection, values: Mapping[str, Any]) -> int:
    """Add an attempt and return its id."""
    made: int = connection.execute(_ADD_ATTEMPT, values).scalar_one()
    return made


def add_step(connection: Connection, values: Mapping[str, Any]) -> Step:
    """Add a step and return it."""
    return to_step(connection.execute(_ADD_STEP, values).one())


def trials(connection: Connection, run_id: int, after: int) -> list[Trial]:
    """Return the run's attempts with ids larger than ``after``, without their long columns, oldest first."""
    return [to_trial(row) for row in connection.execute(_TRIALS, {"run_key": run_id, "after": after})]


def spend(connection: Connection, which: ColumnElement[bool]) -> tuple[Spend, int]:
    """Return what the calls for which ``which`` holds came to, and the id of the last of them, or 0."""
    columns = (_CALLS.input_tokens, _CALLS.cached_tokens, _CALLS.output_tokens, _CALLS.usd)
    sums = [func.coalesce(func.sum(column), 0) for column in columns]
    query = select(func.count(), *sums, func.coalesce(func.max(_CALLS.id), 0)).where(which)
    count, sent, cached, received, usd, until = connection.execute(query).one()
    return Spend(count, int(sent), int(cached), int(received), float(usd)), until


def versions(connection: Connection, run_id: int, first: int) -> list[Version]:
    """Return the run's versions from number ``first`` on, oldest first."""
    return [to_version(row) for row in connection.execute(_VERSIONS_FROM, {"run_key": run_id, "first": first})]


def trials_where(connection: Connection, run_id: int, which: ColumnElement[bool]) -> list[Trial]:
    """Return the run's attempts for which ``which`` holds, without their long columns, oldest first."""
    return [to_trial(row) for row in connection.execute(_TRIALS_OF_RUN.where(which), {"run_key": run_id})]


def version(connection: Connection, run_id: int, number: int | None) -> Version:
    """Return one version, or the best; raise ``UnknownVersion``.

    The best is the latest that was better than all before it when it was accepted. Recorded speeds do not rank
    versions: the largest of several measured ones owes part of its lead to luck.
    """
    query = _LINEAGE.where(_VERSIONS.run_id == run_id)
    if number is None:
        query = query.where(_VERSIONS.champion).order_by(_VERSIONS.number.desc()).limit(1)
    else:
        query = query.where(_VERSIONS.number == number)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise UnknownVersion(number, count_versions(connection, run_id))
    return to_version(row)
