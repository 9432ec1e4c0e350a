"""What the process that drives a run and the workers of its steps are doing."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("runs", sa.Column("doing", sa.Text))
    op.add_column("steps", sa.Column("doing", sa.Text))
