"""Looking after a database: a copy of it while runs go on, and less of what only explains them."""

import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, delete, func, select, text

from avo.lineage_db import queries
from avo.lineage_db.engine import Part, transactional
from avo.lineage_db.errors import DatabaseUnavailable, RunHeld
from avo.lineage_db.records import StepState
from avo.lineage_db.tables import attempts, messages, runs, steps


class Upkeep(Part):
    """Backing up and pruning."""

    def back_up(self, path: Path) -> None:
        """Write a copy of an SQLite database to ``path``, as it is at one moment, also while runs write to it.

        A copy that fails leaves nothing. Raises ``DatabaseUnavailable``, also for a database on a server.
        """
        try:
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
                copy = Path(folder, path.name)
                with closing(sqlite3.connect(copy)) as target:
                    self._database.copy_to(target)
                os.replace(copy, path)
        except OSError as error:
            raise DatabaseUnavailable(f"{path} cannot be written: {error.strerror}") from error

    @transactional(write=True)
    def drop_transcripts(self, connection: Connection, run_id: int, *, now: datetime) -> int:
        """Drop the transcripts of a run's ended steps and return how many messages they had.

        Raises ``RunHeld`` while a process drives the run, whose next steps may read them, and ``UnknownRun``.
        """
        last_written = connection.scalar(select(runs.c.updated).where(runs.c.id == run_id).with_for_update())
        if last_written is None:
            raise queries.unknown_run(connection, run_id)
        run = queries.lock_run(connection, run_id, last_written)  # when the run ended is told by that
        if run.driver is not None and run.driver_until > now:
            raise RunHeld(run.name, run.driver, run.driver_until)
        ended = select(steps.c.id).where(
            steps.c.run_id == run_id, steps.c.state.in_((StepState.DONE, StepState.FAILED))
        )
        return connection.execute(delete(messages).where(messages.c.step_id.in_(ended))).rowcount

    @transactional()
    def size(self, connection: Connection) -> int:
        """Return the size of the database in bytes: of all runs in it, and of room that was given up."""
        if self._database.embedded:
            pages, of = (connection.scalar(text(f"PRAGMA {name}")) for name in ("page_count", "page_size"))
            return int(pages * of)
        return int(connection.scalar(text("SELECT pg_database_size(current_database())")) or 0)

    @transactional()
    def written(self, connection: Connection, run_id: int, since: datetime) -> int:
        """Return about how many bytes a run has written since then: of verdicts, sources and transcripts.

        The cost grows with the number of the run's attempts and messages.
        """
        of_attempt = func.sum(func.length(attempts.c.source) + func.length(attempts.c.evaluation))
        made = select(of_attempt).where(attempts.c.run_id == run_id, attempts.c.finished >= since)
        of_steps = select(func.sum(func.length(messages.c.content))).join_from(messages, steps)
        said = of_steps.where(steps.c.run_id == run_id, messages.c.written >= since)
        return sum(int(connection.scalar(each) or 0) for each in (made, said))

    def free(self) -> int | None:
        """Return how many bytes are free on the disk of an SQLite database; None for one on a server."""
        return shutil.disk_usage(Path(self._database.label).parent).free if self._database.embedded else None

    def shrink(self) -> None:
        """Give the disk what dropped data took, where that is not done by the server; waits for other writers."""
        self._database.shrink()
