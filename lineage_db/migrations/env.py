"""Alembic's entry point: runs the revisions in the transaction that ``avo.lineage_db.engine`` opened."""

from alembic import context

from avo.lineage_db.engine import REVISION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=REVISION_TABLE)
context.run_migrations()
