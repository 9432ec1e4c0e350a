"""The step that each version was accepted in, which need not be the one that evaluated it."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the column. The step of an old version is the one that ended just then, else the one that evaluated it."""
    op.add_column("versions", sa.Column("step", sa.Integer, nullable=False, server_default="0"))
    op.execute(
        "UPDATE versions SET step = COALESCE("
        "(SELECT max(steps.number) FROM steps WHERE steps.run_id = versions.run_id AND steps.state = 'done' "
        "AND steps.finished = versions.accepted HAVING count(*) = 1), "
        "(SELECT steps.number FROM attempts JOIN steps ON steps.id = attempts.step_id "
        "WHERE attempts.id = versions.attempt_id))"
    )
