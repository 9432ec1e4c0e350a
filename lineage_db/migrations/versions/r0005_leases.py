"""Leases on runs and steps, steps that repeat others, and indexes that keep queries as quick as they were.

Steps that were abandoned before this revision are not repeated; those still running are, once they are abandoned.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the columns and indexes, and number the turns of each worker."""
    moment = sa.DateTime(timezone=True)
    op.add_column("runs", sa.Column("driver", sa.Text))
    op.add_column("runs", sa.Column("driver_until", moment))
    op.add_column("steps", sa.Column("lease_until", moment))
    op.add_column("steps", sa.Column("turn", sa.Integer, nullable=False, server_default="0"))
    op.add_column("steps", sa.Column("unfinished", sa.Integer, nullable=False, server_default="0"))
    op.add_column("steps", sa.Column("redoes", sa.Integer))
    op.execute(
        "UPDATE steps SET turn = (SELECT count(*) FROM steps AS earlier WHERE earlier.run_id = steps.run_id "
        "AND earlier.worker = steps.worker AND earlier.number < steps.number)"
    )
    op.execute("UPDATE steps SET unfinished = 1 WHERE state = 'abandoned'")
    op.create_index("ix_steps_left", "steps", ["run_id", "state", "unfinished", "operator", "number"])
    op.create_index("ix_steps_run_id_worker_number", "steps", ["run_id", "worker", "number"])
    op.create_index("ix_steps_run_id_redoes", "steps", ["run_id", "redoes"], unique=True)
    op.drop_index("ix_attempts_run_id", "attempts")
    op.create_index("ix_attempts_run_id_id", "attempts", ["run_id", "id"])
    op.create_index("ix_attempts_run_id_digest", "attempts", ["run_id", "digest"])
    op.create_index("ix_attempts_run_id_plan_digest", "attempts", ["run_id", "plan_digest"])
    op.create_table(
        "writers",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("token", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_writers"),
    )
