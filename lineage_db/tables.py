"""Tables of the lineage database and the portable column types they need."""

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

NAME_LENGTH = 80
"""Longest run name, in characters."""


class Id(TypeDecorator[int]):
    """A row's id or number. What lies outside the column's range is looked for as the nearest value, held by no row."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> int | None:
        """Clamp; some drivers raise on large integers, others in the database."""
        return None if value is None else max(-1, min(value, 2**31 - 1))


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, kept in UTC. A naive one is a ``ValueError``."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC."""
        if value is not None and value.tzinfo is None:
            raise ValueError(f"a time without time zone cannot be stored: {value}")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return it aware; SQLite gives it back without a time zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Json(TypeDecorator[Any]):
    """Plain data as ASCII JSON text, which unlike a native JSON type takes NaN, NUL and lone surrogates too."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Encode; None is SQL NULL."""
        return None if value is None else json.dumps(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Decode; SQL NULL, as an outer join makes it, is None."""
        return None if value is None else json.loads(value)


class Prose(TypeDecorator[str]):
    """Text for people. Characters that no UTF-8 column takes (NUL, lone surrogates) become ``?``."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Make it storable."""
        return None if value is None else value.replace("\0", "?").encode("utf-8", "replace").decode()


class Source(TypeDecorator[str]):
    """A source text, exactly as written: UTF-8 bytes, where NUL and lone surrogates survive."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        """Encode."""
        return None if value is None else value.encode("utf-8", "surrogatepass")

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> str | None:
        """Decode."""
        return None if value is None else value.decode("utf-8", "surrogatepass")


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

runs = Table(
    "runs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(NAME_LENGTH), nullable=False, unique=True),
    Column("problem", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("suite", Text, nullable=False),
    Column("operator", Text, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("config", Json, nullable=False),
    Column("state", String(16), nullable=False),
    Column("created", UtcDateTime, nullable=False),
    Column("updated", UtcDateTime, nullable=False),
    # Counts the writes to the run and everything in it. Every writer raises it first, which also locks the run.
    Column("changes", Integer, nullable=False),
    # Numbers given to comparisons of measured speeds so far: each spends its share of the run's probability of error.
    Column("comparisons", Integer, nullable=False),
    # The process that drives the run, until when unless it renews that; NULL where none does.
    Column("driver", Text),
    Column("driver_until", UtcDateTime),
    # What was asked of that process: pause, stop or nothing.
    Column("request", String(16), nullable=False, server_default=""),
)

steps = Table(
    "steps",
    metadata,
    Column("id", Id, primary_key=True),
    Column("run_id", ForeignKey(runs.c.id), nullable=False),
    Column("number", Id, nullable=False),
    Column("worker", Text, nullable=False),
    Column("operator", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("digest", String(64)),
    Column("started", UtcDateTime, nullable=False),
    Column("finished", UtcDateTime),
    Column("reason", Prose, nullable=False),
    # What the operator submitted, and what it expected of it; NULL where it says nothing.
    Column("submission", Json),
    # What the population gave it to work on; NULL where it works on everything.
    Column("selection", Json),
    # Until when the worker has it unless it renews that.
    Column("lease_until", UtcDateTime),
    # How many steps of its own the worker had before this one; a step that is done over is none of its own.
    Column("turn", Integer, nullable=False, server_default="0"),
    # How many steps the worker left unfinished just before this one; 1 too once this one was taken up again.
    Column("unfinished", Integer, nullable=False, server_default="0"),
    # The number of the step that this one does over.
    Column("redoes", Id),
    UniqueConstraint("run_id", "number"),
    Index("ix_steps_left", "run_id", "state", "unfinished", "operator", "number"),
    Index("ix_steps_run_id_worker_number", "run_id", "worker", "number"),
    Index("ix_steps_run_id_redoes", "run_id", "redoes", unique=True),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", Id, primary_key=True),
    Column("run_id", ForeignKey(runs.c.id), nullable=False),
    Column("step_id", ForeignKey(steps.c.id), nullable=False, index=True),
    Column("digest", String(64), nullable=False),
    Column("plan_digest", Text),
    Column("status", String(32), nullable=False),
    Column("message", Prose, nullable=False),
    Column("geomean_tflops", Float, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("change", Prose, nullable=False),
    Column("parents", Json, nullable=False),
    Column("started", UtcDateTime, nullable=False),
    Column("finished", UtcDateTime, nullable=False),
    # The long columns come last: SQLite then reads a trial without touching their pages.
    Column("evaluation", Json, nullable=False),
    Column("source", Source, nullable=False),
    Index("ix_attempts_run_id_id_status", "run_id", "id", "status"),
    Index("ix_attempts_run_id_digest", "run_id", "digest"),
    Index("ix_attempts_run_id_plan_digest", "run_id", "plan_digest"),
)

versions = Table(
    "versions",
    metadata,
    Column("run_id", ForeignKey(runs.c.id), primary_key=True),
    Column("number", Id, primary_key=True, autoincrement=False),
    Column("attempt_id", ForeignKey(attempts.c.id), nullable=False, unique=True),
    Column("parents", Json, nullable=False),
    Column("accepted", UtcDateTime, nullable=False),
    Column("niche", Prose, nullable=False),
    Column("champion", Boolean, nullable=False),
    # The number of the step in which it was accepted.
    Column("step", Id, nullable=False, server_default="0"),
)

# Beside the attempts, not in their table: a column added behind the long ones would cost every reader of trials.
hypotheses = Table(
    "hypotheses",
    metadata,
    Column("attempt_id", ForeignKey(attempts.c.id), primary_key=True, autoincrement=False),
    Column("text", Prose, nullable=False),
)

messages = Table(
    "messages",
    metadata,
    Column("step_id", ForeignKey(steps.c.id), primary_key=True, autoincrement=False),
    Column("number", Id, primary_key=True, autoincrement=False),
    Column("kind", String(16), nullable=False),
    Column("written", UtcDateTime, nullable=False),
    Column("content", Json, nullable=False),
)

calls = Table(
    "calls",
    metadata,
    Column("id", Id, primary_key=True),
    Column("run_id", ForeignKey(runs.c.id), nullable=False, index=True),
    Column("step_id", ForeignKey(steps.c.id), index=True),
    Column("model", Prose, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("usd", Float),
    Column("seconds", Float, nullable=False),
    Column("error", Prose, nullable=False),
    Column("finished", UtcDateTime, nullable=False),
)

memories = Table(
    "memories",
    metadata,
    Column("id", Id, primary_key=True),
    Column("run_id", ForeignKey(runs.c.id), nullable=False, index=True),
    Column("step_id", ForeignKey(steps.c.id), nullable=False),
    Column("text", Prose, nullable=False),
    Column("written", UtcDateTime, nullable=False),
)

interventions = Table(
    "interventions",
    metadata,
    Column("id", Id, primary_key=True),
    Column("run_id", ForeignKey(runs.c.id), nullable=False, index=True),
    Column("after_step", Id, nullable=False),
    Column("level", String(16), nullable=False),
    Column("reason", Prose, nullable=False),
    Column("directions", Json, nullable=False),
    Column("source", Prose, nullable=False),
    Column("restart_from", Id),
    Column("made", UtcDateTime, nullable=False),
)

# Who wrote to a database on a server, and the token of the last transaction that each has committed: when the answer to
# a commit is lost, it tells whether that was done.
writers = Table(
    "writers",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("token", String(32), nullable=False),
)
