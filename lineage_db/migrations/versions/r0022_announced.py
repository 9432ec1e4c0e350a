"""All candidates that a step has under evaluation."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    """Add the table. A step that is under way is abandoned when its run is resumed."""
    op.create_table(
        "announced",
        sa.Column("step_id", sa.Integer, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("step_id", "digest", name="pk_announced"),
        sa.ForeignKeyConstraint(["step_id"], ["steps.id"], name="fk_announced_step_id"),
    )
