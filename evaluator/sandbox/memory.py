"""Shares this machine's free memory among the fork servers on it.

A job may take a fixed amount, far more than compiling takes, so that the verdict on what exceeds it is the same on all
machines. Where less is free, a job gets less, and what fails for want of the rest is the machine's fault.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.temporary import living

FOLDER = "sandbox"  # the kind of temporary folder that each fork server has
MOST_BYTES, LEAST_BYTES = 2 * 2**30, 2**29
"""The limit for a job, and what is too little for one. Measured on x86-64 with Triton 3.9: the jobs of seeds take up to
0.35 GiB, half of it shared with the server, those of ``seeds/mha/plain`` with its loop unrolled 32 times 0.61 GiB.
"""
WAIT_S = 60.0  # for enough memory
ADVICE = "lower --workers or --evaluators, or run fewer other programs"
ROOT = Path("/")
_CGROUPS = (
    ("sys/fs/cgroup", "memory.max", "memory.current", ""),
    ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
)
"""Where versions 2 and 1 of cgroups keep a limit and the usage, and how statistics that include subgroups begin."""


def share(most: int, least: int) -> int:
    """Return how many bytes, of ``most``, a job may take now. Waits for this to be ``least``.

    Raises ``EvaluatorUnavailable`` where that takes too long.
    """
    until = time.monotonic() + WAIT_S
    while (each := (free := free_bytes()) // (servers := max(1, living(FOLDER)))) < least:
        if time.monotonic() >= until:
            has = f"{free / 2**30:.3g} GiB of free memory for {servers} processes that run jobs of candidates"
            needs = f"each of which needs {least / 2**30:.3g} GiB"
            raise EvaluatorUnavailable(f"this machine has {has}, {needs}: {ADVICE}")
        time.sleep(1.0)
    return min(most, each)


def free_bytes() -> int:
    """Return how much memory can be had without swapping: the machine's, or that of a cgroup that has less."""
    return min([1024 * _figures("proc/meminfo").get("MemAvailable", sys.maxsize), *_free_in_cgroups()])


def kills() -> int:
    """Return how many processes the kernel has ended for want of memory since the machine started."""
    return _figures("proc/vmstat").get("oom_kill", 0)


def _free_in_cgroups() -> Iterator[int]:
    """Yield the free memory of this process's cgroups and those above; a container may see its own as the root."""
    groups = (line.split(":", 2) for line in _text("proc/self/cgroup").splitlines())
    paths = {Path(name[1:]) for _, controllers, name in groups if controllers in ("", "memory")}
    for mount, limit, usage, prefix in _CGROUPS:
        for folder in {f"{mount}/{each}" for path in paths for each in (path, *path.parents)}:
            with suppress(ValueError):  # none here, or "max"
                free = int(_text(f"{folder}/{limit}")) - int(_text(f"{folder}/{usage}"))
                stat = _figures(f"{folder}/memory.stat")
                files = sum(stat.get(f"{prefix}{kind}_file", 0) for kind in ("inactive", "active"))  # can be dropped
                yield max(0, free + files)


def _figures(name: str) -> dict[str, int]:
    """Return the figures in a file that has a name and a figure in each line."""
    return {words[0].rstrip(":"): int(words[1]) for line in _text(name).splitlines() if (words := line.split())}


def _text(name: str) -> str:
    with suppress(OSError):
        return (ROOT / name).read_text()
    return ""
