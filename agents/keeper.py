"""Runs a shell command, and ends it with all that it started: a script of its own that needs the standard library only.

    python -I keeper.py COMMAND FD

Its standard input is a lifeline: when the other end closes it, on purpose or because it died, the command has to go.
The command gets SIGTERM first. What it started, in whatever session, becomes a child of this process, and is killed.

This process ends at once. What keeps the command is a child that it leaves, as Ray kills the children of a worker that
it ends. The child writes the command's exit code to the file descriptor FD: 128 and the signal's number where a signal
ended the command.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

PARTING_S = 3.0
"""How long the command may take to end after SIGTERM."""
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def run(command: str) -> int:
    """Run the command to its end, or until standard input closes; return its exit code."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with subprocess.Popen(["/bin/sh", "-c", command], stdin=subprocess.DEVNULL, start_new_session=True) as program:
        ended = os.pidfd_open(program.pid)
        select.select([sys.stdin.fileno(), ended], [], [])
        if program.poll() is None:
            os.killpg(program.pid, signal.SIGTERM)
            select.select([ended], [], [], PARTING_S)
        program.kill()
        code = program.wait()
    while children := _children():
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        time.sleep(0.01)
    return code if code >= 0 else 128 - code


def _children() -> list[int]:
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as stat:
            if int(stat.read().rpartition(b")")[2].split()[1]) == os.getpid():
                found.append(int(entry))
    return found


if __name__ == "__main__":
    if os.fork() == 0:
        os.setsid()
        os.write(int(sys.argv[2]), str(run(sys.argv[1])).encode())
