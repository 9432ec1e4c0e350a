"""Pages: reads of a long run piece by piece, without its long columns."""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlalchemy import BindParameter, ColumnElement, Connection, Text, bindparam, case, cast, func, select, true

from avo.evaluator.evaluation import Status
from avo.lineage_db import queries
from avo.lineage_db.decision import OPEN, Ruling
from avo.lineage_db.engine import Part, transactional
from avo.lineage_db.entries import PaidStep, Spend
from avo.lineage_db.records import Accepted, AttemptSummary, FailedCall, Outcome, Step, StepState
from avo.lineage_db.rows import record
from avo.lineage_db.tables import attempts, calls, decisions, hypotheses, steps, versions

NEWEST = 2**31 - 1
"""Larger than any id, number or count."""

# What live readers ask for again and again is built once: to build a statement takes longer than to execute it.
_RUN: BindParameter[int] = bindparam("run_key")
_AFTER: BindParameter[int] = bindparam("after")
_MOST: BindParameter[int] = bindparam("most")
_NEW = (attempts.c.run_id == _RUN) & (attempts.c.id > _AFTER)
_VERDICTS = select(attempts.c.status, func.count()).where(_NEW).group_by(attempts.c.status)
_LATEST = select(attempts.c.finished, attempts.c.status).where(_NEW).order_by(attempts.c.id.desc()).limit(_MOST)
_UNRESOLVED = (
    select(attempts.c.geomean_tflops)
    .join_from(decisions, attempts)
    .where(
        decisions.c.run_id == _RUN,
        decisions.c.ruling == Ruling.UNRESOLVED,
        decisions.c.attempt_id > _AFTER,
        attempts.c.geomean_tflops > bindparam("above"),
    )
    .order_by(decisions.c.attempt_id)
)
_RECENT = select(attempts.c.id).where(attempts.c.run_id == _RUN).order_by(attempts.c.id.desc()).limit(_MOST)
_TURNED_DOWN = (
    select(attempts.c.id)
    .outerjoin_from(attempts, decisions)
    .where(
        attempts.c.run_id == _RUN,
        attempts.c.id.in_(_RECENT.scalar_subquery()),
        (attempts.c.status != Status.CORRECT) | decisions.c.ruling.not_in(OPEN),
    )
    .order_by(attempts.c.id.desc())
    .limit(bindparam("few"))
)
_ACCEPTABLE = (
    select(decisions.c.attempt_id)
    .where(decisions.c.run_id == _RUN, decisions.c.ruling == Ruling.ACCEPTABLE)
    .order_by(decisions.c.attempt_id.desc())
    .limit(_MOST)
)
_BEGUN = select(func.coalesce(func.max(steps.c.number) + 1, 0)).where(steps.c.run_id == _RUN)
_TRIED = select(func.count()).where(attempts.c.step_id == steps.c.id).scalar_subquery()
_LAST_STEPS = (
    select(steps.c.state, steps.c.started, steps.c.finished, _TRIED)
    .where(steps.c.run_id == _RUN)
    .order_by(steps.c.number.desc())
    .limit(_MOST)
)
_ENDED = (StepState.DONE, StepState.FAILED)
_RUNNING = select(steps).where(steps.c.run_id == _RUN, steps.c.state == StepState.RUNNING)
_ACCEPTED = (
    select(
        versions.c.number,
        versions.c.attempt_id,
        versions.c.step.label("step_number"),
        versions.c.parents,
        attempts.c.geomean_tflops,
        versions.c.champion,
        func.coalesce(func.nullif(versions.c.whole_change, ""), attempts.c.change).label("change"),
        versions.c.accepted,
    )
    .join_from(versions, attempts)
    .where(versions.c.run_id == _RUN, versions.c.number > _AFTER)
    .order_by(versions.c.number.desc())
    .limit(_MOST)
)
_SPEEDS = (
    select(versions.c.number, attempts.c.geomean_tflops)
    .join_from(versions, attempts)
    .where(versions.c.run_id == _RUN, versions.c.number.in_(bindparam("numbers", expanding=True)))
)


