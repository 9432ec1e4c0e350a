"""The decision on each correct attempt: whether it is a version, and why. Those on earlier attempts are not known."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "decisions",
        sa.Column("attempt_id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("run_id", sa.Integer, nullable=False),
        sa.Column("ruling", sa.String(16), nullable=False),
        sa.Column("sentence", sa.Text, nullable=False),
        sa.Column("gain", sa.Float),
        sa.Column("share", sa.Float),
        sa.PrimaryKeyConstraint("attempt_id", name="pk_decisions"),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name="fk_decisions_attempt_id"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_decisions_run_id"),
    )
    op.create_index("ix_decisions_run_id_ruling_attempt_id", "decisions", ["run_id", "ruling", "attempt_id"])
