"""Long runs, made of short ones: copies of rows, written by SQLite itself within seconds."""

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import Table

from avo.lineage_db import tables


def lengthen(path: Path, attempts: int, *, accepted_every: int) -> None:
    """Add ``attempts`` steps with an attempt each to the only run of a database, and as many model calls if it has any.

    The new rows are copies of the last ones, with digests of their own. Every ``accepted_every``-th attempt is a
    version. Interventions of the supervisor are copied as often as versions. The run must have an accepted version.
    """
    versions = attempts // accepted_every
    with closing(sqlite3.connect(path)) as raw, raw:

        def last(table: Table, column: str = "id") -> int:
            return int(raw.execute(f"SELECT coalesce(max({column}), 0) FROM {table.name}").fetchone()[0])

        def copy(table: Table, which: str, count: int, **changed: str) -> None:
            names = [column.name for column in table.c]
            values = ", ".join(changed.get(name, name) for name in names)
            raw.execute(
                f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) "
                f"INSERT INTO {table.name} ({', '.join(names)}) SELECT {values} FROM {table.name}, n WHERE {which}"
            )

        attempt, step, version = last(tables.attempts), last(tables.steps), last(tables.versions, "number")
        (its_step,) = raw.execute("SELECT step_id FROM attempts WHERE id = ?", (attempt,)).fetchone()
        number = f"{last(tables.steps, 'number')} + i"
        copy(tables.steps, f"id = {its_step}", attempts, id=f"{step} + i", number=number, turn=number, redoes="NULL")
        copy(
            tables.attempts, f"id = {attempt}", attempts, id=f"{attempt} + i", step_id=f"{step} + i",
            digest="digest || i", plan_digest="plan_digest || i",
        )  # fmt: skip
        copy(tables.decisions, f"attempt_id = {attempt}", attempts, attempt_id=f"{attempt} + i")
        copy(
            tables.versions, f"number = {version}", versions, number=f"{version} + i",
            attempt_id=f"{attempt} + {accepted_every} * i",
        )  # fmt: skip
        for table, count in ((tables.calls, attempts), (tables.interventions, versions)):
            newest = last(table)
            copy(table, f"id = {newest}", count, id=f"{newest} + i")
