"""Where a version lives in its population, whether it was the best of all, and what each step worked on.

Earlier runs had one lineage, in which every version was the best when it was accepted.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("versions", sa.Column("niche", sa.Text, nullable=False, server_default=""))
    op.add_column("versions", sa.Column("champion", sa.Boolean, nullable=False, server_default=sa.true()))
    op.add_column("steps", sa.Column("selection", sa.Text))
