"""What has come of the reply of a model that a step waits for."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the column."""
    op.add_column("steps", sa.Column("reply", sa.Text))
