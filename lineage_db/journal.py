"""The journal of a run: transcripts, model calls, memories and interventions, each written as it happens."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from avo.lineage_db import queries
from avo.lineage_db.directions import Direction
from avo.lineage_db.engine import Database, Part, transactional
from avo.lineage_db.entries import UNANSWERED, Intervention, Memory, Message, ModelCall, Spend
from avo.lineage_db.errors import StepNotRunning
from avo.lineage_db.history import Histories
from avo.lineage_db.records import PendingReply
from avo.lineage_db.rows import record
from avo.lineage_db.tables import calls, interventions, memories, messages, steps

_ALL = 2**31 - 1

# What each step asks for is built once: to build a statement takes longer than to execute it.
_MEMORIES = (
    select(*memories.c, steps.c.number.label("step_number"))
    .join_from(memories, steps)
    .where(memories.c.run_id == bindparam("run_key"))
    .order_by(memories.c.id)
)
_LISTEN = update(steps).where(steps.c.id == bindparam("step_key")).values(reply=bindparam("pending"))
_LAST_INTERVENTIONS = (
    select(interventions)
    .where(interventions.c.run_id == bindparam("run_key"), interventions.c.id > bindparam("after"))
    .order_by(interventions.c.id.desc())
    .limit(bindparam("most"))
)


class Journal(Part):
    """What operators and the supervisor write down besides attempts.

    What a step writes is refused with ``StepNotRunning`` once the step has ended; the cost of a model call never is.
    """

    def __init__(self, database: Database, histories: Histories) -> None:
        super().__init__(database)
        self._histories = histories

    @transactional(write=True)
    def add_message(
        self, connection: Connection, step_id: int, kind: str, content: dict[str, Any], *, now: datetime
    ) -> Message:
        """Add an entry to a running step's transcript; ``content`` is plain data. Raises ``StepNotRunning``."""
        queries.lock_running_step(connection, step_id, now)
        number = connection.scalar(select(func.count()).where(messages.c.step_id == step_id)) or 0
        message = Message(step_id, number, kind, content, now)
        connection.execute(insert(messages).values(asdict(message)))
        return message

    @transactional()
    def messages(self, connection: Connection, step_id: int, *, after: int = -1) -> list[Message]:
        """Return the entries of a step's transcript after number ``after``; empty where it has none or is unknown."""
        query = select(messages).where(messages.c.step_id == step_id, messages.c.number > after)
        query = query.order_by(messages.c.number)
        return [record(Message, row) for row in connection.execute(query)]

    @transactional(write=True)
    def add_call(
        self,
        connection: Connection,
        run_id: int,
        step_id: int | None,
        *,
        model: str,
        input_tokens: int,
        cached_tokens: int,
        output_tokens: int,
        usd: float | None,
        seconds: float,
        error: str,
        now: datetime,
    ) -> ModelCall:
        """Write down a finished model call, even one that failed or whose step has ended meanwhile.

        The step no longer waits for a reply then. Raises ``UnknownRun``.
        """
        values = {
            "run_id": run_id,
            "step_id": step_id,
            "model": model,
            "input_tokens": input_tokens,
            "cached_tokens": cached_tokens,
            "output_tokens": output_tokens,
            "usd": usd,
            "seconds": seconds,
            "error": error,
            "finished": now,
        }
        queries.lock_run(connection, run_id, now)
        connection.execute(_LISTEN, {"step_key": step_id, "pending": None})
        made = record(ModelCall, connection.execute(insert(calls).values(values).returning(*calls.c)).one())
        # A worker may outlive its step, and its reply what was written down for it. Not before: an id is never reused.
        lost = (calls.c.step_id == step_id) & (calls.c.model == model) & (calls.c.error == UNANSWERED)
        connection.execute(delete(calls).where(lost))
        return made

    @transactional(write=True, durable=False)
    def listen(self, connection: Connection, step_id: int, reply: PendingReply, *, now: datetime) -> None:
        """Note how much of a model's reply has come, for displays. Nothing is written once the step has ended."""
        with suppress(StepNotRunning):
            queries.lock_running_step(connection, step_id, now)
            connection.execute(_LISTEN, {"step_key": step_id, "pending": reply.to_json()})

    @transactional()
    def calls(self, connection: Connection, run_id: int, *, step_id: int | None = None) -> list[ModelCall]:
        """Return the model calls of a run, or of one of its steps, oldest first."""
        which = calls.c.run_id == run_id if step_id is None else calls.c.step_id == step_id
        return [record(ModelCall, row) for row in connection.execute(select(calls).where(which).order_by(calls.c.id))]

    @transactional()
    def last_call(self, connection: Connection, run_id: int) -> ModelCall | None:
        """Return the model call of a run that ended last; None where there was none."""
        query = select(calls).where(calls.c.run_id == run_id).order_by(calls.c.id.desc()).limit(1)
        row = connection.execute(query).one_or_none()
        return record(ModelCall, row) if row else None

    @transactional()
    def spend(self, connection: Connection, run_id: int, *, step_id: int | None = None) -> Spend:
        """Return the total of the model calls of a run, for which only new calls are read, or of one of its steps."""
        if step_id is None:
            return self._histories.spend(connection, run_id)
        return queries.spend(connection, calls.c.step_id == step_id)[0]

    @transactional(write=True)
    def remember(
        self, connection: Connection, step_id: int, text: str, *, now: datetime, handover: bool = False
    ) -> Memory:
        """Keep a note of a running step for later ones, or what it hands over; raises ``StepNotRunning``."""
        run, step = queries.lock_running_step(connection, step_id, now)
        values = {"run_id": run.id, "step_id": step.id, "text": text, "written": now, "handover": handover}
        made = connection.execute(insert(memories).values(values).returning(memories.c.id)).scalar_one()
        return Memory(made, run.id, step.number, text, now, handover)

    @transactional(write=True)
    def explore(self, connection: Connection, step_id: int, directions: Sequence[Direction], *, now: datetime) -> None:
        """Keep directions that a running step lists, each with what it saw of it; raises ``StepNotRunning``."""
        run, step = queries.lock_running_step(connection, step_id, now)
        values = [
            {"run_id": run.id, "step_id": step.id, "text": each.words, "written": now, "direction": asdict(each)}
            for each in directions
        ]
        if values:
            connection.execute(insert(memories), values)

    @transactional()
    def memories(self, connection: Connection, run_id: int) -> list[Memory]:
        """Return the notes, directions and handovers of a run, oldest first."""
        return [record(Memory, row) for row in connection.execute(_MEMORIES, {"run_key": run_id})]

    @transactional(write=True)
    def intervene(
        self,
        connection: Connection,
        run_id: int,
        *,
        after_step: int,
        level: str,
        reason: str,
        directions: Sequence[str],
        source: str,
        restart_from: int | None,
        now: datetime,
        seen: int,
    ) -> Intervention | None:
        """Write down what the supervisor tells the operators, and return it. Raises ``UnknownRun``.

        Nothing is written if the run has an intervention with an id larger than ``seen``: another worker was quicker.
        """
        values = {
            "run_id": run_id,
            "after_step": after_step,
            "level": level,
            "reason": reason,
            "directions": list(directions),
            "source": source,
            "restart_from": restart_from,
            "made": now,
        }
        queries.lock_run(connection, run_id, now)
        last = select(func.max(interventions.c.id)).where(interventions.c.run_id == run_id)
        if (connection.scalar(last) or 0) > seen:
            return None
        row = connection.execute(insert(interventions).values(values).returning(*interventions.c)).one()
        return record(Intervention, row)

    @transactional()
    def interventions(
        self, connection: Connection, run_id: int, *, after: int = 0, last: int | None = None
    ) -> list[Intervention]:
        """Return what the supervisor told the operators of a run, oldest first.

        Only interventions with ids larger than ``after``, and of those only the last ``last``.
        """
        values = {"run_key": run_id, "after": after, "most": _ALL if last is None else last}
        rows = connection.execute(_LAST_INTERVENTIONS, values)
        return [record(Intervention, row) for row in rows][::-1]
