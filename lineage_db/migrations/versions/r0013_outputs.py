"""Errors of cases by what kind of tolerance their outputs have, as problems now say what their outputs are."""

from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Rename a field of the evaluations, which are JSON text; quotes within strings are escaped there."""
    op.execute("""UPDATE attempts SET evaluation = replace(evaluation, '"lse_error": ', '"absolute_error": ')""")
