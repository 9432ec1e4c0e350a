"""Commands that only read a database never change it."""

from typing import Any

import pytest

from avo.doctor import Check, Health, check_database
from avo.lineage_db.store import Store
from tests.avo.cli.conftest import Avo

READING = [
    ["runs"], ["status", "mha-h100"], ["log", "mha-h100"], ["lineage", "mha-h100"], ["attempts", "mha-h100"],
    ["show", "mha-h100"], ["diff", "mha-h100@0", "mha-h100"], ["compare", "mha-h100", "mha-h100-2"],
    ["memory", "mha-h100"], ["report", "mha-h100", "--format", "md"], ["git", "mha-h100", "--out", "repository"],
]  # fmt: skip


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """No database can be opened to be written."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("opened to write")

    monkeypatch.setattr(Store, "open", refuse)


@pytest.mark.usefixtures("refused")
@pytest.mark.parametrize("arguments", READING, ids=lambda arguments: arguments[0])
def test_a_command_that_only_reads_opens_no_database_to_write(avo: Avo, arguments: list[str]) -> None:
    result = avo(*arguments)
    assert result.exit_code == 0, result.output


@pytest.mark.usefixtures("refused")
def test_a_run_is_replayed_from_a_database_that_is_only_read(avo: Avo) -> None:
    assert avo("replay", "none", "--recorded").stderr == "avo: no run 'none': choose one of mha-h100-2, mha-h100\n"


@pytest.mark.usefixtures("refused")
def test_doctor_only_reads_the_database(sample_db: str) -> None:
    assert check_database(sample_db) == Check("database", Health.OK, "2 runs, schema up to date")
