"""Leases kept: a thread that says in the database, again and again, that this process is there."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from lineage_db.errors import StoreError
from lineage_db.store import LEASE

INTERVAL_S = LEASE.total_seconds() / 4
"""Between renewals: one that fails, or is late, loses nothing yet."""


@contextmanager
def renewed(
    renew: Callable[[], bool], lost: Callable[[], None] = lambda: None, interval_s: float = INTERVAL_S
) -> Iterator[None]:
    """Call ``renew`` every ``interval_s`` for as long as the context lasts, until it returns False; then ``lost``.

    A renewal that the database refuses is tried again at the next: whoever works under the lease sees the trouble too.
    """
    over = Event()

    def keep() -> None:
        while not over.wait(interval_s):
            try:
                kept = renew()
            except StoreError:
                continue
            if not kept:
                lost()
                return

    thread = Thread(target=keep, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
