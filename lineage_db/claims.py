"""Claims: which worker performs which step of a run, and how steps end that do not conclude."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, exists, func, insert, or_, select, update

from avo.lineage_db import queries
from avo.lineage_db.driving import LEASE
from avo.lineage_db.engine import Part, persistent, transactional
from avo.lineage_db.entries import UNANSWERED
from avo.lineage_db.errors import AlreadyRecorded, AttemptsSpent, StepNotRunning
from avo.lineage_db.records import Doing, PendingReply, Selection, Step, StepState
from avo.lineage_db.rows import AnyRow, record
from avo.lineage_db.seen import Answer, Seen
from avo.lineage_db.tables import announced, answers, calls, messages, steps

_MOST_CLAIMS = 5
"""How often in a row a step may be claimed to go on from its transcript. A step that fails each time is then left."""

# What each step asks for is built once: to build a statement takes longer than to execute it.
_COLUMNS = ("id", "number", "turn", "unfinished", "state", "operator", "redoes")
_CLAIMED = select(*(steps.c[name] for name in _COLUMNS)).where(steps.c.run_id == bindparam("run_key"))
_BEFORE = _CLAIMED.where(steps.c.worker == bindparam("worker")).order_by(steps.c.number.desc()).limit(1)
_ABANDONED = (
    _CLAIMED.where(steps.c.state == StepState.ABANDONED, steps.c.operator == bindparam("operator"))
    .order_by(steps.c.number)
    .limit(1)
)
_LEFT = _ABANDONED.where(steps.c.unfinished == 0)
_LATER = steps.alias()
_LEFT_AGAIN = _ABANDONED.where(
    steps.c.unfinished.between(1, _MOST_CLAIMS - 1),
    ~exists().where(_LATER.c.run_id == steps.c.run_id, _LATER.c.redoes == steps.c.number),
    exists().where(messages.c.step_id == steps.c.id),
)
_LAST_STEP = select(func.max(steps.c.number)).where(steps.c.run_id == bindparam("run_key"))
_ADD_STEP = insert(steps).returning(*steps.c)
_THIS = steps.c.id == bindparam("step_key")
_UNDER_WAY = (
    select(announced.c.step_id, announced.c.digest)
    .join_from(announced, steps)
    .where(
        steps.c.run_id == bindparam("run_key"),
        steps.c.state == StepState.RUNNING,
        or_(steps.c.lease_until > bindparam("now"), steps.c.id == bindparam("step_key")),
    )
)
_ADD = insert(announced)
_ANNOUNCE = update(steps).where(_THIS).values(digest=bindparam("said"))
_TELL = update(steps).where(_THIS).values(doing=bindparam("what"))
_SEE = update(steps).where(_THIS).values(seen=bindparam("what"))


class Claims(Part):
    """The claims of workers on steps. Those that write to a step raise ``StepNotRunning`` once it has ended."""

    @persistent
    def claim(self, run_id: int, *, worker: str, operator: str, now: datetime, lease: timedelta = LEASE) -> Step:
        """Start the run's next step, numbered from 0; no two callers get the same.

        The claim ends with ``lease`` unless ``keep`` renews it. Where this operator has an abandoned step that no other
        step repeats yet, the new step repeats it: see ``Step.redoes``. Raises ``UnknownRun``.
        """
        with self._database.transaction(write=True, durable=not self._database.embedded) as connection:
            queries.lock_run(connection, run_id, now)
            values = {
                "run_id": run_id,
                "worker": worker,
                "operator": operator,
                "state": StepState.RUNNING,
                "started": now,
                "reason": "",
                "lease_until": now + lease,
                **_place(connection, run_id, worker, operator),
            }
            return record(Step, connection.execute(_ADD_STEP, values).one())

    @transactional(write=True)
    def select(self, connection: Connection, step_id: int, selection: Selection, *, now: datetime) -> None:
        """Record what a running step works on; raises ``StepNotRunning``."""
        queries.lock_running_step(connection, step_id, now)
        connection.execute(update(steps).where(steps.c.id == step_id).values(selection=asdict(selection)))

    @transactional(write=True, durable=False)
    def see(self, connection: Connection, step_id: int, seen: Seen, *, now: datetime) -> None:
        """Record what a running step is shown; raises ``StepNotRunning``."""
        queries.lock_running_step(connection, step_id, now)
        connection.execute(_SEE, {"step_key": step_id, "what": asdict(seen)})

    @transactional(write=True, durable=False)
    def tell(self, connection: Connection, step_id: int, doing: Sequence[Doing], *, now: datetime) -> None:
        """Say what a running step's worker is doing, for displays. Nothing is written once the step has ended."""
        with suppress(StepNotRunning):
            queries.lock_running_step(connection, step_id, now)
            connection.execute(_TELL, {"step_key": step_id, "what": [each.to_json() for each in doing]})

    @transactional(write=True, durable=False)
    def answer(
        self,
        connection: Connection,
        step_id: int,
        digest: str,
        attempt_id: int | None,
        *,
        now: datetime,
        spent: bool = False,
    ) -> None:
        """Record what a running step is told about a candidate that it does not evaluate, see ``Answer``.

        Raises ``StepNotRunning``.
        """
        run, _ = queries.lock_running_step(connection, step_id, now)
        queries.evaluated(connection, step_id, digest)
        number = connection.scalar(select(func.count()).where(answers.c.step_id == step_id))
        of_step = {"step_id": step_id, "number": number, "run_id": run.id}
        told = {"digest": digest, "attempt_id": attempt_id, "spent": spent}
        connection.execute(insert(answers).values(of_step | told))

    @transactional()
    def answers(self, connection: Connection, run_id: int) -> list[Answer]:
        """Return what the steps of a run were told, each in order."""
        query = select(steps.c.number.label("step_number"), answers.c.digest, answers.c.attempt_id, answers.c.spent)
        query = query.join_from(answers, steps).where(steps.c.run_id == run_id)
        return [record(Answer, row) for row in connection.execute(query.order_by(steps.c.number, answers.c.number))]

    @transactional(write=True, durable=False)
    def keep(self, connection: Connection, step_id: int, *, now: datetime, lease: timedelta = LEASE) -> bool:
        """Renew the claim on a running step; False when the step has ended."""
        running = (steps.c.id == step_id) & (steps.c.state == StepState.RUNNING)
        change = update(steps).where(running).values(lease_until=now + lease)
        return connection.execute(change.returning(steps.c.id)).one_or_none() is not None

    @transactional(write=True, durable=False)
    def announce(
        self, connection: Connection, step_id: int, digest: str, *, now: datetime, most: int | None = None
    ) -> bool:
        """Announce a candidate that a running step is about to evaluate, until its attempt or answer is recorded.

        False while another running step, whose lease lasts, has announced it. In one transaction, so that no candidate
        slips through: a step that had it has either recorded it or still announces it. Raises ``StepNotRunning``,
        ``AlreadyRecorded`` where the run has an attempt of it, and ``AttemptsSpent`` where the run has made or begun
        the ``most`` attempts that it may.
        """
        run, step = queries.lock_running_step(connection, step_id, now)
        under_way = _under_way(connection, run.id, step.id, now)
        owners = [row.step_id for row in under_way if row.digest == digest]
        if set(owners) - {step.id}:
            return False
        if (known := queries.known_attempt(connection, run.id, digest)) is not None:
            raise AlreadyRecorded(known)
        if not owners:
            if most is not None and queries.next_attempt(connection, run.id) + len(under_way) > most:
                raise AttemptsSpent(len(under_way))
            connection.execute(_ADD, {"step_id": step.id, "digest": digest})
            connection.execute(_ANNOUNCE, {"step_key": step.id, "said": digest})
        return True

    @transactional(write=True, durable=False)
    def withdraw(self, connection: Connection, step_id: int, digest: str) -> None:
        """Note that a step does not evaluate a candidate after all."""
        queries.evaluated(connection, step_id, digest)

    @transactional()
    def under_way(self, connection: Connection, step: Step, *, now: datetime) -> int:
        """Return how many candidates other running steps of the run, whose leases last, have under evaluation."""
        return sum(row.step_id != step.id for row in _under_way(connection, step.run_id, step.id, now))

    @transactional(write=True)
    def fail(self, connection: Connection, step_id: int, *, state: StepState, reason: str, now: datetime) -> Step:
        """End a running step as ``FAILED`` or ``ABANDONED``; raises ``StepNotRunning``."""
        if state not in (StepState.FAILED, StepState.ABANDONED):
            raise ValueError(f"a step cannot fail as {state}")
        run, step = queries.lock_running_step(connection, step_id, now)
        if state is StepState.FAILED:  # an abandoned one may be repeated
            queries.close_step(connection, run.id, step)
        return _end(connection, steps.c.id == step_id, state, reason, now)[0]

    @transactional(write=True)
    def abandon_running(
        self,
        connection: Connection,
        run_id: int,
        *,
        reason: str,
        now: datetime,
        worker: str | None = None,
        workers: str = "",
    ) -> int:
        """Abandon every running step of the run, and return how many there were.

        Only those of ``worker``, where it is given, and of workers whose names begin with ``workers``. Raises
        ``UnknownRun``.
        """
        which = _running(run_id, workers)
        if worker is not None:
            which &= steps.c.worker == worker
        queries.lock_run(connection, run_id, now)
        return len(_end(connection, which, StepState.ABANDONED, reason, now))

    @persistent
    def abandon_expired(self, run_id: int, *, reason: str, now: datetime, workers: str = "") -> list[Step]:
        """Abandon the running steps whose claims ended before ``now``, and return them.

        Only those of workers whose names begin with ``workers``.
        """
        expired = _running(run_id, workers) & (steps.c.lease_until < now)
        with self._database.transaction() as connection:
            if connection.scalar(select(steps.c.id).where(expired).limit(1)) is None:
                return []
        with self._database.transaction(write=True) as connection:
            queries.lock_run(connection, run_id, now)
            return _end(connection, expired, StepState.ABANDONED, reason, now)


