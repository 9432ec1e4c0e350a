"""Why the last session of a run ended."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Add the column. It is not known of sessions that ended before."""
    op.add_column("runs", sa.Column("ended_by", sa.Text))
