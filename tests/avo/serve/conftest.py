"""The served page over a sample database, and a client that has its token."""

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from avo.lineage_db.store import Store
from avo.serve.app import make_app
from avo.serve.reading import Reader
from tests.avo.report.hostile import make_hostile_run
from tests.avo.sample_run import START, make_sample_run

TOKEN = "a-token-of-the-tests"


def no_judge(run: object) -> Any:
    """Start no judge: what is not asked for must not need one."""
    raise AssertionError("nobody asked for a profile")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of the database that each test gets a copy of."""
    url = str(tmp_path_factory.mktemp("served") / "lineage.db")
    make_sample_run(url)
    make_sample_run(url, attempts=64)
    with Store.open(url) as store:
        make_hostile_run(store)
    return url


@pytest.fixture
def db(made: str, tmp_path: Path) -> str:
    """The URL of a database with the runs mha-h100 (8 attempts), mha-h100-2 (64 attempts) and hostile."""
    return str(shutil.copy(made, tmp_path))


@pytest.fixture
def client(db: str) -> Any:
    """A client of the page, with the token."""
    return client_of(Reader(db, lambda: START))


def client_of(reader: Reader, profiler: Any = no_judge) -> Any:
    """Return a client of the page with the token."""
    testclient = pytest.importorskip("starlette.testclient")
    app = make_app(reader, TOKEN, lambda: START, profiler)
    return testclient.TestClient(app, headers={"authorization": f"Bearer {TOKEN}"})


def make_long(url: str, runs: int, attempts: int) -> None:
    """Add sample runs until there are ``runs``, the last of which has ``attempts`` attempts: copies of faulty ones."""
    for _ in range(runs):
        name = make_sample_run(url)
    with sqlite3.connect(url) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(attempts)")]
        taken = [{"id": "8 + n", "source": "'x = 1'"}.get(column, column) for column in columns]
        connection.execute(
            f"WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {attempts - 8}) "
            f"INSERT INTO attempts ({', '.join(columns)}) SELECT {', '.join(taken)} FROM numbers, attempts "
            "WHERE id = 3 + 2 * (n % 3) AND run_id = (SELECT id FROM runs WHERE name = ?)",
            (name,),
        )
