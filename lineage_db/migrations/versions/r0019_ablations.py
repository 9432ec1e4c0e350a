"""What each edit of a version is worth in it."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Add the table. None was kept before."""
    op.create_table(
        "ablations",
        sa.Column("run_id", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("made", sa.DateTime(timezone=True), nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "version", name="pk_ablations"),
        sa.ForeignKeyConstraint(
            ["run_id", "version"], ["versions.run_id", "versions.number"], name="fk_ablations_run_id_version"
        ),
    )
