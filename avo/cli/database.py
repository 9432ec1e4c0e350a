"""Which database a command works with."""

import os
from pathlib import Path


def database_url(db: str | None) -> str:
    """Return the database to use: the option, else AVO_DB, else .avo/lineage.db below the current folder."""
    return db or os.environ.get("AVO_DB") or str(Path(".avo") / "lineage.db")
