"""Ablations: what is kept of them, as each costs a judge minutes."""

from dataclasses import asdict
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select

from avo.lineage_db import queries
from avo.lineage_db.ablated import Ablation
from avo.lineage_db.engine import Part, transactional
from avo.lineage_db.tables import ablations, runs


class Ablations(Part):
    """The last ablation of each version."""

    @transactional(write=True)
    def keep(self, connection: Connection, run_id: int, made: Ablation, *, now: datetime) -> None:
        """Keep the ablation of a version of the run in the place of an earlier one. Raises ``UnknownVersion`` and
        ``UnknownRun``.
        """
        last_written = connection.scalar(select(runs.c.updated).where(runs.c.id == run_id).with_for_update())
        if last_written is None:
            raise queries.unknown_run(connection, run_id)
        queries.lock_run(connection, run_id, last_written)  # the run itself did nothing
        queries.version(connection, run_id, made.version)
        of_version = (ablations.c.run_id == run_id) & (ablations.c.version == made.version)
        connection.execute(delete(ablations).where(of_version))
        values = {"run_id": run_id, "version": made.version, "made": now, "content": asdict(made)}
        connection.execute(insert(ablations).values(values))

    @transactional()
    def of(self, connection: Connection, run_id: int, version: int) -> Ablation | None:
        """Return the ablation of a version of the run; None where none was made."""
        query = select(ablations.c.content).where(ablations.c.run_id == run_id, ablations.c.version == version)
        found: Ablation | None = connection.scalar(query)
        return found
