"""``avo doctor``."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from avo import doctor
from avo.doctor import Health, check_database
from evaluator import bubblewrap

Avo = Callable[..., Result]


def test_a_machine_that_can_run_is_exit_code_0_and_the_key_stays_secret(
    avo: Avo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    result = avo("doctor", "--json")
    assert result.exit_code == 0, result.output
    checks = {check["name"]: check for check in json.loads(result.stdout)}
    for name in ("triton", "ptxas", "nvdisasm", "sandbox", "compiler", "database", "OPENAI_API_KEY"):
        assert checks[name]["health"] == "ok", checks[name]
    assert "sm_90" in checks["compiler"]["found"]
    assert "2 runs" in checks["database"]["found"]
    assert "secret" not in result.output


def test_a_broken_part_is_exit_code_1_and_says_what_to_do(avo: Avo, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database, but long enough to be read as one: " * 40)
    result = avo("doctor", "--db", "text.db")
    assert result.exit_code == 1
    assert "a run does not work here yet: database" in result.stderr
    assert "--db or AVO_DB" in result.stdout


def test_a_database_that_does_not_exist_yet_is_fine(tmp_path: Path) -> None:
    check = check_database(str(tmp_path / "new" / "lineage.db"))
    assert check.health is Health.OK
    assert list(tmp_path.iterdir()) == []


def test_a_machine_without_namespaces_can_run_and_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap, "missing", lambda: "bubblewrap is not installed")
    check = next(iter(doctor._isolation()))
    assert (check.name, check.health) == ("namespaces", Health.ABSENT)
    assert check.found == "none for candidates: bubblewrap is not installed"
    assert "apt-get install bubblewrap" in check.advice
    monkeypatch.setattr(bubblewrap, "missing", lambda: "")
    assert next(iter(doctor._isolation())).health is Health.OK
