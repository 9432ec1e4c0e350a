"""Connections to a database: an SQLite file or a PostgreSQL server, to write to it or only to read it."""

import os
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from avo.lineage_db.errors import DatabaseUnavailable

FILE_URL = "sqlite:///"
_ADVICE = "give a file path, sqlite:///PATH or postgresql://USER@HOST/NAME"
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

    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        creator=partial(_reading, path, connect) if read_only else partial(connect, "rwc" if create else "rw"),
    )

    @event.listens_for(engine, "connect")
    def _connect(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        connection.cursor().execute("PRAGMA foreign_keys = ON")

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


def _reading(path: Path, connect: Callable[[str], sqlite3.Connection]) -> sqlite3.Connection:
    """Return a connection that writes nothing into the database, to a file that we may only read, too."""
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):  # then closing removes the files beside it
        connection = connect("rw")
        connection.execute("PRAGMA query_only = ON")
        return connection
    log = Path(f"{path}-wal")
    try:
        connection = connect("ro")
        connection.execute("PRAGMA schema_version")
    except sqlite3.OperationalError:
        if log.exists() and log.stat().st_size:
            raise
        return connect("ro&immutable=1")  # nobody writes to it: what a log needs beside it cannot be made
    return connection


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
