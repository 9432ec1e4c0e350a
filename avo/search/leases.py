"""The right to drive a run, which one process has at a time: a lease in the database, renewed while it works."""

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
from lineage_db.driving import LEASE
from lineage_db.errors import RunHeld, StoreError
from lineage_db.records import Run
from lineage_db.store import Store

_SQLITE = "sqlite:///"
_POLL_S = 1.0


@contextmanager
def exclusive(
    store: Store, run: Run, *, clock: Callable[[], datetime], lost: Callable[[], None], say: Callable[[str], None]
) -> Iterator[None]:
    """Drive the run for as long as the context lasts; raise ``RunBusy`` when another process does.

    One that was killed leaves its lease behind. Beside an SQLite database a file is locked too, which the kernel drops
    when a process ends, however it ends: then nothing has to be waited for. Nor where the process was of this machine
    and is no more. Elsewhere its lease has to run out, of which ``say`` gets a line. ``lost`` is called, from a thread,
    when another process has taken the run although this one lives: it was not heard of for too long.
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
    """Whether ``driver`` was a process of this machine that is no more."""
    host, _, pid = driver.rpartition(":")
    return host == socket.gethostname() and not os.path.exists(f"/proc/{pid}")


@contextmanager
def _locked_file(store_url: str, run: Run) -> Iterator[bool]:
    """Lock one byte, of this run, of a file beside an SQLite database; False where there is no such file."""
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
