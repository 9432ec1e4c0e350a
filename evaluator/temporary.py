"""Temporary folders that do not stay when their process is killed: whoever makes the next one removes them.

    python -I temporary.py FOLDER

waits until the process of such a folder has ended, and removes it then if it is still there.
"""

import contextlib
import fcntl
import glob
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_LOCK = ".avo-lock"
"""A file in each folder, locked by the folder's process; the kernel drops the lock however the process ends."""

_TRIES = 10
"""How often a folder is removed that is not empty yet."""

_LOOK_S = 1.0
"""Time between two looks at whether processes still work in a folder whose own process was killed."""


class TemporaryFolder(tempfile.TemporaryDirectory[str]):
    """A new folder ``avo-KIND-...``, removed by ``cleanup`` or when the context ends.

    Those beside it whose processes were killed are removed now, unless a living process has such a folder in them.
    """

    def __init__(self, kind: str, parent: str | None = None, *, watched: bool = False) -> None:
        """Make it in the folder ``parent``, or where temporary files belong.

        One that is ``watched`` does not wait for the next if this process is killed: another removes it then.
        """
        parent = parent or tempfile.gettempdir()
        for lock in Path(parent).glob(f"avo-*/{_LOCK}"):
            if all(map(_abandoned, (lock, *lock.parent.glob(f"avo-*/{_LOCK}")))):
                _remove(lock.parent)
        super().__init__(prefix=f"avo-{kind}-", dir=parent, ignore_cleanup_errors=True)
        self._lock = open(Path(self.name, "lock"), "wb")  # noqa: SIM115 - as long as the folder is there
        with contextlib.suppress(OSError):  # some network file systems have no locks: nobody removes it there
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            os.rename(self._lock.name, Path(self.name, _LOCK))  # only now do others look at it
        self._watcher = _watcher(self.name) if watched else None

    def cleanup(self) -> None:
        """Remove the folder and what is in it."""
        _remove(Path(self.name))
        super().cleanup()
        self._lock.close()
        if self._watcher is not None:
            self._watcher.wait()


def living(kind: str) -> int:
    """Return how many folders of a kind the living processes of this user have on this machine, those in others too."""
    places = {f"{each}{run}" for each in (tempfile.gettempdir(), "/tmp") for run in ("", "/avo-*")}
    locks = {lock for each in places for lock in glob.glob(f"{each}/avo-{kind}-*/{_LOCK}")}
    return sum(not _abandoned(Path(lock)) for lock in locks)


def _watcher(folder: str) -> "subprocess.Popen[bytes]":
    """Start a process that removes a folder when this one has ended, in a session that no signal to ours reaches."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, folder],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _watch(folder: Path) -> None:
    """Remove a folder when its process has ended, and all processes that have such a folder in it."""
    with contextlib.suppress(OSError), Path(folder, _LOCK).open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        while not all(map(_abandoned, folder.glob(f"avo-*/{_LOCK}"))):
            time.sleep(_LOOK_S)
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a folder, also where a process that is about to end still puts something in it meanwhile."""
    for tried in range(_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.01 * 2**tried)


def _abandoned(lock: Path) -> bool:
    """Whether the folder of this lock is of a process of this user that has ended."""
    try:
        with lock.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock.parent.lstat().st_uid == os.geteuid()
    except OSError:
        return False


if __name__ == "__main__":
    _watch(Path(sys.argv[1]))
