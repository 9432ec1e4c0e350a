"""An open lineage database: transactions, migrations, errors, and copies of the whole."""

import errno
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache, partial, wraps
from pathlib import Path
from threading import get_ident, local
from typing import Concatenate, ParamSpec, TypeVar
from uuid import uuid4

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError

from avo.lineage_db.connecting import FILE_URL, first_line, full, missing, server, sqlite
from avo.lineage_db.errors import (
    DatabaseInterrupted,
    DatabaseUnavailable,
    IncompatibleDatabase,
    OlderDatabase,
    StoreError,
)

P = ParamSpec("P")
T = TypeVar("T")
_log = logging.getLogger(__name__)

REVISION_TABLE = "lineage_revision"
"""Where the schema revision is kept; not Alembic's default name, which another application's database may hold."""

_MIGRATION_LOCK = 0x41564F
"""Key of the PostgreSQL advisory lock under which a schema is migrated: "AVO" in ASCII."""
_PASSING = ("08", "57", "40001", "40P01", "53300")
"""How the SQLSTATEs of passing errors begin: lost connections, a server that stops or starts, deadlocks, too many
connections.
"""
_RETRY_S = 0.2
_SIGN = text(
    "INSERT INTO writers (id, token) VALUES (:id, :token) ON CONFLICT (id) DO UPDATE SET token = excluded.token"
)
_LAST_TOKEN = text(
    "INSERT INTO writers (id, token) VALUES (:id, '') ON CONFLICT (id) DO UPDATE SET id = excluded.id RETURNING token"
)


