"""A database that fails: what is said, what is waited for, and that nothing is written by halves or twice."""

import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, make_url

from avo.evaluator.sandbox import bubblewrap
from avo.lineage_db.engine import Database
from avo.lineage_db.errors import DatabaseUnavailable
from avo.lineage_db.records import StepState
from avo.lineage_db.store import Store
from tests import postgresql
from tests.decisions import ACCEPTED, accept
from tests.postgresql import Cluster

PATIENCE_S = 600.0


class Fault:
    """Does something once, at a point of a writing transaction, when it is armed."""

    def __init__(self, point: str, act: Callable[[], object]) -> None:
        self.point = point
        self.act = act
        self.armed = False

    def __call__(self, point: str) -> None:
        if self.armed and point == self.point:
            self.armed = False
            self.act()


def opened(url: str, fault: Callable[[str], None] = lambda point: None, patience_s: float = PATIENCE_S) -> Store:
    return Store(Database(url, create=True, busy_seconds=patience_s, watch=fault))


# SQLite


@contextmanager
def most_pages(path: Path) -> Iterator[None]:
    """SQLite's own limit: what it says then is what it says when the disk is full."""
    with closing(sqlite3.connect(path)) as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]

    def limit(connection: Any, record: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages + 3}")

    event.listen(Engine, "connect", limit)
    yield
    event.remove(Engine, "connect", limit)


@contextmanager
def largest_file(path: Path) -> Iterator[None]:
    """The kernel's limit: writes fail in the middle."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def no_room() -> Iterator[None]:
    """The kernel's limit: no file can grow, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("killed", [False, True])
def test_a_full_disk_can_be_read_with_what_the_log_holds_and_not_be_written(
    tmp_path: Path, make: Any, killed: bool
) -> None:
    path, copy = tmp_path / "lineage.db", tmp_path / "copy.db"
    with Store.open(str(path)) as store:
        run = make.run(store)
        for end in ("", "-wal") if killed else ():
            shutil.copy(f"{path}{end}", f"{copy}{end}")
    if not killed:
        shutil.copy(path, copy)
    with no_room():
        with pytest.raises(DatabaseUnavailable, match=f"^the disk of database {copy} is full: nothing is lost, make"):
            Store.open(str(copy))
        with Store.read(str(copy)) as store, Store.read(str(copy)) as other:
            assert [each.run for each in store.runs()] == [each.run for each in other.runs()] == [run]
    with Store.open(str(copy)) as store:
        assert make.step(store, run).number == 0