def _under_way(connection: Connection, run_id: int, step_id: int, now: datetime) -> Sequence[AnyRow]:
    """Return the candidates under evaluation in the steps of a run whose leases last, and in ``step_id``."""
    return connection.execute(_UNDER_WAY, {"run_key": run_id, "step_key": step_id, "now": now}).all()


def _running(run_id: int, workers: str) -> ColumnElement[bool]:
    of_them = steps.c.worker.startswith(workers, autoescape=True)
    return (steps.c.run_id == run_id) & (steps.c.state == StepState.RUNNING) & of_them


def _end(
    connection: Connection, which: ColumnElement[bool], state: StepState, reason: str, now: datetime
) -> list[Step]:
    """End the steps for which ``which`` holds and return them.

    A request that one of them waited for gets its row, as the process that asked may not live to write it.
    """
    change = update(steps).where(which).values(state=state, finished=now, reason=reason)
    ended = [record(Step, row) for row in connection.execute(change.returning(*steps.c))]
    if lost := [_unanswered(step, step.reply, now) for step in ended if step.reply and not step.reply.until]:
        connection.execute(insert(calls), lost)
    return ended


def _unanswered(step: Step, reply: PendingReply, now: datetime) -> dict[str, Any]:
    """Return the row of a request whose cost nobody knows."""
    nothing = {"input_tokens": 0, "cached_tokens": 0, "output_tokens": 0, "usd": None}
    seconds, error = (now - reply.asked).total_seconds(), UNANSWERED
    owner = {"run_id": step.run_id, "step_id": step.id, "model": reply.model}
    return {**owner, **nothing, "seconds": seconds, "error": error, "finished": now}


