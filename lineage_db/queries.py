"""Statements that several parts of the database share, each executed in a transaction of its caller.

What is asked for with each attempt is built once: to build a statement takes longer than to execute it.
"""

from collections.abc import Collection
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, insert, select, update

from avo.lineage_db import tables
from avo.lineage_db.decision import Decision, Ruling, unsubmitted
from avo.lineage_db.entries import Spend
from avo.lineage_db.errors import StepNotRunning, UnknownAttempt, UnknownRun, UnknownVersion
from avo.lineage_db.looked import Looked
from avo.lineage_db.records import Attempt, AttemptSummary, StepState, Version
from avo.lineage_db.rows import AnyRow, record, to_attempt, to_summary, to_version

_RUNS, _STEPS, _ATTEMPTS, _VERSIONS = tables.runs.c, tables.steps.c, tables.attempts.c, tables.versions.c
_CALLS = tables.calls.c
_NAMES_SHOWN = 10

_CHANGED = update(tables.runs).values(changes=_RUNS.changes + 1, updated=bindparam("moment"))
_SHORT_RUN = [column for column in _RUNS if column.name != "config"]
_OWNER = select(_STEPS.run_id).where(_STEPS.id == bindparam("step_key")).scalar_subquery()
_LOCK_RUN = _CHANGED.where(_RUNS.id == bindparam("run_key")).returning(*_SHORT_RUN)
_LOCK_RUN_OF_STEP = _CHANGED.where(_RUNS.id == _OWNER).returning(*_SHORT_RUN)
_SHORT_STEPS = select(_STEPS.id, _STEPS.run_id, _STEPS.number, _STEPS.state, _STEPS.redoes)
_SHORT_STEP = _SHORT_STEPS.where(_STEPS.id == bindparam("step_key"))
_STEP_OF_NUMBER = _SHORT_STEPS.where(_STEPS.run_id == bindparam("run_key"), _STEPS.number == bindparam("number"))

OF_ATTEMPT = (tables.decisions.c.run_id == _ATTEMPTS.run_id) & (tables.decisions.c.attempt_id == _ATTEMPTS.id)
"""Which decision is on an attempt."""
_HYPOTHESIS = func.coalesce(tables.hypotheses.c.text, "").label("hypothesis")
# It has another key to the attempts.
_ORIGIN = (tables.origins.c.run_id == _ATTEMPTS.run_id) & (tables.origins.c.attempt_id == _ATTEMPTS.id)
_DECISION = [column for column in tables.decisions.c if column.name in Decision.__dataclass_fields__]
WHOLE_ATTEMPTS = (
    select(*_ATTEMPTS, _HYPOTHESIS, tables.origins.c.built_on, *_DECISION)
    .outerjoin_from(tables.attempts, tables.hypotheses)
    .outerjoin(tables.origins, _ORIGIN)
    .outerjoin(tables.decisions, OF_ATTEMPT)
    .where(_ATTEMPTS.run_id == bindparam("run_key"))
)
"""The attempts of the run ``run_key``, with all that ``to_attempt`` needs."""
_KNOWN = WHOLE_ATTEMPTS.where(_ATTEMPTS.digest == bindparam("said"))
_EVALUATED = delete(tables.announced).where(
    tables.announced.c.step_id == bindparam("step_key"), tables.announced.c.digest == bindparam("said")
)
_ATTEMPT = WHOLE_ATTEMPTS.where(_ATTEMPTS.id == bindparam("attempt_key"))
_LAST_ATTEMPT = select(func.max(_ATTEMPTS.id)).where(_ATTEMPTS.run_id == bindparam("run_key"))
_SUMMARIES = (
    select(
        _ATTEMPTS.id.label("attempt_id"),
        _STEPS.number.label("step_number"),
        _VERSIONS.number.label("version"),
        _HYPOTHESIS,
        tables.origins.c.built_on,
        *(func.coalesce(_VERSIONS[name], "").label(name) for name in ("whole_change", "seen")),
        *(_ATTEMPTS[name] for name in ("digest", "plan_digest", "status", "geomean_tflops", "message", "change")),
        *(_ATTEMPTS[name] for name in ("parents", "seconds", "finished")),
        *_DECISION,
    )
    .join_from(tables.attempts, tables.steps)
    .outerjoin(tables.hypotheses)
    .outerjoin(tables.origins, _ORIGIN)
    .outerjoin(tables.decisions, OF_ATTEMPT)
    .outerjoin(tables.versions, (_VERSIONS.run_id == _ATTEMPTS.run_id) & (_VERSIONS.attempt_id == _ATTEMPTS.id))
    .where(_ATTEMPTS.run_id == bindparam("run_key"))
    .order_by(_ATTEMPTS.id)
)
_SUMMARIES_AFTER = _SUMMARIES.where(_ATTEMPTS.id > bindparam("after"))
_LOOKS = tables.looks.c
_LOOKS_AFTER = (
    select(*_LOOKS, _LOOKS.id.label("look_id"), _STEPS.number.label("step_number"))
    .join_from(tables.looks, tables.steps)
    .where(_LOOKS.run_id == bindparam("run_key"), _LOOKS.id > bindparam("after"))
    .order_by(_LOOKS.id)
)
_DECIDED = select(tables.decisions.c.attempt_id, *_DECISION)
_ACCEPTABLE_OF_STEP = _DECIDED.join_from(tables.decisions, tables.attempts, OF_ATTEMPT).where(
    _ATTEMPTS.step_id == bindparam("step_key"), tables.decisions.c.ruling == Ruling.ACCEPTABLE
)
_LINEAGE = (
    select(
        *_ATTEMPTS,
        _HYPOTHESIS,
        tables.origins.c.built_on,
        *_DECISION,
        _VERSIONS.number,
        _VERSIONS.accepted,
        _VERSIONS.niche,
        _VERSIONS.champion,
        _VERSIONS.step.label("step_number"),
        _VERSIONS.parents.label("version_parents"),
        _VERSIONS.whole_change,
        _VERSIONS.seen,
    )
    .join_from(tables.versions, tables.attempts)
    .outerjoin(tables.hypotheses)
    .outerjoin(tables.origins, _ORIGIN)
    .outerjoin(tables.decisions, OF_ATTEMPT)
    .where(_VERSIONS.run_id == bindparam("run_key"))
)
_VERSIONS_FROM = _LINEAGE.where(_VERSIONS.number >= bindparam("first")).order_by(_VERSIONS.number)
_VERSION = _LINEAGE.where(_VERSIONS.number == bindparam("number"))
_CHAMPION = _LINEAGE.where(_VERSIONS.champion).order_by(_VERSIONS.number.desc()).limit(1)
_START = _LINEAGE.where(_VERSIONS.parents == ()).order_by(_VERSIONS.number.desc()).limit(1)
_LAST_VERSION = select(func.max(_VERSIONS.number)).where(_VERSIONS.run_id == bindparam("run_key"))


