"""Looks: how many a run and each of its steps have made, and what came of each."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the table, and the counts to runs and steps."""
    op.add_column("runs", sa.Column("looks", sa.Integer, nullable=False, server_default="0"))
    op.add_column("steps", sa.Column("looks", sa.Integer, nullable=False, server_default="0"))
    op.create_table(
        "looks",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("run_id", sa.Integer, nullable=False),
        sa.Column("step_id", sa.Integer, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("plan_digest", sa.Text),
        sa.Column("fault", sa.String(32)),
        sa.Column("geomean_tflops", sa.Float, nullable=False),
        sa.Column("doubt", sa.Float, nullable=False),
        sa.Column("change", sa.Text, nullable=False),
        sa.Column("parents", sa.Text, nullable=False),
        sa.Column("made", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_looks"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_looks_run_id"),
        sa.ForeignKeyConstraint(["step_id"], ["steps.id"], name="fk_looks_step_id"),
    )
    op.create_index("ix_looks_run_id_id", "looks", ["run_id", "id"])
    op.create_index("ix_looks_step_id", "looks", ["step_id"])
