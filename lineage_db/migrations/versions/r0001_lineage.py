"""Runs, steps, attempts and versions.

A revision keeps its own copy of the tables as they were: the application's tables move on.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("problem", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("suite", sa.Text, nullable=False),
        sa.Column("operator", sa.Text, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("config", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created", moment, nullable=False),
        sa.Column("updated", moment, nullable=False),
        sa.Column("changes", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        sa.UniqueConstraint("name", name="uq_runs_name"),
    )
    op.create_table(
        "steps",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("run_id", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("operator", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("digest", sa.String(64)),
        sa.Column("started", moment, nullable=False),
        sa.Column("finished", moment),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_steps"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_steps_run_id"),
        sa.UniqueConstraint("run_id", "number", name="uq_steps_run_id_number"),
    )
    op.create_table(
        "attempts",
        sa.Column("id", sa.Integer, nullable=False),
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
        sa.PrimaryKeyConstraint("id", name="pk_attempts"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_attempts_run_id"),
        sa.ForeignKeyConstraint(["step_id"], ["steps.id"], name="fk_attempts_step_id"),
    )
    op.create_index("ix_attempts_run_id", "attempts", ["run_id"])
    op.create_index("ix_attempts_step_id", "attempts", ["step_id"])
    op.create_table(
        "versions",
        sa.Column("run_id", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("attempt_id", sa.Integer, nullable=False),
        sa.Column("parents", sa.Text, nullable=False),
        sa.Column("accepted", moment, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "number", name="pk_versions"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_versions_run_id"),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name="fk_versions_attempt_id"),
        sa.UniqueConstraint("attempt_id", name="uq_versions_attempt_id"),
    )