def unknown_run(connection: Connection, wanted: str | int) -> UnknownRun:
    """Return the error for a run that is not there; it names those that are."""
    newest = select(_RUNS.name).order_by(_RUNS.id.desc()).limit(_NAMES_SHOWN)
    return UnknownRun(wanted, connection.scalars(newest).all())


def lock_run(connection: Connection, run_id: int, now: datetime, **values: Any) -> AnyRow:
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


def lock_run_of_step(connection: Connection, step_id: int, now: datetime) -> AnyRow:
    """Lock a step's run, whether or not the step has ended, and return its row without what is long.

    Raises ``StepNotRunning`` where there is no such step.
    """
    run = connection.execute(_LOCK_RUN_OF_STEP, {"step_key": step_id, "moment": now}).one_or_none()
    if run is None:
        raise StepNotRunning(step_id, None)
    return run


def lock_running_step(connection: Connection, step_id: int, now: datetime) -> tuple[AnyRow, AnyRow]:
    """Lock the step's run and return the rows of run and step, each without what is long.

    Raises ``StepNotRunning``.
    """
    run = lock_run_of_step(connection, step_id, now)
    step = connection.execute(_SHORT_STEP, {"step_key": step_id}).one()
    if step.state is not StepState.RUNNING:
        raise StepNotRunning(step_id, step.state)
    return run, step


def attempt(connection: Connection, run_id: int, attempt_id: int) -> Attempt:
    """Return one attempt of the run; raise ``UnknownAttempt``."""
    row = connection.execute(_ATTEMPT, {"run_key": run_id, "attempt_key": attempt_id}).one_or_none()
    if row is None:
        raise UnknownAttempt(attempt_id)
    return to_attempt(row)


def known_attempt(connection: Connection, run_id: int, digest: str) -> Attempt | None:
    """Return the run's latest attempt of the candidate with this digest; None where it has none."""
    # Asked for an order, SQLite would go through all attempts of the run in it, and leave the index of digests alone.
    rows = connection.execute(_KNOWN, {"run_key": run_id, "said": digest})
    return max(map(to_attempt, rows), key=lambda attempt: attempt.id, default=None)


def evaluated(connection: Connection, step_id: int, digest: str) -> None:
    """Note that a step no longer evaluates a candidate."""
    connection.execute(_EVALUATED, {"step_key": step_id, "said": digest})


def next_attempt(connection: Connection, run_id: int) -> int:
    """Return the number of the run's next attempt; the run has to be locked."""
    return 1 + (connection.scalar(_LAST_ATTEMPT, {"run_key": run_id}) or 0)


def summaries_after(connection: Connection, run_id: int, after: int) -> list[AttemptSummary]:
    """Return the run's attempts with ids larger than ``after``, oldest first."""
    rows = connection.execute(_SUMMARIES_AFTER, {"run_key": run_id, "after": after})
    return [to_summary(row) for row in rows]


