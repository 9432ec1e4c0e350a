"""What each step was shown and answered, so that it can be replayed, and a list of seeds instead of one.

Steps of earlier releases have no such record.
"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add columns and table, and make a list of what each run starts from."""
    op.add_column("steps", sa.Column("seen", sa.Text))
    op.add_column("steps", sa.Column("grown", sa.Integer))
    op.create_table(
        "answers",
        sa.Column("step_id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("attempt_id", sa.Integer),
        sa.PrimaryKeyConstraint("step_id", "number", name="pk_answers"),
        sa.ForeignKeyConstraint(["step_id"], ["steps.id"], name="fk_answers_step_id"),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name="fk_answers_attempt_id"),
    )
    connection = op.get_bind()
    change = sa.text("UPDATE runs SET config = :config WHERE id = :id")
    for run_id, text in connection.execute(sa.text("SELECT id, config FROM runs")).all():
        config = json.loads(text)
        if isinstance(start := config.get("start"), dict):
            connection.execute(change, {"id": run_id, "config": json.dumps({**config, "start": [start]})})
