"""The lock that lets one process at a time drive a run. The kernel drops it when the process ends, however it ends."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from avo.errors import RunBusy
from lineage_db.records import Run

_SQLITE = "sqlite:///"


@contextmanager
def exclusive(store_url: str, run: Run) -> Iterator[None]:
    """Hold the run's lock; raise ``RunBusy`` when another process has it.

    One lock file lies beside an SQLite database and has one byte per run. Runs in a database server are not guarded.
    """
    if not store_url.startswith(_SQLITE):
        yield
        return
    with open(store_url.removeprefix(_SQLITE) + "-runs", "ab") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, run.id)
        except OSError:
            raise RunBusy(f"run {run.name!r} is being worked on by another process: stop that one first") from None
        yield
