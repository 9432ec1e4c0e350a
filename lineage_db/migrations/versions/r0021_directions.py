"""Directions among memories."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Add the column. Memories that were kept before are notes and handovers."""
    op.add_column("memories", sa.Column("direction", sa.Text))
