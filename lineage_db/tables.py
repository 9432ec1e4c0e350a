"""Tables of the lineage database. What a column holds comes out of it as records have it."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)

from avo.evaluator.confirmation import Finding
from avo.evaluator.evaluation import Status
from avo.lineage_db.ablated import Ablation
from avo.lineage_db.columns import Choice, Id, Json, Prose, Source, UtcDateTime
from avo.lineage_db.decision import Ruling
from avo.lineage_db.directions import Direction
from avo.lineage_db.ending import Ending
from avo.lineage_db.records import Doing, PendingReply, Request, RunState, Selection, StepState, Submission
from avo.lineage_db.seen import Seen

NAME_LENGTH = 80
"""Longest run name, in characters."""


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
    Column("state", Choice(RunState, 16), nullable=False),
    Column("created", UtcDateTime, nullable=False),
    Column("updated", UtcDateTime, nullable=False),
    # How many writes there were to the run and everything in it. Every writer raises it first, which locks the run.
    Column("changes", Integer, nullable=False),
    # How many comparisons of measured speeds were numbered: each spends its share of the run's probability of error.
    Column("comparisons", Integer, nullable=False),
    # The process that drives the run, and when its lease ends unless renewed; NULL where none does.
    Column("driver", Text),
    Column("driver_until", UtcDateTime),
    # What that process was asked to do: pause, stop or nothing.
    Column("request", Choice(Request, 16), nullable=False, server_default=""),
    # How many candidates were looked at.
    Column("looks", Integer, nullable=False, server_default="0"),
    # What that process does before and after its workers work.
    Column("doing", Json(Doing)),
    # Why its last session ended; NULL while it runs, and where that is not known.
    Column("ended_by", Json(Ending)),
)

steps = Table(
    "steps",
    metadata,
    Column("id", Id, primary_key=True),
    Column("run_id", ForeignKey(runs.c.id), nullable=False),
    Column("number", Id, nullable=False),
    Column("worker", Text, nullable=False),
    Column("operator", Text, nullable=False),
    Column("state", Choice(StepState, 16), nullable=False),
    Column("digest", String(64)),
    Column("started", UtcDateTime, nullable=False),
    Column("finished", UtcDateTime),
    Column("reason", Prose, nullable=False),
    # What the operator submitted and what it expected of it; NULL where it did not say.
    Column("submission", Json(Submission)),
    # What the population gave it to work on; NULL where it works on everything.
    Column("selection", Json(Selection)),
    # When the worker's claim ends unless the worker renews it.
    Column("lease_until", UtcDateTime),
    # How many steps of its own the worker had before this one. A step that repeats another is not its own.
    Column("turn", Integer, nullable=False, server_default="0"),
    # How many steps the worker left unfinished just before this one; at least 1 once another step repeats this one.
    Column("unfinished", Integer, nullable=False, server_default="0"),
    # The number of the step that this one repeats.
    Column("redoes", Id),
    # How much has come of the model's reply that it waits for; NULL where it waits for none.
    Column("reply", Json(PendingReply)),
    # How far the run's record went that it was shown; NULL until then.
    Column("seen", Json(Seen)),
    # How many versions the run had when it was done: the order in which steps added to the lineage.
    Column("grown", Id),
    # How many candidates it looked at that the run had not looked at before.
    Column("looks", Integer, nullable=False, server_default="0"),
    # What its worker is doing, a list.
    Column("doing", Json(tuple[Doing, ...])),
    UniqueConstraint("run_id", "number"),
    Index("ix_steps_left", "run_id", "state", "unfinished", "operator", "number"),
    Index("ix_steps_run_id_worker_number", "run_id", "worker", "number"),
    Index("ix_steps_run_id_redoes", "run_id", "redoes", unique=True),
)

attempts = Table(
    "attempts",
    metadata,
    # Its number in the run, from 1.
    Column("id", Id, autoincrement=False),
    Column("run_id", ForeignKey(runs.c.id), nullable=False),
    Column("step_id", ForeignKey(steps.c.id), nullable=False, index=True),
    Column("digest", String(64), nullable=False),
    Column("plan_digest", Text),
    Column("status", Choice(Status, 32), nullable=False),
    Column("message", Prose, nullable=False),
    Column("geomean_tflops", Float, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("change", Prose, nullable=False),
    Column("parents", Json(tuple), nullable=False),
    Column("started", UtcDateTime, nullable=False),
    Column("finished", UtcDateTime, nullable=False),
    # The long columns come last: SQLite then reads the others without touching their pages.
    Column("evaluation", Json, nullable=False),
    Column("source", Source, nullable=False),
    PrimaryKeyConstraint("run_id", "id"),
    Index("ix_attempts_run_id_id_status", "run_id", "id", "status"),
    Index("ix_attempts_run_id_digest", "run_id", "digest"),
    Index("ix_attempts_run_id_plan_digest", "run_id", "plan_digest"),
)


def _to_attempts(column: str) -> ForeignKeyConstraint:
    """Return the key to an attempt of the same run."""
    return ForeignKeyConstraint(["run_id", column], [attempts.c.run_id, attempts.c.id])


versions = Table(
    "versions",
    metadata,
    Column("run_id", ForeignKey(runs.c.id), primary_key=True),
    Column("number", Id, primary_key=True, autoincrement=False),
    Column("attempt_id", Id, nullable=False),
    Column("parents", Json(tuple), nullable=False),
    Column("accepted", UtcDateTime, nullable=False),
    Column("niche", Prose, nullable=False),
    Column("champion", Boolean, nullable=False),
    # The number of the step in which it was accepted.
    Column("step", Id, nullable=False, server_default="0"),
    # What its submission said: all that it changes against its parents, and the effect that was seen.
    Column("whole_change", Prose, nullable=False, server_default=""),
    Column("seen", Prose, nullable=False, server_default=""),
    _to_attempts("attempt_id"),
    UniqueConstraint("run_id", "attempt_id"),
)

# What a step was told about candidates that it asked for and did not evaluate itself.
answers = Table(
    "answers",
    metadata,
    Column("step_id", ForeignKey(steps.c.id), primary_key=True, autoincrement=False),
    Column("number", Id, primary_key=True, autoincrement=False),
    Column("run_id", Id, nullable=False),
    Column("digest", String(64), nullable=False),
    # NULL where another step was just evaluating the candidate, or the run could make no more attempts.
    Column("attempt_id", Id),
    Column("spent", Boolean, nullable=False, server_default=false()),
    _to_attempts("attempt_id"),
)

# The candidates that steps have under evaluation; those of steps that have ended do not count.
announced = Table(
    "announced",
    metadata,
    Column("step_id", ForeignKey(steps.c.id), primary_key=True, autoincrement=False),
    Column("digest", String(64), primary_key=True),
)

# Not a column of the attempts: behind the long columns it would cost every reader of summaries.
hypotheses = Table(
    "hypotheses",
    metadata,
    Column("run_id", Id, primary_key=True, autoincrement=False),
    Column("attempt_id", Id, primary_key=True, autoincrement=False),
    Column("text", Prose, nullable=False),
    _to_attempts("attempt_id"),
)

# What an attempt was edited from, where that is another attempt than those of its parents. For the same reason.
origins = Table(
    "origins",
    metadata,
    Column("run_id", Id, primary_key=True, autoincrement=False),
    Column("attempt_id", Id, primary_key=True, autoincrement=False),
    Column("built_on", Id, nullable=False),
    _to_attempts("attempt_id"),
    _to_attempts("built_on"),
)

# Whether each correct attempt is a version, and why. Not columns of the attempts, for the same reason.
decisions = Table(
    "decisions",
    metadata,
    Column("run_id", Id, primary_key=True, autoincrement=False),
    Column("attempt_id", Id, primary_key=True, autoincrement=False),
    Column("ruling", Choice(Ruling, 16), nullable=False),
    Column("sentence", Prose, nullable=False),
    Column("gain", Float),
    Column("share", Float),
    Column("resolution", Float),
    _to_attempts("attempt_id"),
    Index("ix_decisions_run_id_ruling_attempt_id", "run_id", "ruling", "attempt_id"),
)

# Candidates that were predicted but not executed. One that a run looks at again has no second row.
looks = Table(
    "looks",
    metadata,
    Column("id", Id, primary_key=True),
    Column("run_id", ForeignKey(runs.c.id), nullable=False),
    Column("step_id", ForeignKey(steps.c.id), nullable=False, index=True),
    Column("digest", String(64), nullable=False),
    Column("plan_digest", Text),
    # NULL where there was none.
    Column("fault", Choice(Status, 32)),
    Column("geomean_tflops", Float, nullable=False),
    Column("doubt", Float, nullable=False),
    Column("change", Prose, nullable=False),
    Column("parents", Json(tuple), nullable=False),
    Column("made", UtcDateTime, nullable=False),
    # NULL where they are not known: it was recorded before they were kept.
    Column("critical", Json(tuple)),
    Index("ix_looks_run_id_id", "run_id", "id"),
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
    # Whether it is what its step handed over to the next one.
    Column("handover", Boolean, nullable=False, server_default=false()),
    # The direction that it is about, with what its step saw of it; NULL for notes and handovers.
    Column("direction", Json(Direction)),
)

interventions = Table(
    "interventions",
    metadata,
    Column("id", Id, primary_key=True),
    Column("run_id", ForeignKey(runs.c.id), nullable=False, index=True),
    Column("after_step", Id, nullable=False),
    Column("level", String(16), nullable=False),
    Column("reason", Prose, nullable=False),
    Column("directions", Json(tuple), nullable=False),
    Column("source", Prose, nullable=False),
    Column("restart_from", Id),
    Column("made", UtcDateTime, nullable=False),
)

# What cards measured. The digest is of the whole file, so that none is taken twice.
measurements = Table(
    "measurements",
    metadata,
    Column("id", Id, primary_key=True),
    Column("run_id", ForeignKey(runs.c.id), nullable=False, index=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("card", Prose, nullable=False),
    Column("uuid", Prose, nullable=False),
    Column("unlike", Prose, nullable=False),
    Column("made", UtcDateTime, nullable=False),
    Column("ingested", UtcDateTime, nullable=False),
    # What it says of each kernel, beside what was predicted.
    Column("kernels", Json(tuple[Finding, ...]), nullable=False),
    # The whole file, samples included.
    Column("content", Json, nullable=False),
)

# What each edit of a version is worth in it, and the version without the useless ones: the last that was made.
ablations = Table(
    "ablations",
    metadata,
    Column("run_id", Id, primary_key=True, autoincrement=False),
    Column("version", Id, primary_key=True, autoincrement=False),
    Column("made", UtcDateTime, nullable=False),
    Column("content", Json(Ablation), nullable=False),
    ForeignKeyConstraint(["run_id", "version"], [versions.c.run_id, versions.c.number]),
)

# The writers to a database on a server, and the token of the last transaction that each has committed. It tells whether
# a commit was done whose answer was lost.
writers = Table(
    "writers",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("token", String(32), nullable=False),
)
