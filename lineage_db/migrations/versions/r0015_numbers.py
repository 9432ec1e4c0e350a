"""Attempts are numbered in their run: their key is that of the run and the number. Earlier ones keep their ids.

SQLite cannot change the key of an existing table, so new tables replace the old ones.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

_OF_ATTEMPTS = ("versions", "answers", "hypotheses", "origins", "decisions")
"""Tables with keys to the attempts."""


def upgrade() -> None:
    """Put the old tables aside, make the new ones, and fill them."""
    for name in ("step_id", "run_id_id_status", "run_id_digest", "run_id_plan_digest"):
        op.drop_index(f"ix_attempts_{name}", "attempts")
    op.drop_index("ix_decisions_run_id_ruling_attempt_id", "decisions")
    for table in ("attempts", *_OF_ATTEMPTS):
        if op.get_bind().dialect.name == "postgresql":  # where names of keys are unique among all tables
            op.execute(f"ALTER TABLE {table} DROP CONSTRAINT pk_{table} CASCADE")
        op.rename_table(table, f"old_{table}")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE old_versions DROP CONSTRAINT uq_versions_attempt_id")
    _create()
    for table in ("attempts", "versions", "decisions"):
        columns = ", ".join(column["name"] for column in sa.inspect(op.get_bind()).get_columns(table))
        op.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM old_{table}")
    op.execute(
        "INSERT INTO answers (step_id, number, run_id, digest, attempt_id) "
        "SELECT step_id, old_answers.number, run_id, old_answers.digest, attempt_id "
        "FROM old_answers JOIN steps ON steps.id = step_id"
    )
    for table, column in (("hypotheses", "text"), ("origins", "built_on")):
        op.execute(
            f"INSERT INTO {table} (run_id, attempt_id, {column}) SELECT run_id, attempt_id, {column} "
            f"FROM old_{table} JOIN old_attempts ON old_attempts.id = attempt_id"
        )
    for table in (*_OF_ATTEMPTS, "attempts"):
        op.drop_table(f"old_{table}")
    op.create_index("ix_attempts_step_id", "attempts", ["step_id"])
    op.create_index("ix_attempts_run_id_id_status", "attempts", ["run_id", "id", "status"])
    op.create_index("ix_attempts_run_id_digest", "attempts", ["run_id", "digest"])
    op.create_index("ix_attempts_run_id_plan_digest", "attempts", ["run_id", "plan_digest"])
    op.create_index("ix_decisions_run_id_ruling_attempt_id", "decisions", ["run_id", "ruling", "attempt_id"])


def _create() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "attempts",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("run_id", sa.Integer, nullable=False),
        sa.Column("step_id", sa.Integer, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("plan_digest", sa.Text),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("geomean_tflops", sa.Float, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("change", sa.Text, nullable=False),
        sa.Column("parents", sa.Text, nullable=False),
        sa.Column("started", moment, nullable=False),
        sa.Column("finished", moment, nullable=False),
        sa.Column("evaluation", sa.Text, nullable=False),
        sa.Column("source", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "id", name="pk_attempts"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_attempts_run_id"),
        sa.ForeignKeyConstraint(["step_id"], ["steps.id"], name="fk_attempts_step_id"),
    )
    op.create_table(
        "versions",
        sa.Column("run_id", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("attempt_id", sa.Integer, nullable=False),
        sa.Column("parents", sa.Text, nullable=False),
        sa.Column("accepted", moment, nullable=False),
        sa.Column("niche", sa.Text, nullable=False),
        sa.Column("champion", sa.Boolean, nullable=False),
        sa.Column("step", sa.Integer, nullable=False, server_default="0"),
        sa.Column("whole_change", sa.Text, nullable=False, server_default=""),
        sa.Column("seen", sa.Text, nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("run_id", "number", name="pk_versions"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_versions_run_id"),
        _to_attempts("versions", "attempt_id"),
        sa.UniqueConstraint("run_id", "attempt_id", name="uq_versions_run_id_attempt_id"),
    )
    op.create_table(
        "answers",
        sa.Column("step_id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("run_id", sa.Integer, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("attempt_id", sa.Integer),
        sa.PrimaryKeyConstraint("step_id", "number", name="pk_answers"),
        sa.ForeignKeyConstraint(["step_id"], ["steps.id"], name="fk_answers_step_id"),
        _to_attempts("answers", "attempt_id"),
    )
    op.create_table(
        "hypotheses",
        sa.Column("run_id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("attempt_id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "attempt_id", name="pk_hypotheses"),
        _to_attempts("hypotheses", "attempt_id"),
    )
    op.create_table(
        "origins",
        sa.Column("run_id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("attempt_id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("built_on", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "attempt_id", name="pk_origins"),
        _to_attempts("origins", "attempt_id"),
        _to_attempts("origins", "built_on"),
    )
    op.create_table(
        "decisions",
        sa.Column("run_id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("attempt_id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("ruling", sa.String(16), nullable=False),
        sa.Column("sentence", sa.Text, nullable=False),
        sa.Column("gain", sa.Float),
        sa.Column("share", sa.Float),
        sa.PrimaryKeyConstraint("run_id", "attempt_id", name="pk_decisions"),
        _to_attempts("decisions", "attempt_id"),
    )


def _to_attempts(table: str, column: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["run_id", column], ["attempts.run_id", "attempts.id"], name=f"fk_{table}_run_id_{column}"
    )
