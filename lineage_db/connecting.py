"""Connections to a database: an SQLite file or a PostgreSQL server, to write to it or only to read it."""

import os
import random
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from avo.lineage_db.errors import DatabaseUnavailable

FILE_URL = "sqlite:///"
_ADVICE = "give a file path, sqlite:///PATH or postgresql://USER@HOST/NAME"
ROOM_BYTES = 2**16
"""What the index of a write-ahead log (32 KiB) and its first pages take, in bytes."""
_SESSION = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
    "options": "-c idle_in_transaction_session_timeout=60s",
}
"""Settings of a connection to a server: neither side waits long for one that is gone."""


def sqlite(path: Path, create: bool, read_only: bool, busy_seconds: float) -> Engine:
    """Return an engine for the SQLite file at ``path``; with ``create``, its folder is made.

    Raises ``DatabaseUnavailable`` for a path that cannot be, and for a file that is missing unless ``create``.
    """
    if path.name == ":memory:":
        raise DatabaseUnavailable("a database in memory cannot be shared between processes: give a file path")
    if create:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatabaseUnavailable(
                f"folder {path.parent} cannot be made ({error.strerror}): choose another path for the database"
            ) from error
    elif not path.exists():
        raise missing(str(path))

    def connect(how: str) -> sqlite3.Connection:
        # With isolation_level None the driver leaves BEGIN to us, so a writing transaction can be IMMEDIATE. If it were
        # not, another process's write between its first read and its first write would fail it, whatever the timeout.
        return sqlite3.connect(
            f"{path.as_uri()}?mode={how}", uri=True, timeout=busy_seconds, isolation_level=None, check_same_thread=False
        )

    open_file = (
        partial(_reading, path, connect, busy_seconds) if read_only else partial(connect, "rwc" if create else "rw")
    )
    engine = create_engine(URL.create("sqlite", database=str(path)), creator=open_file, poolclass=QueuePool)

    @event.listens_for(engine, "connect")
    def _connect(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA locking_mode")
        record.info["alone"] = cursor.fetchone() == ("exclusive",)

    @event.listens_for(engine, "checkin")
    def _checkin(connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        if connection is not None and record.info.get("alone"):
            record.invalidate()  # kept, it would keep all others out of the file

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        driver = connection.connection.cursor()  # SQLAlchemy's own way is too slow for each transaction
        try:
            if options["write"]:
                # With a write-ahead log, FULL waits for the disk at each commit, NORMAL at none.
                driver.execute(f"PRAGMA synchronous = {'FULL' if options['durable'] else 'NORMAL'}")
            driver.execute("BEGIN IMMEDIATE" if options["write"] else "BEGIN")
        except sqlite3.Error as error:
            raise OperationalError("BEGIN", None, error) from error

    return engine


def _reading(path: Path, connect: Callable[[str], sqlite3.Connection], busy_seconds: float) -> sqlite3.Connection:
    """Return a connection that writes nothing into the database, to a file that we may only read, too.

    On a full disk the index of the write-ahead log cannot be made beside the file. Then the connection keeps it in the
    memory of this process and locks the file, so that what the log holds is read all the same.
    """
    log = Path(f"{path}-wal")
    # Where we may write to both, closing removes the files beside the database.
    writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    ways = [partial(_probed, connect, "rw"), partial(_alone, connect, busy_seconds)]
    failed: sqlite3.OperationalError | None = None
    for way in ways if writable else [partial(_probed, connect, "ro")]:
        try:
            return way()
        except sqlite3.OperationalError as error:
            if "is locked" in str(error):
                raise
            failed = failed or error
    assert failed is not None
    if log.exists() and log.stat().st_size:
        raise failed  # the next way would leave it out
    return _probed(connect, "ro&immutable=1")


def _probed(connect: Callable[[str], sqlite3.Connection], how: str, *pragmas: str) -> sqlite3.Connection:
    """Return a connection that has read, and that writes nothing into the database."""
    connection = connect(how)
    try:
        # A full disk may be that of temporary files, too.
        for pragma in (*pragmas, "schema_version", "query_only = ON", "temp_store = MEMORY"):
            connection.execute(f"PRAGMA {pragma}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _alone(connect: Callable[[str], sqlite3.Connection], busy_seconds: float) -> sqlite3.Connection:
    """Return a connection that keeps all others out of the file for as long as it lasts."""
    deadline = time.monotonic() + busy_seconds
    while True:
        try:
            # Two that waited inside SQLite would wait for each other: each keeps the lock that it has.
            return _probed(connect, "rw", "locking_mode = EXCLUSIVE", "busy_timeout = 0")
        except sqlite3.OperationalError as error:
            if "is locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(random.uniform(0.002, 0.02))


def full(error: BaseException, path: Path) -> bool:
    """Whether a driver failed because the disk of ``path`` is full, or this user's share of it."""
    name = getattr(error, "sqlite_errorname", "")
    if name in ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"):  # the latter: the index of the log could not grow
        return True
    return name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN")) and not room(path)


def room(path: Path) -> bool:
    """Whether the disk that holds ``path`` has room for the files that SQLite makes beside it to write."""
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return True
    blocks = disk.f_bavail * disk.f_frsize >= ROOM_BYTES or disk.f_blocks == 0  # /proc counts none
    return blocks and (disk.f_favail > 1 or disk.f_files == 0)  # btrfs counts no files


def server(text: str, read_only: bool) -> tuple[str, str, Engine]:
    """Return the URL of a PostgreSQL database, how messages name it, without a password, and an engine for it.

    Raises ``DatabaseUnavailable`` for other URLs, and where psycopg is not installed.
    """
    try:
        url = make_url(text)
    except ArgumentError:
        raise DatabaseUnavailable(f"{text!r} is not a database URL: {_ADVICE}") from None
    label = url.render_as_string()
    if url.drivername not in ("postgresql", "postgresql+psycopg"):
        raise DatabaseUnavailable(f"{label} is not a database URL AVO knows: {_ADVICE}")
    try:
        session = {name: value for name, value in _SESSION.items() if name not in url.query}
        engine = create_engine(url.set(drivername="postgresql+psycopg"), connect_args=session)
        if read_only:  # otherwise the server decides
            engine = engine.execution_options(postgresql_readonly=True)
    except ImportError:
        raise DatabaseUnavailable(f"{label} needs psycopg: pip install 'avo-kernels[postgresql]'") from None

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        if options["write"] and not options["durable"]:
            connection.exec_driver_sql("SET LOCAL synchronous_commit = off")

    return url.render_as_string(hide_password=False), label, engine


def missing(label: str) -> DatabaseUnavailable:
    """Return the error for a database that is not there."""
    return DatabaseUnavailable(f"no database at {label}: start one with avo run")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text."""
    return str(error).strip().split("\n")[0]
