"""What tests of every room share: a fork server, and a PostgreSQL of their own, started when a test first asks."""

import gc
import os
import random
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pynvml
import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: its threads spin where other processes want the cores
os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 has its workers starve beside other tests

from avo.evaluator.renamed import FORMER
from avo.evaluator.serving.memory import keep_freed_memory
from tests import postgresql
from tests.processor_time import DearestTests

if TYPE_CHECKING:
    from avo.evaluator.sandbox.jobs import ForkServer

SOAK_SEED = "AVO_SOAK_SEED"
"""Environment variable with the seed of the long tests, which is fixed where it is not set."""

# How long an example takes is not what is tested, and what gates is the same in each run.
settings.register_profile(
    "gate",
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("search", settings.get_profile("gate"), derandomize=False)
settings.load_profile("gate")
keep_freed_memory()  # as a judge's process does: many tests judge
gc.set_threshold(10_000, 100)  # full collections go through torch, triton and all tests: freezing blinds hypothesis


def sees_gpus(marks: str) -> bool:
    """Return whether tests chosen by ``marks``, pytest's ``-m``, may use this machine's GPUs."""
    return not marks or re.search(r"(?<!not )\bgpu\b", marks) is not None


def _no_driver(name: str) -> NoReturn:
    raise OSError(f"{name}: hidden from tests")


def pytest_configure(config: pytest.Config) -> None:
    """Report which tests are dear, let each judge of this process draw the same inputs, and hide GPUs from tests that
    were written without one.
    """
    if not sees_gpus(config.option.markexpr):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        pynvml.CDLL = _no_driver
    config.pluginmanager.register(DearestTests())
    secrets.randbits = lambda bits: random.Random(0).getrandbits(bits)


@pytest.fixture(autouse=True)
def numbers_repeat() -> None:
    """Random numbers that a test draws are the same in each run."""
    random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(0)


@pytest.fixture(autouse=True)
def one_import_name() -> Iterator[None]:
    """No test imports a folder of the checkout, which is on the path, as a package of its own: it is ``avo``'s."""
    yield
    assert not {*FORMER} & sys.modules.keys()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Have a judge that several tests share draw the same in each of them, whichever have run before."""
    _draw_anew(item)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Have it draw the same for fixtures that the next test makes."""
    _draw_anew(item)


def _draw_anew(item: pytest.Item) -> None:
    judge = getattr(sys.modules.get("avo.evaluator.judging.judge"), "Judge", None)
    for value in getattr(item, "funcargs", {}).values():
        if judge is not None and isinstance(value, judge):
            value._tools.chance.seed(0)


@pytest.fixture(scope="session")
def fork_server() -> "Iterator[ForkServer]":
    """What judges, capturers and compilers run their jobs in: starting one takes seconds."""
    from avo.evaluator.judging.judge import JOB_MODULES
    from avo.evaluator.sandbox.jobs import ForkServer

    with ForkServer(JOB_MODULES) as server:
        yield server


@pytest.fixture(scope="session")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with the newest schema: copying it is cheaper than making one."""
    from avo.lineage_db.store import Store

    path = tmp_path_factory.mktemp("template") / "lineage.db"
    Store.open(str(path)).close()
    return path


@pytest.fixture(scope="session", autouse=True)
def new_databases_are_copies(request: pytest.FixtureRequest) -> Iterator[None]:
    """A new SQLite database begins as a copy of an empty one: hundreds of tests want one, and migrations take 40 ms.
    No commit to one waits for the disk, which thousands would.

    Only the tests of lineage_db run the migrations each time.
    """
    engine = sys.modules.get("avo.lineage_db.engine")
    if engine is None:  # no test uses a database, or there is no SQLAlchemy
        yield
        return
    empty = request.getfixturevalue("empty_file")
    connect = engine.sqlite

    def copying(path: Path, create: bool, *how: Any) -> Any:
        made = connect(path, create, *how)
        if create and not path.exists():
            with suppress(OSError):  # what is in the way is the test's subject
                shutil.copyfile(empty, path)
        return made

    transaction = engine.Database.transaction

    def cheap(self: Any, *, write: bool = False, durable: bool = True) -> Any:
        return transaction(self, write=write, durable=durable and not self.embedded)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "sqlite", copying)
        patch.setattr(engine.Database, "transaction", cheap)
        yield


@pytest.fixture(scope="session")
def cluster() -> Iterator[postgresql.Cluster]:
    """A running PostgreSQL; each process that runs tests has its own. Skips where there is none."""
    if lacking := postgresql.missing():
        pytest.skip(f"needs PostgreSQL: {lacking}")
    made = postgresql.Cluster()
    yield made
    made.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database of either kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/lineage.db"
        return
    with request.getfixturevalue("cluster").database() as made:
        yield made


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what to set to have the same random numbers again, and that PostgreSQL was not tested where it should be."""
    if seed := os.environ.get(SOAK_SEED):
        terminalreporter.write_line(f"{SOAK_SEED}={seed}")
    wanted = "not postgresql" not in terminalreporter.config.option.markexpr
    if wanted and (lacking := postgresql.missing()):
        terminalreporter.write_line(f"PostgreSQL was not tested: {lacking}", yellow=True)
