"""The lease on a run: a record in the database that lets one process drive the run, renewed while it works."""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from threading import Event, Thread

from avo.errors import RunBusy
from avo.lineage_db.driving import LEASE
from avo.lineage_db.errors import RunHeld, StoreError
from avo.lineage_db.records import Run
from avo.lineage_db.store import Store

_SQLITE = "sqlite:///"
_POLL_S = 1.0


@contextmanager
def exclusive(
    store: Store, run: Run, *, clock: Callable[[], datetime], lost: Callable[[], None], say: Callable[[str], None]
) -> Iterator[None]:
    """Hold the right to drive the run for as long as the context lasts; raise ``RunBusy`` when another process has it.

    A process that was killed leaves its lease behind. Next to an SQLite database a file is locked too, and the kernel
    drops that lock however the process ends, so that there is nothing to wait for; nor is there where the process was
    on this machine and no longer exists. Otherwise the lease has to run out, and ``say`` gets a line about the wait.
    ``lost`` is called, from a thread, when another process has taken the run over because this one was silent too long.
    """
    driver = f"{socket.gethostname()}:{os.getpid()}"
    with _locked_file(store.url, run) as alone:
        _take(store, run, driver, alone, clock, say)
        try:
            with renewed(lambda: store.driving.keep(run.id, driver, now=clock()), lost):
                yield
        finally:
            with contextlib.suppress(StoreError):  # it runs out by itself
                store.driving.release(run.id, driver, now=clock())


def _take(
    store: Store, run: Run, driver: str, alone: bool, clock: Callable[[], datetime], say: Callable[[str], None]
) -> None:
    gone, first = None, None
    while True:
        try:
            store.driving.take(run.id, driver, now=clock(), gone=gone)
            return
        except RunHeld as held:
            if alone or _ended(held.driver):
                gone = held.driver
                continue
            if first is None:
                say(f"waiting until {held.until:%H:%M:%S} UTC: {held.driver} drives run {run.name!r}, or was killed")
                first = held.until
            if held.until > first:
                raise RunBusy(str(held)) from None
        time.sleep(_POLL_S)


def _ended(driver: str) -> bool:
    """Return whether ``driver`` was a process of this machine and no longer exists."""
    host, _, pid = driver.rpartition(":")
    return host == socket.gethostname() and not os.path.exists(f"/proc/{pid}")


@contextmanager
def _locked_file(store_url: str, run: Run) -> Iterator[bool]:
    """Lock this run's byte of a file next to an SQLite database; yield False for a database on a server."""
    if not store_url.startswith(_SQLITE):
        yield False
        return
    with open(store_url.removeprefix(_SQLITE) + "-runs", "ab") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, run.id)
        except OSError:
            raise RunBusy(f"run {run.name!r} is being worked on by another process: stop that one first") from None
        yield True


INTERVAL_S = LEASE.total_seconds() / 4
"""Seconds between renewals: a lease outlasts one that fails or is late."""


@contextmanager
def renewed(
    renew: Callable[[], bool], lost: Callable[[], None] = lambda: None, interval_s: float = INTERVAL_S
) -> Iterator[None]:
    """Call ``renew`` every ``interval_s`` for as long as the context lasts, until it returns False; then ``lost``.

    After a renewal that fails in the database, the next one tries again: work under the lease meets the same failure.
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
