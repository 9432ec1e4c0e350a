"""Processor time: of each test, reported by pytest, and of whole commands, by ``python -m tests.processor_time``."""

import ctypes
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest

SHOWN = 15
"""How many of the dearest tests are reported."""
STRAYS_S = 60.0
"""How long to wait for the processes that a command leaves behind."""
TICKS = os.sysconf("SC_CLK_TCK")
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def used() -> float:
    """Return the seconds of processor time of this process and all its descendants, those that run and those waited
    for.
    """
    own = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own + _used_by_children(os.getpid()) / TICKS


def _used_by_children(pid: int) -> int:
    ticks = 0
    with suppress(OSError):  # it ends meanwhile
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                with suppress(OSError):
                    fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
                    ticks += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime; see proc_pid_stat(5)
                    ticks += _used_by_children(child)
    return ticks


class DearestTests:
    """A plugin of pytest that reports which tests and folders took the most processor time, in whatever process they
    ran.

    What a shared fixture costs is counted as part of the first test that asks for it.
    """

    def __init__(self) -> None:
        self._last = used()
        self._seconds: dict[str, float] = {}

    def pytest_collection_finish(self) -> None:
        """Count no import and no collecting as part of the first test."""
        self._last = used()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Note in the report of a test's last phase what was used since the test before."""
        report = yield
        if report.when == "teardown":
            now = used()
            report.processor_s, self._last = now - self._last, now
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what a test used. A worker that died has told of nothing."""
        if report.when == "teardown":
            self._seconds[report.nodeid] = getattr(report, "processor_s", 0.0)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """List the dearest tests, and what the tests of each folder took together."""
        if not self._seconds:
            return
        terminalreporter.section(f"the {SHOWN} dearest tests, in seconds of processor time")
        dearest = sorted(self._seconds.items(), key=lambda item: -item[1])[:SHOWN]
        for name, seconds in dearest:
            terminalreporter.write_line(f"{seconds:7.1f}  {name}")
        folders: dict[str, list[float]] = defaultdict(list)
        for name, seconds in self._seconds.items():
            folders[name.partition("::")[0].rpartition("/")[0]].append(seconds)
        terminalreporter.section("the tests of each folder, in seconds of processor time")
        for folder, tests in sorted(folders.items(), key=lambda item: -sum(item[1])):
            terminalreporter.write_line(f"{sum(tests):7.1f}  {folder}: {len(tests)} tests")
        total = sum(self._seconds.values())
        terminalreporter.write_line(f"{total:7.1f}  all {len(self._seconds)} tests")


def main(commands: list[str]) -> int:
    """Run the commands, scripts of this interpreter's environment, until one fails; say what processor time each took.

    Processes that a command leaves behind are waited for, so that they are counted.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C goes to the command as well, which ends by itself
    took = {}
    before = 0.0
    for command in commands:
        name, *arguments = shlex.split(command)
        status = subprocess.run([Path(sys.executable).with_name(name), *arguments]).returncode
        _wait_for_strays()
        now = used()
        took[command], before = now - before, now
        if status:
            break
    for command, seconds in took.items():
        print(f"{seconds:7.1f} s of processor time  {command}")
    print(f"{sum(took.values()):7.1f} s of processor time in all")
    return status


def _wait_for_strays() -> None:
    deadline = time.monotonic() + STRAYS_S
    with suppress(ChildProcessError):  # none is left
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
