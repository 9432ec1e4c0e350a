"""Looking after a database and a run: backup, prune, migrate, service."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from avo.doctor import check_database
from avo.lineage_db import migrations
from avo.lineage_db.records import StepState
from avo.lineage_db.store import Store
from tests.avo.cli.conftest import Avo
from tests.avo.sample_run import START


def test_a_backup_is_a_database_as_it_was_at_that_moment(avo: Avo, sample_db: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    said = avo("backup", str(copy))
    assert (said.exit_code, said.stdout) == (0, f"{copy}: {copy.stat().st_size / 1e6:.1f} MB\n")
    assert avo("runs", "--db", str(copy)).stdout == avo("runs").stdout
    assert [file.name for file in tmp_path.iterdir()] == ["copy.db"]
    assert avo("backup", "--out", str(tmp_path / "other.db")).exit_code == 0
    assert (tmp_path / "other.db").exists()


def test_a_backup_names_one_file(avo: Avo) -> None:
    for wrong in ((), ("one.db", "--out", "two.db")):
        refused = avo("backup", *wrong)
        assert (refused.exit_code, refused.stderr) == (2, "avo: name one file to write: avo backup FILE\n")


def test_a_backup_is_written_over_nothing(avo: Avo, tmp_path: Path) -> None:
    (tmp_path / "copy.db").write_text("mine")
    refused = avo("backup", "--out", "copy.db")
    assert (refused.exit_code, refused.stderr) == (2, "avo: copy.db exists: choose another file\n")
    assert (tmp_path / "copy.db").read_text() == "mine"
    assert avo("backup", "--out", "missing/copy.db").stderr == (
        "avo: missing/copy.db cannot be written: No such file or directory\n"
    )


@pytest.fixture
def talkative(sample_db: str, tmp_path: Path) -> str:
    """A copy of the sample database in which the steps of mha-h100 have long transcripts."""
    db = str(tmp_path / "talkative.db")
    shutil.copy(sample_db, db)
    with Store.open(db) as store:
        run = store.run("mha-h100")
        step = store.claims.claim(run.id, worker="w0", operator="agent", now=START)
        for _ in range(50):
            store.journal.add_message(step.id, "message", {"text": os.urandom(20_000).hex()}, now=START)
        store.claims.fail(step.id, state=StepState.FAILED, reason="enough", now=START)
        store.claims.claim(run.id, worker="w0", operator="agent", now=START)
    return db


def test_pruning_drops_transcripts_and_nothing_else(avo: Avo, talkative: str) -> None:
    before, lineage = Path(talkative).stat().st_size, avo("lineage", "mha-h100", "--db", talkative).stdout
    runs = avo("runs", "--json", "--db", talkative).stdout
    assert avo("prune", "mha-h100", "mha-h100-2", "--db", talkative).stdout == (
        "mha-h100: 50 messages dropped\nmha-h100-2: 0 messages dropped\n"
    )
    assert Path(talkative).stat().st_size < before / 5
    assert avo("runs", "--json", "--db", talkative).stdout == runs, "they did not end just now"
    assert avo("lineage", "mha-h100", "--db", talkative).stdout == lineage
    assert len(json.loads(avo("attempts", "mha-h100", "--json", "--db", talkative).stdout)) == 8


def test_a_run_that_goes_on_is_not_pruned(avo: Avo, talkative: str) -> None:
    with Store.open(talkative) as store:
        run = store.run("mha-h100")
        store.driving.take(run.id, "box:7", now=START.replace(year=2999))
    refused = avo("prune", "mha-h100", "--db", talkative)
    assert refused.exit_code == 2
    assert "box:7" in refused.stderr


@pytest.mark.parametrize("hours", ["inf", "nan", "0", "9000"])
def test_the_hours_of_a_service_are_a_year_at_most(avo: Avo, hours: str) -> None:
    refused = avo("service", "mha-h100", "--max-hours", hours)
    assert (refused.exit_code, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert "Invalid value for '--max-hours'" in refused.stderr


def test_pruning_takes_whole_runs(avo: Avo, talkative: str) -> None:
    refused = avo("prune", "mha-h100@1", "--db", talkative)
    assert refused.exit_code == 2
    assert refused.stderr.endswith("this command is about a whole run: write mha-h100 without @VERSION\n")


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
    before = Path(db).read_bytes()
    assert check_database(db).found.endswith("bring it up to date with avo migrate")
    assert Path(db).read_bytes() == before, "avo doctor changes nothing"
    assert avo("migrate", "--db", db).stdout == f"{db} is up to date\n"
    assert avo("runs", "--db", db).exit_code == 0


def test_the_unit_for_systemd_is_one_that_systemd_accepts(
    avo: Avo, sample_db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder := tmp_path / "100% mine").mkdir()
    monkeypatch.chdir(folder)
    unit = avo("service", "mha-h100", "--max-hours", "12.5").stdout
    assert f"WorkingDirectory={tmp_path}/100%% mine\n" in unit
    assert f'Environment="AVO_DB=sqlite:///{sample_db}"\n' in unit
    assert 'avo" resume mha-h100 --max-attempts 1000000 --max-hours 12.5\n' in unit
    (place,) = re.findall(r"^# (/\S+\.service):", unit)
    assert place in "".join(avo("service", "--help").stdout.split()), "the help puts it elsewhere"
    if shutil.which("systemd-analyze"):
        (file := tmp_path / "avo-mha-h100.service").write_text(unit)
        found = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True, check=False)
        assert (found.returncode, found.stderr) == (0, "")


def test_the_script_for_slurm_runs_in_this_folder_with_this_database(
    avo: Avo, sample_db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder := tmp_path / "it's mine").mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    (program := tmp_path / "avo").write_text('#!/bin/sh\necho "$AVO_DB|$PWD|$*"\n')
    program.chmod(0o755)
    script = avo("service", "mha-h100", "--slurm", "--max-hours", "30").stdout
    assert "#SBATCH --time=1-06:00:00 " in script
    done = subprocess.run(["bash"], input=script, capture_output=True, text=True, check=True, cwd="/")
    words = "resume mha-h100 --max-attempts 1000000 --max-hours 30"
    assert done.stdout == f"sqlite:///{sample_db}|{folder}|{words}\n"
