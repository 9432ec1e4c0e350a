"""Commands that only read a database never change it; ``avo migrate`` brings an old one up to date."""

from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from lineage_db import migrations
from lineage_db.store import Store
from tests.avo.cli.conftest import Avo

READING = [
    ["runs"],
    ["status", "mha-h100"],
    ["log", "mha-h100"],
    ["lineage", "mha-h100"],
    ["attempts", "mha-h100"],
    ["show", "mha-h100"],
    ["diff", "mha-h100@0", "mha-h100"],
    ["compare", "mha-h100", "mha-h100-2"],
    ["memory", "mha-h100"],
    ["report", "mha-h100", "--format", "md"],
    ["git", "mha-h100", "--out", "repository"],
]


@pytest.mark.parametrize("arguments", READING, ids=lambda arguments: arguments[0])
def test_a_command_that_only_reads_opens_no_database_to_write(
    avo: Avo, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("opened to write")

    monkeypatch.setattr(Store, "open", refuse)
    result = avo(*arguments)
    assert result.exit_code == 0, result.output


def test_an_older_database_is_read_once_avo_migrate_has_brought_it_up_to_date(avo: Avo, tmp_path: Path) -> None:
    db = str(tmp_path / "old.db")
    config = Config()
    config.set_main_option("script_location", migrations.__path__[0])
    engine = create_engine(f"sqlite:///{db}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    refused = avo("runs", "--db", db)
    assert refused.exit_code == 2
    assert refused.stderr.endswith("bring it up to date with avo migrate\n")
    assert avo("migrate", "--db", db).stdout == f"{db} is up to date\n"
    assert avo("runs", "--db", db).exit_code == 0
