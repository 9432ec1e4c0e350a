"""A sample run in a database of its own, and ``avo`` called in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from avo.cli.common import PIPED_WIDTH, console
from avo.cli.main import app
from tests.avo.sample_run import make_sample_run

Avo = Callable[..., Result]


@pytest.fixture(scope="session")
def sample_db(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a database with the runs mha-h100 (8 attempts) and mha-h100-2 (16 attempts)."""
    url = str(tmp_path_factory.mktemp("sample") / "lineage.db")
    make_sample_run(url)
    make_sample_run(url, attempts=16)
    return url


@pytest.fixture
def avo(sample_db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Avo:
    """Call ``avo`` with arguments, on the sample database unless they name another."""
    monkeypatch.setenv("AVO_DB", sample_db)
    monkeypatch.setattr(console, "width", PIPED_WIDTH)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(app, arguments)

    return call
