"""Commands that only read a database never change it."""

from typing import Any

import pytest

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