def _place(connection: Connection, run_id: int, worker: str, operator: str) -> dict[str, Any]:
    """Return the columns of the run's next step that follow from the steps before it.

    An abandoned step is repeated once, by the worker that left it or by the next one that asks for a step of the same
    operator. A step with a transcript goes on from there, so it may be repeated several times.
    """
    key = {"run_key": run_id}
    before = connection.execute(_BEFORE, {**key, "worker": worker}).one_or_none()
    unfinished, again = 0, None
    if before is not None and before.state is StepState.ABANDONED and not _redone(connection, run_id, before):
        unfinished = before.unfinished + 1
        often = _MOST_CLAIMS if _has_transcript(connection, run_id, before) else 1
        again = before if before.operator == operator and unfinished <= often else None
    if unfinished == 0:
        left = {**key, "operator": operator}
        again = connection.execute(_LEFT, left).one_or_none() or connection.execute(_LEFT_AGAIN, left).one_or_none()
    last = connection.scalar(_LAST_STEP, key)
    turn = (-1 if before is None else before.turn) + (again is None)
    if again is not None and not again.unfinished:
        connection.execute(update(steps).where(steps.c.id == again.id).values(unfinished=1))
    return {
        "number": 0 if last is None else last + 1,
        "turn": turn,
        "unfinished": unfinished or (0 if again is None else again.unfinished + 1),
        "redoes": None if again is None else again.number,
    }


def _redone(connection: Connection, run_id: int, step: AnyRow) -> bool:
    """Whether another step, perhaps another worker's, repeats this one already."""
    query = select(steps.c.id).where(steps.c.run_id == run_id, steps.c.redoes == step.number).limit(1)
    return connection.scalar(query) is not None


def _has_transcript(connection: Connection, run_id: int, step: AnyRow) -> bool:
    """Whether a step, or one that it was to repeat, has a transcript."""
    found: AnyRow | None = step
    while found is not None:
        written = select(messages.c.number).where(messages.c.step_id == found.id).limit(1)
        if connection.scalar(written) is not None:
            return True
        earlier = _CLAIMED.where(steps.c.number == found.redoes)
        found = None if found.redoes is None else connection.execute(earlier, {"run_key": run_id}).one_or_none()
    return False