class Pages(Part):
    """Reads of a run piece by piece. The cost of each depends on what it returns, not on how long the run is, unless it
    says otherwise.
    """

    @transactional()
    def begun(self, connection: Connection, run_id: int) -> int:
        """Return how many steps of the run were begun."""
        return connection.scalar(_BEGUN, {"run_key": run_id}) or 0

    @transactional()
    def verdicts(self, connection: Connection, run_id: int, *, after: int = 0) -> Mapping[Status, int]:
        """Return how many of the run's attempts with ids larger than ``after`` have each verdict.

        The cost grows with their number: they are counted in an index.
        """
        found = connection.execute(_VERDICTS, {"run_key": run_id, "after": after})
        return dict(found.all())

    @transactional()
    def last_before(self, connection: Connection, run_id: int, moment: datetime) -> int:
        """Return the id of the run's last attempt that was finished before ``moment``; 0 if there is none.

        The cost grows with the number of the run's attempts.
        """
        found = select(func.max(attempts.c.id)).where(attempts.c.run_id == run_id, attempts.c.finished < moment)
        return connection.scalar(found) or 0

    @transactional()
    def latest(
        self, connection: Connection, run_id: int, limit: int, *, after: int = 0
    ) -> list[tuple[datetime, Status]]:
        """Return when attempts of the run were finished and their verdicts, newest first.

        They are the last ``limit`` of those with ids larger than ``after``.
        """
        values = {"run_key": run_id, "after": after, "most": limit}
        return [(finished, status) for finished, status in connection.execute(_LATEST, values)]

    @transactional()
    def unresolved(self, connection: Connection, run_id: int, *, above: float, after: int = 0) -> list[float]:
        """Return the predicted TFLOPS of the run's unresolved attempts that are faster than ``above``, oldest first.

        They have ids larger than ``after``. The cost grows with the number of unresolved attempts among
        these, whatever their speed.
        """
        values = {"run_key": run_id, "above": above, "after": after}
        return list(connection.scalars(_UNRESOLVED, values))

    @transactional()
    def turned_down(self, connection: Connection, run_id: int, *, last: int, most: int) -> list[AttemptSummary]:
        """Return those of the run's ``last`` attempts that were faulty or refused, ``most`` of them, newest first."""
        ids = connection.scalars(_TURNED_DOWN, {"run_key": run_id, "most": last, "few": most}).all()
        return queries.summaries_where(connection, run_id, attempts.c.id.in_(ids))[::-1]

    @transactional()
    def acceptable(self, connection: Connection, run_id: int, *, last: int = 50) -> tuple[int, ...]:
        """Return the ids of the run's attempts that would be accepted if they were submitted, the latest ``last``."""
        return tuple(connection.scalars(_ACCEPTABLE, {"run_key": run_id, "most": last}))

    @transactional()
    def refused(self, connection: Connection, run_id: int, ids: Sequence[int]) -> list[AttemptSummary]:
        """Return those of the run's attempts with these ids that are correct but refused, oldest first."""
        return queries.summaries_where(connection, run_id, attempts.c.id.in_(ids) & decisions.c.ruling.not_in(OPEN))

    @transactional()
    def finished(self, connection: Connection, run_id: int, limit: int) -> list[tuple[datetime, datetime, int]]:
        """Return start, end and number of attempts of those of the run's last ``limit`` steps that are done or failed.

        The newest step comes first.
        """
        found = connection.execute(_LAST_STEPS, {"run_key": run_id, "most": limit})
        return [(start, end, tried) for state, start, end, tried in found if state in _ENDED]

    @transactional()
    def accepted(self, connection: Connection, run_id: int, *, after: int = -1, last: int = NEWEST) -> list[Accepted]:
        """Return the latest ``last`` of the run's versions with numbers larger than ``after``, oldest first."""
        rows = connection.execute(_ACCEPTED, {"run_key": run_id, "after": after, "most": last}).all()[::-1]
        speeds = {row.number: row.geomean_tflops for row in rows}
        if missing := sorted({number for row in rows for number in row.parents} - speeds.keys()):
            found = connection.execute(_SPEEDS, {"run_key": run_id, "numbers": missing})
            speeds |= {row.number: row.geomean_tflops for row in found}

        def gain(speed: float, parents: Sequence[int]) -> float | None:
            return speed / max(speeds[number] for number in parents) - 1 if parents else None

        return [record(Accepted, row, gain=gain(row.geomean_tflops, row.parents)) for row in rows]

    @transactional()
    def paid(self, connection: Connection, run_id: int, *, last: int, before: datetime | None = None) -> list[PaidStep]:
        """Return those of the ``last`` steps that have ended, by ``before`` where it is given, that called a model,
        oldest first.
        """
        ended = (steps.c.run_id == run_id) & steps.c.finished.is_not(None)
        ended &= steps.c.finished <= before if before else true()
        newest = select(steps.c.id, steps.c.number).where(ended).order_by(steps.c.number.desc()).limit(last).subquery()
        query = (
            select(
                newest.c.number,
                calls.c.model,
                func.count(),
                func.sum(calls.c.input_tokens + calls.c.output_tokens),
                func.coalesce(func.sum(calls.c.usd), 0.0),
                func.sum(
                    case((calls.c.usd.is_(None) & (calls.c.input_tokens + calls.c.output_tokens > 0), 1), else_=0)
                ),
            )
            .join_from(newest, calls, calls.c.step_id == newest.c.id)
            .group_by(newest.c.number, calls.c.model)
        )
        best, gains = 0.0, dict[int, float]()
        speeds = (
            select(versions.c.step, attempts.c.geomean_tflops)
            .join_from(versions, attempts, (attempts.c.id == versions.c.attempt_id) & (attempts.c.run_id == run_id))
            .where(versions.c.run_id == run_id, versions.c.champion)
            .order_by(versions.c.number)
        )
        for step, speed in connection.execute(speeds):
            gains[step] = gains.get(step, 0.0) + (math.log(speed / best) if 0 < best < speed else 0.0)
            best = max(best, speed)
        found: defaultdict[int, list[tuple[int, str, int, float, bool]]] = defaultdict(list)
        for number, model, count, tokens, usd, unpriced in connection.execute(query):
            found[number].append((count, model, int(tokens), float(usd), not unpriced))
        return [
            PaidStep(
                number,
                max(found[number])[1],
                sum(tokens for _, _, tokens, _, _ in found[number]),
                sum(usd for _, _, _, usd, _ in found[number]) if all(priced for *_, priced in found[number]) else None,
                gains.get(number, 0.0),
            )
            for number in sorted(found)
        ]

    @transactional()
    def failed_calls(self, connection: Connection, run_id: int, *, after: int) -> tuple[list[FailedCall], int]:
        """Return the run's calls with ids larger than ``after`` that gave no reply, and the id of the last call."""
        last = select(func.coalesce(func.max(calls.c.id), 0)).where(calls.c.run_id == run_id)
        fields = (steps.c.number.label("step_number"), calls.c.model, calls.c.error, calls.c.finished)
        query = select(*fields).outerjoin_from(calls, steps).where(calls.c.run_id == run_id, calls.c.error != "")
        until = connection.scalar(last) or 0
        new = query.where(calls.c.id > after, calls.c.id <= until).order_by(calls.c.id)
        return [record(FailedCall, row) for row in connection.execute(new)], until

    @transactional()
    def outcomes(self, connection: Connection, run_id: int, *, after: int, limit: int) -> list[Outcome]:
        """Return the verdicts on the first ``limit`` attempts whose ids are larger than ``after``, oldest first."""
        fields = (attempts.c.id.label("attempt_id"), attempts.c.status, attempts.c.message, attempts.c.geomean_tflops)
        query = (
            select(*fields)
            .where(attempts.c.run_id == run_id, attempts.c.id > after)
            .order_by(attempts.c.id)
            .limit(limit)
        )
        return [record(Outcome, row) for row in connection.execute(query)]

    @transactional()
    def find(self, connection: Connection, run_id: int, words: Sequence[str], *, after: int = 0) -> list[int]:
        """Return the ids above ``after`` of the run's attempts in whose texts all ``words`` occur, oldest first.

        The texts are verdict, change, hypothesis, message and decision; case does not matter. The cost grows with the
        number of attempts after ``after``.
        """
        said: ColumnElement[str] = func.replace(cast(attempts.c.status, Text), "_", " ")
        for column in (attempts.c.change, attempts.c.message, hypotheses.c.text, decisions.c.sentence):
            said = said + "\n" + func.coalesce(column, "")
        query = (
            select(attempts.c.id)
            .outerjoin_from(attempts, hypotheses)
            .outerjoin(decisions, queries.OF_ATTEMPT)
            .where(attempts.c.run_id == run_id, attempts.c.id > after)
            .where(*(func.lower(said).contains(word.lower(), autoescape=True) for word in words))
            .order_by(attempts.c.id)
        )
        return list(connection.scalars(query))

    @transactional()
    def attempts(self, connection: Connection, run_id: int, ids: Sequence[int]) -> list[AttemptSummary]:
        """Return the run's attempts with these ids, oldest first."""
        return queries.summaries_where(connection, run_id, attempts.c.id.in_(ids))

    @transactional()
    def attempts_of_step(self, connection: Connection, run_id: int, step_id: int) -> list[AttemptSummary]:
        """Return the attempts of a step of the run, oldest first."""
        return queries.summaries_where(connection, run_id, attempts.c.step_id == step_id)

    @transactional()
    def steps(self, connection: Connection, run_id: int, numbers: range) -> list[Step]:
        """Return the steps with these numbers, oldest first."""
        return _steps(connection, run_id, steps.c.number >= numbers.start, steps.c.number < numbers.stop)

    @transactional()
    def ended(self, connection: Connection, run_id: int, numbers: Collection[int]) -> list[Step]:
        """Return the steps with these numbers that have ended, oldest first."""
        return _steps(connection, run_id, steps.c.number.in_(numbers), steps.c.state != StepState.RUNNING)

    @transactional()
    def running(self, connection: Connection, run_id: int) -> list[Step]:
        """Return the steps that are running, oldest first."""
        found = [record(Step, row) for row in connection.execute(_RUNNING, {"run_key": run_id})]
        # Sorted here: to sort by number itself, SQLite goes through all steps in the index of numbers.
        return sorted(found, key=lambda step: step.number)

    @transactional()
    def attempt_counts(self, connection: Connection, step_ids: Sequence[int]) -> Mapping[int, int]:
        """Return the number of attempts by the id of their step; steps without attempts are left out."""
        query = select(attempts.c.step_id, func.count()).where(attempts.c.step_id.in_(step_ids))
        return dict(connection.execute(query.group_by(attempts.c.step_id)).all())

    @transactional()
    def spends(self, connection: Connection, step_ids: Sequence[int]) -> Mapping[int, Spend]:
        """Return the total of model calls by the id of their step; steps without calls are left out."""
        sums = (calls.c.input_tokens, calls.c.cached_tokens, calls.c.output_tokens, calls.c.usd)
        query = select(calls.c.step_id, func.count(), *(func.coalesce(func.sum(column), 0) for column in sums))
        query = query.where(calls.c.step_id.in_(step_ids)).group_by(calls.c.step_id)
        return {
            step: Spend(count, int(sent), int(cached), int(received), float(usd))
            for step, count, sent, cached, received, usd in connection.execute(query)
        }


def _steps(connection: Connection, run_id: int, *which: ColumnElement[bool]) -> list[Step]:
    query = select(steps).where(steps.c.run_id == run_id, *which).order_by(steps.c.number)
    return [record(Step, row) for row in connection.execute(query)]
