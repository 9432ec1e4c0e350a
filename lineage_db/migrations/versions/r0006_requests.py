"""Requests to the process that drives a run, and an index in which attempts are counted by verdict."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the column, and replace the index that the new one begins with."""
    op.add_column("runs", sa.Column("request", sa.String(16), nullable=False, server_default=""))
    op.create_index("ix_attempts_run_id_id_status", "attempts", ["run_id", "id", "status"])
    op.drop_index("ix_attempts_run_id_id", "attempts")
