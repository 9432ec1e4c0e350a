"""A count of the comparisons of measured speeds in each run. Earlier runs have made none."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column."""
    op.add_column("runs", sa.Column("comparisons", sa.Integer, nullable=False, server_default="0"))
