"""Which candidates a step was refused because the run could make no more attempts."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    """Add the column. Until now such answers were not recorded."""
    op.add_column("answers", sa.Column("spent", sa.Boolean, nullable=False, server_default=sa.false()))
