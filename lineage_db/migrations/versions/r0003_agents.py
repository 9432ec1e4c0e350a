"""What operators that are agents leave behind: transcripts, model calls, memories, hypotheses; and interventions."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the tables, and the column of what a step has submitted."""
    moment = sa.DateTime(timezone=True)
    op.add_column("steps", sa.Column("submission", sa.Text))
    op.create_table(
        "hypotheses",
        sa.Column("attempt_id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("attempt_id", name="pk_hypotheses"),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name="fk_hypotheses_attempt_id"),
    )
    op.create_table(
        "messages",
        sa.Column("step_id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("written", moment, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("step_id", "number", name="pk_messages"),
        sa.ForeignKeyConstraint(["step_id"], ["steps.id"], name="fk_messages_step_id"),
    )
    op.create_table(
        "calls",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("run_id", sa.Integer, nullable=False),
        sa.Column("step_id", sa.Integer),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("usd", sa.Float),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("finished", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_calls"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_calls_run_id"),
        sa.ForeignKeyConstraint(["step_id"], ["steps.id"], name="fk_calls_step_id"),
    )
    op.create_index("ix_calls_run_id", "calls", ["run_id"])
    op.create_index("ix_calls_step_id", "calls", ["step_id"])
    op.create_table(
        "memories",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("run_id", sa.Integer, nullable=False),
        sa.Column("step_id", sa.Integer, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("written", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_memories"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_memories_run_id"),
        sa.ForeignKeyConstraint(["step_id"], ["steps.id"], name="fk_memories_step_id"),
    )
    op.create_index("ix_memories_run_id", "memories", ["run_id"])
    op.create_table(
        "interventions",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("run_id", sa.Integer, nullable=False),
        sa.Column("after_step", sa.Integer, nullable=False),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("directions", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("restart_from", sa.Integer),
        sa.Column("made", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_interventions"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_interventions_run_id"),
    )
    op.create_index("ix_interventions_run_id", "interventions", ["run_id"])
