"""What tests of every room share: a fork server, and a PostgreSQL of their own, started when a test first asks."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from evaluator.serving.allocator import keep_freed_memory
from tests import postgresql

if TYPE_CHECKING:
    from evaluator.sandbox.jobs import ForkServer

settings.register_profile("shared machine", deadline=None)  # how long an example takes is not what is tested
settings.load_profile("shared machine")
keep_freed_memory()  # as a judge's process does: many tests judge
gc.set_threshold(10_000)  # full collections go through torch, triton and all tests; freezing these blinds hypothesis


@pytest.fixture(scope="session")
def fork_server() -> "Iterator[ForkServer]":
    """What judges, capturers and compilers run their jobs in: starting one takes seconds."""
    from evaluator.judging.judge import JOB_MODULES
    from evaluator.sandbox.jobs import ForkServer

    with ForkServer(JOB_MODULES) as server:
        yield server


@pytest.fixture(scope="session")
def cluster() -> Iterator[postgresql.Cluster]:
    """A running PostgreSQL; each process that runs tests has its own. Skips where there is none."""
    if lacking := postgresql.missing():
        pytest.skip(f"needs PostgreSQL: {lacking}")
    made = postgresql.Cluster()
    yield made
    made.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database of either kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/lineage.db"
        return
    with request.getfixturevalue("cluster").database() as made:
        yield made


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say that PostgreSQL was not tested, where it was not."""
    if lacking := postgresql.missing():
        terminalreporter.write_line(f"PostgreSQL was not tested: {lacking}", yellow=True)