def summaries_where(connection: Connection, run_id: int, which: ColumnElement[bool]) -> list[AttemptSummary]:
    """Return the run's attempts for which ``which`` holds, oldest first."""
    return [to_summary(row) for row in connection.execute(_SUMMARIES.where(which), {"run_key": run_id})]


def looks_after(connection: Connection, run_id: int, after: int) -> list[Looked]:
    """Return the run's looks with ids larger than ``after``, oldest first."""
    return [record(Looked, row) for row in connection.execute(_LOOKS_AFTER, {"run_key": run_id, "after": after})]


def decisions(connection: Connection, run_id: int, attempt_ids: Collection[int]) -> dict[int, Decision]:
    """Return the decisions on these attempts of the run, by attempt; those without one are left out."""
    if not attempt_ids:
        return {}
    of_run = _DECIDED.where(tables.decisions.c.run_id == run_id)
    rows = connection.execute(of_run.where(tables.decisions.c.attempt_id.in_(attempt_ids)))
    return {row.attempt_id: record(Decision, row) for row in rows}


def count_unsubmitted(connection: Connection, run_id: int) -> int:
    """Return how many attempts of the run were not submitted though they were acceptable."""
    decided = tables.decisions.c
    query = select(func.count()).where(decided.run_id == run_id, decided.ruling == Ruling.NOT_SUBMITTED)
    return int(connection.execute(query).scalar_one())


def decide(connection: Connection, run_id: int, attempt_id: int, decision: Decision) -> None:
    """Record a decision, in place of an earlier one."""
    values = asdict(decision)
    key = (tables.decisions.c.run_id == run_id, tables.decisions.c.attempt_id == attempt_id)
    if not connection.execute(update(tables.decisions).where(*key).values(values)).rowcount:
        connection.execute(insert(tables.decisions).values(attempt_id=attempt_id, run_id=run_id, **values))


def close_step(connection: Connection, run_id: int, step: AnyRow, submitted: Collection[int] = ()) -> None:
    """Record of the acceptable attempts of a step that ends, and of those that it repeats, that they were not
    submitted: all but those that were ``submitted``.
    """
    ended: AnyRow | None = step
    while ended is not None:
        for row in connection.execute(_ACCEPTABLE_OF_STEP, {"step_key": ended.id}).all():
            if row.attempt_id not in submitted:
                decide(connection, run_id, row.attempt_id, unsubmitted(record(Decision, row)))
        repeated = {"run_key": run_id, "number": ended.redoes}
        ended = None if ended.redoes is None else connection.execute(_STEP_OF_NUMBER, repeated).one_or_none()


def versions(connection: Connection, run_id: int, first: int) -> list[Version]:
    """Return the run's versions from number ``first`` on, oldest first."""
    return [to_version(row) for row in connection.execute(_VERSIONS_FROM, {"run_key": run_id, "first": first})]


def version(connection: Connection, run_id: int, number: int | None) -> Version:
    """Return one version, or the best; raise ``UnknownVersion``.

    The best is the latest that was better than all before it when it was accepted. Recorded speeds do not rank
    versions: the largest of several measured ones owes part of its lead to luck.
    """
    found = _CHAMPION if number is None else _VERSION.params(number=number)
    row = connection.execute(found, {"run_key": run_id}).one_or_none()
    if row is None:
        raise UnknownVersion(number, count_versions(connection, run_id))
    return to_version(row)


def start(connection: Connection, run_id: int) -> Version | None:
    """Return the version that the run starts from, the best of its seeds; None where it has no version."""
    row = connection.execute(_START, {"run_key": run_id}).one_or_none()
    return None if row is None else to_version(row)


def count_versions(connection: Connection, run_id: int) -> int:
    """Return how many versions the run has: they are numbered from 0."""
    last = connection.scalar(_LAST_VERSION, {"run_key": run_id})
    return 0 if last is None else last + 1


def check_parents(parents: tuple[int, ...], count: int) -> None:
    """Raise ``UnknownVersion`` unless all ``parents`` are numbers of a run's ``count`` versions."""
    for number in parents:
        if not 0 <= number < count:
            raise UnknownVersion(number, count)


def spend(connection: Connection, which: ColumnElement[bool]) -> tuple[Spend, int]:
    """Return what the calls for which ``which`` holds came to, and the id of the last of them, or 0."""
    columns = (_CALLS.input_tokens, _CALLS.cached_tokens, _CALLS.output_tokens, _CALLS.usd)
    sums = [func.coalesce(func.sum(column), 0) for column in columns]
    query = select(func.count(), *sums, func.coalesce(func.max(_CALLS.id), 0)).where(which)
    count, sent, cached, received, usd, until = connection.execute(query).one()
    return Spend(count, int(sent), int(cached), int(received), float(usd)), until