class Database:
    """One open database. Safe to share between threads; a child process opens its own by ``url``."""

    def __init__(
        self,
        url: str,
        *,
        create: bool = False,
        read_only: bool = False,
        busy_seconds: float = 60,
        watch: Callable[[str], None] = lambda point: None,
    ) -> None:
        """``url`` and ``create`` as in ``Store.open``, ``read_only`` as in ``Store.read``.

        The database waits at most ``busy_seconds`` for a locked SQLite file or a lost server. ``watch`` is called with
        ``commit`` before and ``committed`` after each commit of a writing transaction: tests kill the process there.
        """
        self._busy_seconds = busy_seconds
        self._read_only = read_only
        self._watch = watch
        self._given_up = False
        self._id = uuid4().hex
        if url.startswith(FILE_URL) or "://" not in url:
            path = Path(url.removeprefix(FILE_URL)).absolute()
            self.url, self.label = f"{FILE_URL}{path}", str(path)
            self._engine = sqlite(path, create, read_only, busy_seconds)
        else:
            self.url, self.label, self._engine = server(url, read_only)
        self._engines = {
            (write, durable): self._engine.execution_options(write=write, durable=durable)
            for write in (False, True)
            for durable in (False, True)
        }
        # A server's usual transaction sees what others commit during it.
        self._still = self._engines[False, True]
        self._snapshot = _Snapshot()
        # Whether the database is a file that our processes write: then even a commit that is not durable outlives them.
        self.embedded = self._engine.dialect.name == "sqlite"
        if not self.embedded:
            self._still = self._still.execution_options(isolation_level="REPEATABLE READ")
        try:
            self._prepare(create=create)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @contextmanager
    def transaction(self, *, write: bool = False, durable: bool = True) -> Iterator[Connection]:
        """Yield a connection in a transaction, committed at the end and rolled back by an exception.

        Without ``durable`` the commit does not wait for the disk. A machine that loses its power may come up without
        it, but never without it and with a later durable one.

        On SQLite a writing transaction holds the write lock from its start: what it reads stays true until it commits.
        Elsewhere the caller locks the row of the run it writes to.
        """
        if self._snapshot.connection and not write:
            yield self._snapshot.connection
            return
        with self._connected(self._engines[write, durable]) as connection:
            yield connection
            if write:
                self._commit(connection)

    def snapshot(self, read: Callable[[], T]) -> T:
        """Return what ``read`` returns; whatever it reads in this thread is as it was at one moment.

        It is called again where a server was lost before it returned, and not after that: it may remember what it read.
        """
        if self._snapshot.connection:
            return read()

        def once() -> T:
            with self._connected(self._still) as connection:
                self._snapshot.connection = connection
                try:
                    found = read()
                finally:
                    self._snapshot.connection = None
                with suppress(SQLAlchemyError):  # whether or not the server is still there, everything was read
                    connection.rollback()
                return found

        return self.persist(once)

    @contextmanager
    def _connected(self, engine: Engine) -> Iterator[Connection]:
        """Yield a connection in a transaction that is rolled back unless it is committed; explain its errors."""
        try:
            with engine.connect() as connection:
                connection.begin()
                yield connection
        except StatementError as error:
            if isinstance(error, DBAPIError):
                raise self._explain(error.orig or error, lost=error.connection_invalidated) from error
            raise (error.orig or error) from None  # a value that its column type refuses: the caller's error
        except SQLAlchemyError as error:
            raise DatabaseUnavailable(f"database {self.label}: {first_line(error)}") from error

    def persist(self, work: Callable[[], T]) -> T:
        """Return what ``work``, one transaction, returns; run it again while the server is away, but not forever.

        After a wait in vain there is no further wait until the server has answered.
        """
        deadline: float | None = None
        while True:
            try:
                done = work()
            except DatabaseInterrupted as error:
                if deadline is None:  # the first retry is immediate: only the connection may be broken
                    patience, told = (0.0 if self._given_up else self._busy_seconds), self._given_up
                    deadline = time.monotonic() + patience
                    continue
                if not told:
                    _log.warning("%s: trying again for %g s", error, self._busy_seconds)
                    told = True
                if time.monotonic() > deadline:
                    self._given_up = True
                    raise DatabaseUnavailable(f"{error} (tried for {self._busy_seconds:g} s)") from error
                time.sleep(_RETRY_S)
            else:
                self._given_up = False
                return done

    def copy_to(self, target: sqlite3.Connection) -> None:
        """Copy an SQLite database, as it is at one moment; writers need not wait. Raises ``OSError`` where the copy's
        disk is full.
        """
        if not self.embedded:
            raise DatabaseUnavailable(f"database {self.label} is on a server: back it up with pg_dump")

        def copy(source: sqlite3.Connection) -> None:
            try:
                source.backup(target)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorname == "SQLITE_FULL":  # nothing is written to the source
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
                raise

        self._alone(copy)

    def shrink(self) -> None:
        """Rebuild an SQLite file without what was deleted. A server does so by itself."""
        if self.embedded:
            self._alone(lambda connection: connection.execute("VACUUM"))

    def _alone(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Do what SQLite allows in no transaction of ours."""
        with closing(self._engine.raw_connection()) as connection:
            try:
                assert isinstance(connection.driver_connection, sqlite3.Connection)
                work(connection.driver_connection)
            except sqlite3.Error as error:
                raise self._explain(error) from error

    def _commit(self, connection: Connection) -> None:
        """Commit; where the connection is lost meanwhile, find out whether the server committed."""
        token = uuid4().hex
        if not self.embedded:
            connection.execute(_SIGN, {"id": self._signature, "token": token})
        self._watch("commit")
        try:
            connection.commit()
        except DBAPIError as error:
            if not error.connection_invalidated or not self._was_committed(token):
                raise
        self._watch("committed")

    @property
    def _signature(self) -> str:
        """The name that this thread signs its transactions with; it has one at a time, so the last token is enough."""
        return f"{self._id}/{get_ident()}"

    def _was_committed(self, token: str) -> bool:
        """Whether the server committed this thread's transaction of this token.

        The query waits for a server that has not finished the transaction. The server's own transaction numbers would
        not do: one that was lost in a crash leaves its number to another.
        """

        def ask() -> bool:
            with self.transaction() as connection:
                return bool(connection.scalar(_LAST_TOKEN, {"id": self._signature}) == token)

        return self.persist(ask)

    def _prepare(self, *, create: bool) -> None:
        """Bring the schema to the newest revision; raise ``OlderDatabase`` if it is older and only read."""
        scripts = _scripts()
        with self.transaction() as connection:
            revision = self._revision(connection, scripts, create=create)
        if revision == scripts.get_current_head():
            return
        if self._read_only:
            raise OlderDatabase(
                f"{self.label} was written by an older AVO (schema {revision}, this one reads "
                f"{scripts.get_current_head()}): bring it up to date with avo migrate"
            )
        if self.embedded:
            self._use_wal()
        with self.transaction(write=True) as connection:
            if not self.embedded:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
            if self._revision(connection, scripts, create=create) != scripts.get_current_head():
                config = _migrations()
                config.attributes["connection"] = connection
                command.upgrade(config, "head")

    def _revision(self, connection: Connection, scripts: ScriptDirectory, *, create: bool) -> str | None:
        """Return the schema's revision, None for an empty database; raise ``IncompatibleDatabase`` for one of another
        program or a newer AVO, and ``DatabaseUnavailable`` for an empty one unless ``create``.
        """
        context = MigrationContext.configure(connection, opts={"version_table": REVISION_TABLE})
        revision = context.get_current_revision()
        if revision is None:
            if inspect(connection).get_table_names():
                raise IncompatibleDatabase(
                    f"{self.label} is a database of something else: choose an empty or a new one for AVO"
                )
            if not create:
                raise missing(self.label)
        elif revision not in {script.revision for script in scripts.walk_revisions()}:
            raise IncompatibleDatabase(
                f"{self.label} was written by a newer AVO (schema {revision}, known up to "
                f"{scripts.get_current_head()}): upgrade AVO or choose another database"
            )
        return revision

    def _use_wal(self) -> None:
        """Switch the file to write-ahead logging, which lets readers and a writer work at the same time."""
        deadline = time.monotonic() + self._busy_seconds
        with closing(self._engine.raw_connection()) as connection:
            while True:
                try:
                    connection.cursor().execute("PRAGMA journal_mode = WAL")
                    return
                except sqlite3.OperationalError as error:  # the driver's timeout does not cover this statement
                    if "is locked" not in str(error) or time.monotonic() > deadline:
                        raise self._explain(error) from error
                    time.sleep(0.02)

    def _explain(self, error: BaseException, *, lost: bool = False) -> StoreError:
        """Return the error that says in one line what to do about a driver's error.

        ``lost``: the connection was lost with it.
        """
        reason = first_line(error)
        if "not a database" in reason:
            return IncompatibleDatabase(f"{self.label} is not an SQLite database: choose another path")
        if "is locked" in reason:
            return DatabaseUnavailable(
                f"database {self.label} was locked by another process for {self._busy_seconds:g} s: stop it or retry"
            )
        if full(error, Path(self.label)) or getattr(error, "sqlstate", None) == "53100":
            return DatabaseUnavailable(
                f"the disk of database {self.label} is full: nothing is lost, make room there and resume the run"
            )
        if "unable to open" in reason or "readonly" in reason or "read-only" in reason:
            doing, advice = "opened for writing", ""
            if self._read_only:
                doing, advice = "read", f", or copy it and {self.label}-wal to a folder of yours"
            return DatabaseUnavailable(
                f"database {self.label} cannot be {doing}: check the path and its permissions{advice}"
            )
        if self.embedded:
            return DatabaseUnavailable(f"database {self.label} failed ({reason}): check the file and its disk")
        passing = lost or _passes(error)
        kind = DatabaseInterrupted if passing else DatabaseUnavailable
        return kind(f"database {self.label} failed ({reason}): check the URL and the server")


class _Snapshot(local):
    """The connection of the snapshot that a thread reads in, if it does."""

    connection: Connection | None = None


class Part:
    """Part of a lineage database. Threads may share it.

    Each method is one transaction, run again where a server was lost in the middle of it. Methods raise only
    ``StoreError``, and ``ValueError`` for a time without time zone.
    """

    def __init__(self, database: Database) -> None:
        self._database = database


S = TypeVar("S", bound=Part)


def persistent(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Run a method that is one transaction again when the database's server went away in the middle of it.

    A transaction that was committed is never run twice: ``Database`` finds out.
    """

    @wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._database.persist(partial(method, self, *args, **kwargs))

    return call


def transactional(
    *, write: bool = False, durable: bool = True
) -> Callable[[Callable[Concatenate[S, Connection, P], T]], Callable[Concatenate[S, P], T]]:
    """Run a method in ``Database.transaction(...)``, give it the connection, and make it ``persistent``."""

    def decorate(method: Callable[Concatenate[S, Connection, P], T]) -> Callable[Concatenate[S, P], T]:
        @persistent
        @wraps(method)
        def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
            with self._database.transaction(write=write, durable=durable) as connection:
                return method(self, connection, *args, **kwargs)

        return call

    return decorate


def _passes(error: BaseException) -> bool:
    """Whether a retry may succeed. There is no SQLSTATE where a server does not answer at all."""
    state = getattr(error, "sqlstate", None)
    return type(error).__name__ == "OperationalError" if state is None else str(state).startswith(_PASSING)


def _migrations() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config


@cache
def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_migrations())
