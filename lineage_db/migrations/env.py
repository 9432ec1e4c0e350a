"""Alembic's entry point: runs the revisions in the transaction that ``lineage_db.engine`` opened."""

from alembic import context

from lineage_db.engine import REVISION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=REVISION_TABLE)
context.run_migrations()
