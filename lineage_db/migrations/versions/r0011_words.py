"""What each version changes in all and what was seen, what each attempt was edited from, and handovers among memories.

Earlier versions get their words from the submission of the step that accepted them.
"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the columns and the table."""
    op.add_column("versions", sa.Column("whole_change", sa.Text, nullable=False, server_default=""))
    op.add_column("versions", sa.Column("seen", sa.Text, nullable=False, server_default=""))
    op.add_column("memories", sa.Column("handover", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_table(
        "origins",
        sa.Column("attempt_id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("built_on", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("attempt_id", name="pk_origins"),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name="fk_origins_attempt_id"),
        sa.ForeignKeyConstraint(["built_on"], ["attempts.id"], name="fk_origins_built_on"),
    )
    connection = op.get_bind()
    submitted = connection.execute(sa.text("SELECT run_id, number, submission FROM steps WHERE submission IS NOT NULL"))
    words = sa.text(
        "UPDATE versions SET whole_change = :change, seen = :seen "
        "WHERE run_id = :run AND step = :step AND attempt_id = :attempt"
    )
    for run, step, text in submitted.all():
        said = json.loads(text)
        values = {"run": run, "step": step, "attempt": said["attempt_id"]}
        connection.execute(words, {**values, "change": said["change"], "seen": said["seen"]})
