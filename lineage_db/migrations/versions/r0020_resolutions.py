"""The gain from which on a predicted attempt would have been told apart from the best version."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Add the column. It is not known of decisions that were made before."""
    op.add_column("decisions", sa.Column("resolution", sa.Float))
