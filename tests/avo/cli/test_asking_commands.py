"""``avo stop``, ``avo pause`` and ``avo resume`` of a run that another process drives."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from avo.lineage_db.records import Request
from avo.lineage_db.store import Store
from avo.search.run import utc_now
from tests.avo.cli.conftest import Avo
from tests.avo.fakes import make_run


@pytest.fixture
def driven(tmp_path: Path, avo: Avo, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A database whose run ``fake`` is driven elsewhere, for another hour; commands use it."""
    with Store.open(str(tmp_path / "driven.db")) as store:
        store.driving.take(make_run(store).id, "box:7", now=utc_now(), lease=timedelta(hours=1))
        monkeypatch.setenv("AVO_DB", store.url)
        yield store


def requested(store: Store) -> Request:
    return store.run("fake").request


def test_stop_asks_the_driver_once_and_now_asks_for_more(driven: Store, avo: Avo) -> None:
    assert avo("stop", "fake").exit_code == 0
    assert requested(driven) is Request.STOP
    result = avo("stop", "fake", "--now")
    assert (result.exit_code, result.stderr) == (0, "avo: run 'fake' is asked to stop at once\n")
    assert requested(driven) is Request.STOP_NOW
    paused = avo("pause", "fake")
    assert (paused.exit_code, paused.stderr.count("\n")) == (2, 1)
    assert "was asked to stop" in paused.stderr


def test_a_paused_run_says_so_and_resume_ends_the_pause(driven: Store, avo: Avo) -> None:
    assert "avo resume fake" in avo("pause", "fake").stderr
    assert json.loads(avo("runs", "--json").stdout)[0]["state"] == "paused"
    changed = avo("resume", "fake", "--max-attempts", "9")
    assert (changed.exit_code, requested(driven)) == (2, Request.PAUSE)
    result = avo("resume", "fake")
    assert (result.exit_code, result.stderr) == (0, "avo: run 'fake' continues where it is driven: box:7\n")
    assert requested(driven) is Request.NONE


def test_stopping_can_wait_for_the_end(driven: Store, avo: Avo, monkeypatch: pytest.MonkeyPatch) -> None:
    run = driven.run("fake")
    monkeypatch.setattr("time.sleep", lambda seconds: driven.driving.release(run.id, "box:7", now=utc_now()))
    assert avo("stop", "fake", "--wait").exit_code == 0
    assert driven.run("fake").driver is None


@pytest.mark.parametrize("command", ["stop", "pause"])
def test_a_run_that_nobody_drives_is_one_line(avo: Avo, command: str) -> None:
    result = avo(command, "mha-h100")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "no process works on it" in result.stderr
