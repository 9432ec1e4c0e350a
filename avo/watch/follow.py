"""Following a database: reading it again and again, and passing on what has changed."""

from collections.abc import Callable
from threading import Event
from typing import TypeVar

from avo.lineage_db.errors import StoreError
from avo.lineage_db.store import Store

T = TypeVar("T")

PATIENCE = 1.5
"""Factor by which the pause between two readings grows while nothing changes in the database."""


def follow(
    store_url: str,
    read: Callable[[Store, T | None], T],
    receive: Callable[[T | StoreError], None],
    stop: Event,
    interval_s: float,
    *,
    idle_s: float | None = None,
    wake: Event | None = None,
) -> None:
    """Call ``read`` until ``stop`` is set, and once more after that; pass each new value or error to ``receive``.

    ``read`` gets the value that it returned last, and returns that same object if nothing has changed. After an error
    (the database is missing or locked, or has no such run) it is called again. The pauses are ``interval_s`` seconds;
    while nothing changes they grow up to ``idle_s``, if that is given. Setting ``wake`` ends a pause; a
    caller that passes it must set it together with ``stop``.
    """
    value: T | None = None
    complaint = ""
    store: Store | None = None
    pause_s = interval_s
    while True:
        last = stop.is_set()
        pause_s = min(pause_s * PATIENCE, max(idle_s or 0.0, interval_s))
        try:
            store = store or Store.read(store_url)
            new = read(store, value)
            if new is not value or complaint:
                value, complaint, pause_s = new, "", interval_s
                receive(new)
        except StoreError as error:
            if store:
                store.close()
            store = None
            if str(error) != complaint:
                complaint = str(error)
                receive(error)
        if last:
            break
        if (wake or stop).wait(pause_s) and wake:
            wake.clear()
            pause_s = interval_s
    if store:
        store.close()
