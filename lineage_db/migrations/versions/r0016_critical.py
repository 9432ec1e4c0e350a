"""The critical resources of what was looked at."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Add the column. Of earlier looks they are not known."""
    op.add_column("looks", sa.Column("critical", sa.Text))