def test_a_reader_from_before_the_disk_was_full_keeps_no_other_out(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "lineage.db"
    with Store.open(str(path)) as store:
        run = make.run(store)
    early = Database(str(path), read_only=True)
    with Store(early) as store:
        early.close()  # what it opens from now on it opens without room
        with no_room():
            assert [each.run for each in store.runs()] == [run]
            with Store(Database(str(path), read_only=True, busy_seconds=0.1)) as other:
                assert [each.run for each in other.runs()] == [run]


def test_a_full_disk_without_room_for_a_file_is_read_unless_a_log_would_be_left_out(
    tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lineage.db"
    with Store.open(str(path)) as store:
        run = make.run(store)
    sound = sqlite3.connect

    def connect(name: str, **options: Any) -> sqlite3.Connection:
        if "immutable" not in name:
            raise sqlite3.OperationalError("unable to open database file")
        return sound(name, **options)

    monkeypatch.setattr(sqlite3, "connect", connect)
    with Store.read(str(path)) as store:
        assert [each.run for each in store.runs()] == [run]
    Path(f"{path}-wal").write_text("what a killed run wrote")
    with pytest.raises(DatabaseUnavailable, match="cannot be read"):
        Store.read(str(path))


IN_A_FULL_FOLDER = """
import shutil, sys
from avo.lineage_db.errors import StoreError
from avo.lineage_db.store import Store
from pathlib import Path

database, elsewhere, full = map(Path, sys.argv[1:])
there = Path(shutil.copy(database, full))
try:
    (full / "fill").write_bytes(bytes(10**7))
except OSError:
    pass
with Store.read(str(there)) as store:
    print(*(each.run.name for each in store.runs()))
    store.upkeep.back_up(elsewhere)
    try:
        store.upkeep.back_up(full / "out.db")
    except StoreError as error:
        print(error)
"""


@pytest.mark.long
@pytest.mark.skipif(bool(bubblewrap.missing()), reason="bubblewrap does not work here")
def test_a_full_file_system_is_read_and_backed_up_from_and_named_where_it_is_written(tmp_path: Path, make: Any) -> None:
    path, full, backup = tmp_path / "lineage.db", tmp_path / "full", tmp_path / "backup.db"
    with Store.open(str(path)) as store:
        make.run(store, "one")
    full.mkdir()
    command = ["bwrap", "--bind", "/", "/", "--dev", "/dev", "--size", "1000000", "--tmpfs", str(full)]
    command += [sys.executable, "-c", IN_A_FULL_FOLDER, str(path), str(backup), str(full)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.stdout.splitlines() == ["one", f"{full}/out.db cannot be written: No space left on device"], said.stderr
    with Store.read(str(backup)) as store:
        assert [each.run.name for each in store.runs()] == ["one"]


@pytest.mark.parametrize(
    ("limit", "words"),
    [(most_pages, "^the disk of database .* is full: nothing is lost, make room"), (largest_file, "disk I/O error")],
)
def test_a_full_disk_is_said_and_all_that_was_written_is_whole(
    tmp_path: Path, make: Any, limit: Callable[[Path], Any], words: str
) -> None:
    path = tmp_path / "lineage.db"
    with Store.open(str(path)) as store:
        run = make.run(store)
        step = make.step(store, run)
    written: list[object] = []

    def write(store: Store) -> None:
        while len(written) < 20:
            written.append(make.attempt(store, step, 6.0, source=f"x = '{len(written)}{'y' * 5000}'"))

    with limit(path), Store.open(str(path)) as store, pytest.raises(DatabaseUnavailable, match=words):
        write(store)
    with Store.open(str(path)) as store:
        assert store.attempts(run.id) == written
        make.attempt(store, step, 7.0)
        assert len(store.attempt_summaries(run.id)) == len(written) + 1
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_database_that_may_not_be_written_is_said(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "lineage.db"
    with Store.open(str(path)) as store:
        run = make.run(store)

    def forbid(connection: Any, record: object) -> None:
        connection.execute("PRAGMA query_only = ON")  # root may write to any file

    event.listen(Engine, "connect", forbid)
    with Store.open(str(path)) as store:
        event.remove(Engine, "connect", forbid)
        with pytest.raises(
            DatabaseUnavailable, match="cannot be opened for writing: check the path and its permissions"
        ):
            make.step(store, run)
        assert store.steps(run.id) == []


def test_a_lock_that_is_let_go_in_time_costs_nothing_but_time(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "lineage.db"
    with opened(str(path)) as store, closing(sqlite3.connect(path, check_same_thread=False)) as other:
        run = make.run(store)
        other.isolation_level = None
        other.execute("BEGIN IMMEDIATE")
        release = threading.Timer(0.3, other.rollback)
        release.start()
        assert make.step(store, run).number == 0
        release.join()


# PostgreSQL


@pytest.fixture(scope="module")
def weak() -> Iterator[Cluster]:
    """A server that tests may stop."""
    if lacking := postgresql.missing():
        pytest.skip(f"needs PostgreSQL: {lacking}")
    made = Cluster()
    yield made
    made.close()


def write_everything(store: Store, make: Any, fault: Fault) -> None:
    """Write in every way there is, each time with the fault, and check that each write is there once."""
    run = make.run(store)

    def hit(write: Callable[[], Any]) -> Any:
        fault.armed = True
        found = write()
        assert not fault.armed
        return found

    step = hit(lambda: make.step(store, run))
    attempt = hit(lambda: make.attempt(store, step, 5.0))
    assert hit(lambda: store.claims.announce(step.id, "d", now=make.now))
    hit(lambda: store.journal.add_message(step.id, "message", {"a": 1}, now=make.now))
    usage = {"model": "m", "input_tokens": 5, "cached_tokens": 0, "output_tokens": 1, "usd": 0.5, "seconds": 1.0}
    hit(lambda: store.journal.add_call(run.id, step.id, **usage, error="", now=make.now))
    version = hit(lambda: make.conclude(store, step, attempt, decide=accept))
    other = hit(lambda: make.step(store, run))
    hit(lambda: store.claims.fail(other.id, state=StepState.FAILED, reason="r", now=make.now))
    assert [found.state for found in store.steps(run.id)] == [StepState.DONE, StepState.FAILED]
    assert store.attempts(run.id) == [version.attempt] == [replace(attempt, decision=ACCEPTED)]
    assert store.versions(run.id) == [version]
    assert len(store.journal.messages(step.id)) == 1
    assert store.journal.spend(run.id).usd == 0.5


@pytest.mark.postgresql
@pytest.mark.parametrize("point", ["commit", "committed"])
def test_a_connection_lost_at_any_write_loses_and_doubles_nothing(cluster: Cluster, make: Any, point: str) -> None:
    def cut() -> None:
        postgresql.execute(
            cluster.url(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'avo_%'"
        )

    fault = Fault(point, cut)
    with cluster.database() as url, opened(url, fault) as store:
        write_everything(store, make, fault)


@pytest.mark.postgresql
@pytest.mark.parametrize("done", [False, True])
def test_a_commit_whose_answer_is_lost_is_done_once(cluster: Cluster, make: Any, done: bool) -> None:
    broken: list[bool] = []

    def break_off(connection: Connection) -> None:
        if broken == [False]:
            broken[0] = True
            if done:
                connection.connection.commit()
            number = connection.connection.driver_connection.info.backend_pid  # type: ignore[union-attr]
            postgresql.execute(cluster.url(), f"SELECT pg_terminate_backend({number}, 600000)")

    event.listen(Engine, "commit", break_off)
    with cluster.database() as url, opened(url) as store:
        run = make.run(store)
        step = make.step(store, run)
        broken.append(False)
        attempt = make.attempt(store, step, 5.0)
        event.remove(Engine, "commit", break_off)
        assert broken == [True]
        assert store.attempts(run.id) == [attempt]
        assert store.revision(run.id)[1] == 2


def end_snapshots(cluster: Cluster) -> None:
    """End the connections that are in a transaction and wait for it."""
    idle = "datname LIKE 'avo_%' AND state = 'idle in transaction'"
    postgresql.execute(cluster.url(), f"SELECT pg_terminate_backend(pid, 600000) FROM pg_stat_activity WHERE {idle}")


@pytest.mark.postgresql
def test_a_snapshot_whose_connection_is_lost_is_read_again_whole(cluster: Cluster, make: Any) -> None:
    with cluster.database() as url, opened(url) as store, opened(url) as other:
        run = make.run(store)

        def read() -> list[int]:
            seen.append(len(store.attempts(run.id)))
            if len(seen) == 1:
                make.attempt(other, make.step(other, run), 5.0)
                end_snapshots(cluster)
            return [seen[-1], len(store.attempts(run.id))]

        seen: list[int] = []
        assert store.snapshot(read) == [1, 1]
        assert seen == [0, 1]


@pytest.mark.postgresql
def test_a_snapshot_whose_connection_is_lost_after_the_reading_is_not_read_again(cluster: Cluster, make: Any) -> None:
    with cluster.database() as url, opened(url) as store:
        run = make.run(store)

        def read() -> int:
            seen.append(len(store.attempts(run.id)))
            if len(seen) == 1:
                end_snapshots(cluster)
            return len(seen)

        seen: list[int] = []
        assert store.snapshot(read) == 1
        assert seen == [0]
        assert store.attempts(run.id) == [], "the next reading has a connection of its own"


@pytest.mark.postgresql
def test_a_server_that_restarts_in_the_middle_of_a_write_is_waited_for(
    weak: Cluster, make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    stopped = threading.Event()

    def stop() -> None:
        weak.stop("QUIT")
        stopped.set()

    fault = Fault("commit", stop)
    with weak.database() as url, opened(url, fault) as store:
        run = make.run(store)
        step = make.step(store, run)
        fault.armed = True
        writer = threading.Thread(target=make.attempt, args=(store, step, 5.0))
        writer.start()
        assert stopped.wait(PATIENCE_S)
        while f"trying again for {PATIENCE_S:g} s" not in caplog.text:
            time.sleep(0.05)
        weak.start()
        writer.join()
        assert len(store.attempts(run.id)) == 1


@pytest.mark.postgresql
def test_a_server_that_stays_away_is_given_up_in_one_line_and_waited_for_once(
    weak: Cluster, make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with weak.database() as url, opened(url, patience_s=0.3) as store:
        run = make.run(store)
        for outage in (1, 2):
            weak.stop()
            for _ in range(3):
                with pytest.raises(DatabaseUnavailable, match=r"check the URL and the server \(tried for 0\.3 s\)$"):
                    make.step(store, run)
            assert caplog.text.count("trying again for 0.3 s") == outage
            weak.start()
            make.step(store, run)


@pytest.mark.postgresql
def test_a_server_that_only_lets_read_is_said(cluster: Cluster, make: Any) -> None:
    with cluster.database() as url:
        with opened(url) as store:
            run = make.run(store)
        postgresql.execute(url, f"ALTER DATABASE {make_url(url).database} SET default_transaction_read_only = on")
        with opened(url) as store, pytest.raises(DatabaseUnavailable, match="cannot be opened for writing"):
            make.step(store, run)
