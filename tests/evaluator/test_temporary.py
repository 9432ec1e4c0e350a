"""Temporary folders: those of killed processes are removed by the next or a watcher, those of living ones are not."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from avo.evaluator.temporary import TemporaryFolder

KILLED = """
import os, sys
from avo.evaluator.temporary import TemporaryFolder
folder = TemporaryFolder("run", sys.argv[1])
inner = TemporaryFolder("judge", folder.name)
print(folder.name, inner.name, sep="\\n", flush=True)
os.kill(os.getpid(), 9)
"""

WATCHED = """
import sys
from avo.evaluator.temporary import TemporaryFolder
with TemporaryFolder("run", sys.argv[1], watched=True) as folder:
    print(folder, flush=True)
    input()
"""

PATIENCE_S = 600.0
"""Longest wait for what takes a second at most."""


@pytest.fixture
def left(tmp_path: Path) -> list[Path]:
    """The two folders that a killed process left, the second one in the first."""
    died = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, check=False)
    folders = [Path(line) for line in died.stdout.splitlines()]
    assert all(folder.exists() for folder in folders), died.stderr
    return folders


def test_a_folder_goes_with_its_context(tmp_path: Path) -> None:
    with TemporaryFolder("run", str(tmp_path)) as folder:
        assert [Path(folder)] == list(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_whoever_makes_the_next(tmp_path: Path, left: list[Path]) -> None:
    with TemporaryFolder("judge", str(tmp_path)) as folder:
        assert [Path(folder)] == list(tmp_path.iterdir())


def test_a_folder_goes_though_an_ending_process_still_writes_to_it(
    tmp_path: Path, left: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    remove, removed = shutil.rmtree, set()

    def disturbed(folder: Path | str, **options: Any) -> None:
        remove(folder, **options)
        if Path(folder) not in removed:
            removed.add(Path(folder))
            Path(folder).mkdir()
            Path(folder, "log").touch()

    monkeypatch.setattr(shutil, "rmtree", disturbed)
    with TemporaryFolder("judge", str(tmp_path)) as folder:
        assert [Path(folder)] == list(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []
    assert removed == {left[0], Path(folder)}


def test_folders_of_living_processes_stay_and_so_do_those_that_they_are_in(tmp_path: Path, left: list[Path]) -> None:
    with TemporaryFolder("judge", str(left[0])) as living, TemporaryFolder("run", str(tmp_path)) as other:
        assert [path.exists() for path in left] == [True, False]
        with TemporaryFolder("run", str(tmp_path)) as new:
            assert all(Path(folder).exists() for folder in (*left[:1], living, other, new))


def test_a_watched_folder_goes_when_its_process_is_killed_but_not_before_those_that_live_in_it(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", WATCHED, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert owner.stdout is not None
    folder = Path(owner.stdout.readline().strip())
    with TemporaryFolder("judge", str(folder)):
        os.killpg(owner.pid, signal.SIGKILL)
        owner.communicate()
        time.sleep(0.5)
        assert folder.exists()
    deadline = time.monotonic() + PATIENCE_S
    while folder.exists():
        assert time.monotonic() < deadline, "it stays"
        time.sleep(0.05)


def test_folders_that_are_not_locked_like_these_stay(tmp_path: Path) -> None:
    (tmp_path / "avo-export").mkdir()
    (tmp_path / "avo-run-old").mkdir()
    with TemporaryFolder("run", str(tmp_path)):
        assert {"avo-export", "avo-run-old"} < {path.name for path in tmp_path.iterdir()}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_what_another_user_left_stays(tmp_path: Path, left: list[Path]) -> None:
    os.chown(left[0], 12345, 12345)
    with TemporaryFolder("run", str(tmp_path)):
        assert left[0].exists()
