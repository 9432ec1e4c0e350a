"""How long to wait for processes: by what they do, so that a busy machine ends nothing that a quiet one lets finish.

This ends what does nothing: it counts the time between two looks of which neither finds a process that runs, waits for
a processor, or waits for a disk. What works is ended by a limit on its processor time: by one that the kernel keeps, or
here, where processor time counts too. Linux; /proc tells.
"""

import os
import re
import time
from contextlib import suppress

_CHILDREN = "/proc/thread-self/children"
_LOOK_S = 1.0
"""Seconds between looks at most; a look reads two small files of each thread that it is about."""
MOST = 10
"""Times the limit that passes in all before the wait ends all the same: what works a little at each look."""


class Patience:
    """Waits for ``root`` and all that it started for ``limit_s`` seconds in which they do nothing.

    ``itself``: whether what ``root`` does is looked at too. ``counting``: whether the processor time that they take
    counts too, that of all together, but never more than the time that passes, and all of this if they cannot be seen.
    """

    def __init__(self, root: int, limit_s: float, *, itself: bool, counting: bool = False) -> None:
        self._root, self._itself, self._limit_s = root, itself, limit_s
        counted = processor_s if os.path.exists(_CHILDREN) else lambda root: time.monotonic()
        self._taken_s = counted if counting else lambda root: 0.0
        self._counted_s, self._worked, self._worked_s = 0.0, False, self._taken_s(root)
        self._over = f"{limit_s:g} s" if counting else f"{limit_s:g} s in which it did nothing"
        self._began = self._looked = time.monotonic()
        self.look_s = min(_LOOK_S, limit_s / 4)
        """Seconds to wait until the next look."""

    def over(self) -> str:
        """Return why the wait is over, in words that go on with "after", or "" if it is not."""
        now = time.monotonic()
        if now - self._looked >= self.look_s:
            works, worked_s = at_work(self._root, itself=self._itself), self._taken_s(self._root)
            if works or self._worked:  # one look alone may come just as a process hands over to another
                self._counted_s += min(max(0.0, worked_s - self._worked_s), now - self._looked)
            else:
                self._counted_s += now - self._looked
            self._looked, self._worked, self._worked_s = now, works, worked_s
        if self._counted_s >= self._limit_s:
            return self._over
        return f"{MOST * self._limit_s:g} s" if now - self._began > MOST * self._limit_s else ""

    def leave_out(self) -> None:
        """Look, and count nothing since the look before."""
        now = time.monotonic()
        self._began += now - self._looked
        self._looked, self._worked_s = now, self._taken_s(self._root)


def at_work(root: int, *, itself: bool) -> bool:
    """Return whether a thread of ``root`` or of its descendants runs, or waits for a processor or a disk.

    So does all that cannot be seen, on a kernel without ``CONFIG_PROC_CHILDREN``.
    """
    if not os.path.exists(_CHILDREN):
        return True
    stats = (_read(f"{task}/stat") for pid in _tree(root)[not itself :] for task in _tasks(pid))
    return any(stat.rpartition(b")")[2].split()[:1] in ([b"R"], [b"D"]) for stat in stats)


def processor_s(root: int) -> float:
    """Return the seconds of processor time that ``root``, its descendants and those they waited for have taken.

    Those that cannot be seen, as in ``at_work``, count when they have been waited for.
    """
    stats = (_read(f"/proc/{pid}/stat").rpartition(b")")[2].split() for pid in _tree(root))
    return sum(sum(map(int, fields[11:15])) for fields in stats) / os.sysconf("SC_CLK_TCK")


def memory_bytes(root: int) -> int:
    """Return the memory of ``root`` and its descendants that is no file's; pages that several have count for each."""
    sizes = (re.findall(rb"^Rss(?:Anon|Shmem):\s*(\d+) kB", _read(f"/proc/{pid}/status"), re.M) for pid in _tree(root))
    return 1024 * sum(sum(map(int, each)) for each in sizes)


def _tree(root: int) -> list[int]:
    """Return ``root`` and its descendants."""
    tree = [root]
    for pid in tree:
        tree += (int(child) for task in _tasks(pid) for child in _read(f"{task}/children").split())
    return tree


def _tasks(pid: int) -> list[str]:
    with suppress(OSError):
        return [f"/proc/{pid}/task/{task}" for task in os.listdir(f"/proc/{pid}/task")]
    return []


def _read(path: str) -> bytes:
    """Return what a file says, nothing if its process or thread has ended."""
    with suppress(OSError), open(path, "rb") as file:
        return file.read()
    return b""
