"""Opening a lineage database: what is created, migrated or refused, and in which words."""

import json
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, make_url, text

from avo.evaluator.evaluation import CaseResult
from avo.evaluator.sandbox import bubblewrap
from avo.lineage_db import migrations
from avo.lineage_db.decision import Decision, Ruling
from avo.lineage_db.engine import REVISION_TABLE, Database
from avo.lineage_db.errors import DatabaseUnavailable, IncompatibleDatabase, StoreError
from avo.lineage_db.records import RunState, StepState
from avo.lineage_db.seen import Answer
from avo.lineage_db.store import Store
from avo.lineage_db.tables import metadata


def connect(url: str) -> Any:
    drivername = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}[make_url(url).get_backend_name()]
    return create_engine(make_url(url).set(drivername=drivername))


# Migrations


def test_the_migrations_make_the_tables_the_code_uses(url: str) -> None:
    Store.open(url).close()
    engine = connect(url)
    with engine.connect() as connection:
        options = {"version_table": REVISION_TABLE, "compare_type": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
        found = inspect(connection)
        for table in metadata.tables.values():
            foreign = {(key["name"], *key["constrained_columns"]) for key in found.get_foreign_keys(table.name)}
            assert foreign == {(key.name, *key.column_keys) for key in table.foreign_key_constraints}
            assert found.get_pk_constraint(table.name)["name"] == table.primary_key.name
    engine.dispose()


OLD = "2026-01-02 03:04:05.000000"
"""A time, as every database takes it."""


def insert(connection: Any, table: str, **values: Any) -> None:
    names = ", ".join(values)
    connection.execute(
        text(f"INSERT INTO {table} ({names}) VALUES ({', '.join(f':{name}' for name in values)})"), values
    )


def fill(connection: Any, make: Any, revision: str) -> None:
    """Put in a run of four steps, as the AVO that had this schema left it when it was killed."""
    start = {"source": "x = 0"}
    insert(
        connection, "runs", id=7, name="old", problem="mha", target="h100", suite="paper", operator="mutate", seed=3,
        config=json.dumps({"start": start if revision < "0010" else [start]}), state="running", created=OLD,
        updated=OLD, changes=9,
    )  # fmt: skip
    for number, state in enumerate(("done", "abandoned", "done", "running")):
        turns = {"turn": number, "unfinished": int(state == "abandoned")} if revision >= "0005" else {}
        insert(
            connection, "steps", id=number + 1, run_id=7, number=number, worker="w0", operator="mutate", state=state,
            started=OLD, finished=None if state == "running" else OLD, reason=f"step {number}", **turns,
        )  # fmt: skip
    for number, tflops in enumerate((4.0, 6.0)):
        cases = (CaseResult("odd", True, 1e-3, 2e-4, 'not "lse_error" at all'),)
        evaluation = json.dumps(replace(make.evaluation(tflops, message=""), cases=cases).to_json())
        if revision < "0013":
            evaluation = evaluation.replace('"absolute_error"', '"lse_error"')
        insert(
            connection, "attempts", id=number + 1, run_id=7, step_id=2 * number + 1, digest=f"{number}" * 64,
            plan_digest=None, status="correct", message="", geomean_tflops=tflops, seconds=1.5, change="tile",
            parents=json.dumps([0] * number), started=OLD, finished=OLD,
            evaluation=evaluation, source=f"x = {number}".encode(),
        )  # fmt: skip
        step = {"step": 2 * number} if revision >= "0007" else {}
        step |= {"niche": "", "champion": True} if revision >= "0015" else {}
        insert(
            connection, "versions", run_id=7, number=number, attempt_id=number + 1, parents=json.dumps([0] * number),
            accepted=OLD, **step,
        )  # fmt: skip
    of_run = {"run_id": 7} if revision >= "0015" else {}
    if revision >= "0003":
        insert(connection, "hypotheses", attempt_id=2, text="larger tiles", **of_run)
        said = {"attempt_id": 2, "change": "tiles of 128", "hypothesis": "", "expected": "+9%", "seen": "+50%"}
        connection.execute(text("UPDATE steps SET submission = :said WHERE id = 3"), {"said": json.dumps(said)})
        insert(connection, "messages", step_id=4, number=0, kind="message", written=OLD, content='{"role": "user"}')
    if revision >= "0008":
        insert(connection, "decisions", attempt_id=2, run_id=7, ruling="accepted", sentence="faster", gain=0.5)
    if revision >= "0010":
        for number, attempt in enumerate((1, None)):
            insert(
                connection, "answers", step_id=3, number=number, digest=f"{5 * number}" * 64, attempt_id=attempt,
                **of_run,
            )  # fmt: skip
    if revision >= "0011":
        insert(connection, "origins", attempt_id=2, built_on=1, **of_run)
    if revision >= "0012":
        insert(
            connection, "looks", id=1, run_id=7, step_id=3, digest="7" * 64, geomean_tflops=5.0, doubt=1.0,
            change="tile", parents="[0]", made=OLD,
        )  # fmt: skip


REVISIONS = [f"{number:04}" for number in range(1, 23)]


@pytest.mark.parametrize(
    "revision", [pytest.param(each, marks=pytest.mark.long if each != REVISIONS[0] else ()) for each in REVISIONS]
)
def test_a_database_of_an_earlier_schema_keeps_what_it_has_and_goes_on(url: str, make: Any, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__path__[0])))
    engine = connect(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        fill(connection, make, revision)
    engine.dispose()
    with Store.open(url) as store:
        run = store.run("old")
        assert (run.seed, run.state_at(make.now), run.ended_by) == (3, RunState.INTERRUPTED, None)
        assert run.config == {"start": [{"source": "x = 0"}]}, "a run has several seeds since 0010"
        assert [version.attempt.evaluation.geomean_tflops for version in store.versions(run.id)] == [4.0, 6.0]
        assert {case.absolute_error for each in store.attempts(run.id) for case in each.evaluation.cases} == {2e-4}
        assert [attempt.version for attempt in store.attempt_summaries(run.id)] == [0, 1]
        assert [version.step_number for version in store.versions(run.id)] == [0, 2]
        said = ("tiles of 128", "+50%") if "0003" <= revision < "0011" else ("tile", "")
        assert [(version.change, version.seen) for version in store.versions(run.id)] == [("tile", ""), said]
        assert store.attempts(run.id)[1].source == "x = 1"
        decided = Decision(Ruling.ACCEPTED, "faster", 0.5, None) if revision >= "0008" else None
        assert [attempt.decision for attempt in store.attempt_summaries(run.id)] == [None, decided]
        assert store.attempts(run.id)[1].hypothesis == ("larger tiles" if revision >= "0003" else "")
        assert store.attempts(run.id)[1].built_on == (1 if revision >= "0011" else None)
        told = [Answer(2, "0" * 64, 1), Answer(2, "5" * 64, None)] if revision >= "0010" else []
        assert store.claims.answers(run.id) == told
        assert [look.critical for look in store.history(run.id).looks] == ([None] if revision >= "0012" else [])
        assert len(store.journal.messages(4)) == (1 if revision >= "0003" else 0)
        assert [(step.state, step.turn) for step in store.steps(run.id)] == list(
            zip(map(StepState, ("done", "abandoned", "done", "running")), range(4), strict=True)
        )
        store.claims.abandon_running(run.id, reason="killed", now=make.now)
        # A sequence of PostgreSQL does not know of the ids that were put in.
        if url.startswith("postgresql"):
            restart_sequences(url)
        again, fresh = make.step(store, run), make.step(store, run)
        assert (again.redoes, fresh.redoes, fresh.turn) == (3, None, 4)
        assert store.results.number_comparison(again.id, now=make.now) == 1
        assert make.attempt(store, again, 7.0, parents=(1,)).id == 3


def restart_sequences(url: str) -> None:
    engine = connect(url)
    with engine.begin() as connection:
        for table in ("runs", "steps"):
            connection.execute(text(f"SELECT setval('{table}_id_seq', (SELECT max(id) FROM {table}))"))
    engine.dispose()


def test_the_newest_schema_is_migrated_from_every_earlier_one() -> None:
    scripts = sorted(path.name[1:5] for path in Path(migrations.__path__[0], "versions").glob("r*.py"))
    assert scripts[:-1] == REVISIONS, "add the new one to the test above"


def test_opening_again_changes_nothing(url: str, make: Any) -> None:
    with Store.open(url) as store:
        run = make.run(store)
        make.version(store, run, 5.0)
    with Store.open(url) as store, Store.open(url, create=False) as other:
        assert store.run(run.name) == other.run(run.name) == run
        assert store.versions(run.id) == other.versions(run.id)


# Reading only


def test_who_reads_only_sees_what_others_write_and_can_write_nothing(url: str, make: Any) -> None:
    with Store.open(url) as store, closing(Database(url, read_only=True)) as database, Store.read(url) as reader:
        run = make.run(store)
        assert reader.run(run.name) == run
        with pytest.raises(StoreError), database.transaction(write=True) as connection:
            connection.execute(text("DELETE FROM runs"))
        assert reader.run(run.name) == run


def test_reading_leaves_nothing_beside_the_file(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "lineage.db"
    with Store.open(str(path)) as store:
        make.run(store)
    with Store.read(str(path)) as reader:
        assert len(reader.runs()) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["lineage.db"]


def test_an_older_schema_is_read_once_it_was_migrated(url: str, make: Any) -> None:
    with Store.open(url) as store:
        make.run(store)
    engine = connect(url)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {REVISION_TABLE} SET version_num = '0007'"))
    engine.dispose()
    with pytest.raises(
        IncompatibleDatabase, match=r"older AVO \(schema 0007, .*: bring it up to date with avo migrate"
    ):
        Store.read(url)


def test_a_database_that_is_missing_is_not_made_by_reading(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match="no database at"):
        Store.read(str(tmp_path / "lineage.db"))
    assert not list(tmp_path.iterdir())


needs_bubblewrap = pytest.mark.skipif(bool(bubblewrap.missing()), reason="bubblewrap does not work here")


def read_from_a_disk_that_cannot_be_written(path: Path) -> str:
    """Return the names of the runs there, or the error."""
    script = (
        "import sys; from avo.lineage_db.store import Store; from avo.lineage_db.errors import StoreError\n"
        "try: print(*(each.run.name for each in Store.read(sys.argv[1]).runs()))\n"
        "except StoreError as error: print(error)"
    )
    command = ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", sys.executable, "-c", script]
    return subprocess.run([*command, str(path)], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.long
@needs_bubblewrap
def test_a_database_on_a_disk_that_cannot_be_written_is_read_in_use_and_at_rest(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "lineage.db"
    with Store.open(str(path)) as store:
        make.run(store, "one")
        assert read_from_a_disk_that_cannot_be_written(path) == "one"
    assert read_from_a_disk_that_cannot_be_written(path) == "one"


@pytest.mark.long
@needs_bubblewrap
def test_a_copy_with_a_log_is_read_where_it_can_be_written(tmp_path: Path, make: Any) -> None:
    copy = tmp_path / "copy.db"
    with Store.open(str(tmp_path / "lineage.db")) as store:
        make.run(store, "one")
        for end in ("", "-wal"):
            shutil.copy(tmp_path / f"lineage.db{end}", f"{copy}{end}")
    assert read_from_a_disk_that_cannot_be_written(copy) == (
        f"database {copy} cannot be read: check the path and its permissions, or copy it and {copy}-wal to a folder of "
        "yours"
    )
    with Store.read(str(copy)) as reader:
        assert [each.run.name for each in reader.runs()] == ["one"]


# Refusing


def test_a_schema_of_a_newer_avo_is_refused(url: str) -> None:
    Store.open(url).close()
    engine = connect(url)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {REVISION_TABLE} SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(IncompatibleDatabase, match=r"was written by a newer AVO \(schema 9999, known up to \d{4}\)"):
        Store.open(url)


def test_a_database_of_something_else_is_refused_and_left_as_it_was(url: str) -> None:
    engine = connect(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE recipes (id INTEGER)"))
    for create in (True, False):
        with pytest.raises(IncompatibleDatabase, match="is a database of something else: choose an empty or a new one"):
            Store.open(url, create=create)
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == ["recipes"]
        if engine.dialect.name == "sqlite":
            assert connection.scalar(text("PRAGMA journal_mode")) == "delete"
    engine.dispose()


def test_an_empty_database_is_not_taken_for_one_unless_creating(url: str, tmp_path: Path) -> None:
    if url.startswith("sqlite"):
        (tmp_path / "lineage.db").touch()
    with pytest.raises(DatabaseUnavailable, match=r"no database at .*: start one with avo run$"):
        Store.open(url, create=False)
    Store.open(url).close()


def test_many_may_create_the_same_database_at_once(url: str) -> None:
    barrier, failures = threading.Barrier(6), []

    def open_it() -> None:
        barrier.wait()
        try:
            Store.open(url).close()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with Store.open(url, create=False) as store:
        assert store.runs() == []


# SQLite files


def test_a_missing_file_is_made_with_its_folder_only_when_creating(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lineage.db"
    with pytest.raises(DatabaseUnavailable, match=f"^no database at {path}: start one with avo run$"):
        Store.open(str(path), create=False)
    assert not path.parent.exists()
    Store.open(str(path)).close()
    assert path.exists()


@pytest.mark.parametrize("name", ["plain.db", "with space & 100%.db", "what?mode=ro#x.db", "a:b@c.db"])
def test_a_relative_path_of_any_characters_becomes_an_absolute_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for given in (name, f"sqlite:///{name}"):
        with Store.open(given) as store:
            make.run(store, store.free_run_name("a"))
            assert store.url == f"sqlite:///{tmp_path / name}"
    monkeypatch.chdir("/")
    with Store.open(store.url, create=False) as again:
        assert len(again.runs()) == 2
    assert {path.name for path in tmp_path.iterdir()} == {name}


def test_a_file_is_kept_in_wal_mode_with_foreign_keys_enforced(tmp_path: Path) -> None:
    with closing(Database(str(tmp_path / "a.db"), create=True)) as database, database.transaction() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_a_file_another_process_keeps_locked_is_given_up_with_advice(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    with closing(Database(path, create=True, busy_seconds=0.05)) as database, closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with (
            pytest.raises(DatabaseUnavailable, match=r"was locked by another process for 0.05 s: stop it or retry"),
            database.transaction(write=True),
        ):
            pass
        with database.transaction():
            other.rollback()


def test_a_new_file_someone_else_writes_is_waited_for_and_given_up_with_advice(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    with closing(sqlite3.connect(path, check_same_thread=False, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnavailable, match=r"was locked by another process for 0.05 s"):
            Database(path, create=True, busy_seconds=0.05)
        release = threading.Timer(0.2, writer.rollback)
        release.start()
        Database(path, create=True).close()
        release.join()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("dear diary\n" * 100)
    with pytest.raises(IncompatibleDatabase, match=f"^{path} is not an SQLite database: choose another path$"):
        Store.open(str(path))
    assert path.read_text() == "dear diary\n" * 100


def test_a_folder_is_not_a_database(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match="cannot be opened for writing: check the path and its permissions"):
        Store.open(str(tmp_path))


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatabaseUnavailable, match="choose another path for the database"):
        Store.open(str(tmp_path / "file" / "a" / "lineage.db"))


def test_a_place_nobody_may_write_to_is_refused() -> None:
    with pytest.raises(DatabaseUnavailable, match=r"cannot be opened for writing|cannot be made"):
        Store.open("/proc/lineage.db")


def test_a_damaged_database_is_one_clear_line(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "lineage.db"
    with Store.open(str(path)) as store:
        make.run(store)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    with (
        pytest.raises(DatabaseUnavailable, match=f"^database {path} failed \\(.*malformed\\): check the file"),
        Store.open(str(path)) as store,
    ):
        store.runs()


def test_an_evaluation_that_cannot_be_read_names_its_attempt(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "lineage.db"
    with Store.open(str(path)) as store:
        run = make.run(store)
        make.attempt(store, make.step(store, run))
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE attempts SET evaluation = '{}'")
        with pytest.raises(IncompatibleDatabase, match="the evaluation of attempt 1 cannot be read"):
            store.attempts(run.id)


# URLs


@pytest.mark.parametrize("url", ["mysql://me@host/db", "sqlite://", "nonsense://", "http://[", "://"])
def test_a_url_of_another_kind_is_refused_with_the_kinds_there_are(url: str) -> None:
    with pytest.raises(DatabaseUnavailable, match="give a file path, sqlite:///PATH or postgresql://USER@HOST/NAME"):
        Store.open(url)


def test_a_server_that_does_not_answer_is_named_without_its_password() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(DatabaseUnavailable) as caught:
        Store.open("postgresql://me:secret@127.0.0.1:1/db")
    assert "127.0.0.1:1/db" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert str(caught.value).endswith("check the URL and the server")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", [":memory:", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused(url: str) -> None:
    with pytest.raises(DatabaseUnavailable, match="cannot be shared between processes: give a file path"):
        Store.open(url)
