"""The fork server itself: a single-threaded process that forks one child per job and never runs a job's code.

Frames on both pipes are eight bytes of length, big-endian, then the data. Linux only.
"""

import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import re
import resource
import select
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from avo.evaluator.sandbox import capabilities, landlock
from avo.evaluator.sandbox.patience import Patience, memory_bytes, processor_s
from avo.evaluator.sandbox.seccomp import confine

HEADER_BYTES = 1 << 20
_STDERR_CHARS = 16_000
_STDERR_AT_ONCE = 1 << 20
"""Bytes: what a pipe holds at most, unless root enlarges it. A job that writes without end must not hold us up."""
_RESULT_FD = 3
_EXITED = "exited with code {} before giving a result"
ENDED_WELL = _EXITED.format(0)
"""Why a job crashed that ended as one that has given its result."""
_NO_MEMORY = re.compile(r"MemoryError|bad_alloc|LLVM ERROR: out of memory|Memory allocation failure")
"""How Python, C++, LLVM and NVIDIA's tools say that they got no memory."""

# linux/prctl.h
PR_SET_DUMPABLE, _PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 4, 1, 36, 38


def frame(data: bytes) -> bytes:
    """Return ``data`` with its length in front."""
    return len(data).to_bytes(8, "big") + data


def serve(folder: str) -> None:
    """Import the modules named in the first frame, then run jobs until standard input closes.

    Removes ``folder`` at the end, even when the parent was killed.
    """
    try:
        _serve()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _serve() -> None:
    requests, replies = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    start = _read_frame(requests)
    if start is None:
        return
    capabilities.drop()
    modules = {name: importlib.import_module(name) for name in json.loads(start)["modules"]}
    gc.freeze()  # keeps collections in the forks from copying the pages of everything imported
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for option, value in ((_PR_SET_NO_NEW_PRIVS, 1), (PR_SET_DUMPABLE, 0), (_PR_SET_CHILD_SUBREAPER, 1)):
        if prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl({option}) failed")
    _check_confinement()
    _write(replies, frame(b"ready"))
    while (header := _read_frame(requests)) is not None:
        payload = _read_frame(requests)
        if payload is None:
            return
        request = json.loads(header)
        function = getattr(modules[request["module"]], request["function"])
        reply, body = _run(functools.partial(function, payload), request["limits"], requests, prctl)
        _write(replies, frame(json.dumps(reply).encode()) + frame(body))


def _check_confinement() -> None:
    """Try the filter on a fork, so that a kernel without it is the machine's fault and not every candidate's."""
    pid = os.fork()
    if pid == 0:
        try:
            landlock.restrict(os.getcwd())
            confine()
            os._exit(0)
        except OSError:
            traceback.print_exc()
        finally:
            os._exit(1)
    if os.waitpid(pid, 0)[1] != 0:
        raise OSError("the kernel or the container refuses what candidates are confined by")


def _run(
    job: Callable[[], bytes], limits: dict[str, Any], requests: int, prctl: Callable[..., int]
) -> tuple[dict[str, Any], bytes]:
    before_s = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])  # for the user and the system
    folder = tempfile.mkdtemp(prefix="job-", dir=os.getcwd())
    result_read, result_write = os.pipe()
    error_read, error_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(job, limits, folder, result_write, error_write, prctl)
    os.close(result_write)
    os.close(error_write)
    errors = bytearray()
    try:
        end, result = _watch(pid, result_read, error_read, errors, requests, limits)
    finally:
        status = _kill_all(pid)
        # Between the last look at its stderr and its result the job may have said why; no one is left who writes.
        _take(error_read, errors, _STDERR_AT_ONCE)
        os.close(result_read)
        os.close(error_read)
        shutil.rmtree(folder, ignore_errors=True)
    if end == "hangup":
        raise SystemExit
    spent_s = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before_s
    common: dict[str, Any] = {"processor_s": spent_s, "stderr": errors[-_STDERR_CHARS:].decode(errors="replace")}
    code = os.waitstatus_to_exitcode(status)
    late = end == "processor time" or (end == "exit" and code == -signal.SIGXCPU)
    # LLVM catches that signal, marks what it is at as failed, and goes on: late is what took the time, however it ends.
    if late or spent_s >= limits["cpu_s"]:
        return common | {"outcome": "timed_out", "reason": f"used up {limits['cpu_s']} s of processor time"}, b""
    if end == "result":
        return common | {"outcome": "finished"}, result
    if end == "oversize":
        return common | {"outcome": "crashed", "reason": "gave a result that is too large"}, b""
    if end == "memory" or (end == "exit" and _NO_MEMORY.search(common["stderr"])):
        most = f"the {limits['memory_bytes'] / 2**30:.3g} GiB that a job may take on any machine"
        return common | {"outcome": "out_of_memory", "reason": f"wanted more memory than {most}"}, b""
    if end != "exit":
        return common | {"outcome": "timed_out", "reason": f"still running after {end}"}, b""
    reason = _EXITED.format(code) if code >= 0 else f"was ended by signal {signal.Signals(-code).name}"
    return common | {"outcome": "crashed", "reason": reason}, b""


def _child(
    job: Callable[[], bytes],
    limits: dict[str, Any],
    folder: str,
    result: int,
    errors: int,
    prctl: Callable[..., int],
) -> NoReturn:
    """Run the job in the forked process. Never returns; whatever goes wrong ends in an exit code without a result."""
    try:
        os.setsid()
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # the files in /proc of what is not are root's
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
            score.write("1000")  # where memory runs out, a job is the first to go, and not an idle server
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
        null = os.open(os.devnull, os.O_RDWR)  # a job may change the flags of what is open: share nothing with the next
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.dup2(errors, 2)
        os.dup2(result, _RESULT_FD)
        os.closerange(_RESULT_FD + 1, os.sysconf("SC_OPEN_MAX"))
        os.chdir(folder)
        os.environ.update(HOME=folder, TMPDIR=folder, TRITON_HOME=folder)
        tempfile.tempdir = folder
        _limit(limits)
        landlock.restrict(folder)
        confine(programs=not limits["confined"])
        _write(_RESULT_FD, frame(job()))
        os._exit(0)
    except BaseException:
        os.write(2, traceback.format_exc()[-_STDERR_CHARS:].encode(errors="replace"))
    finally:
        os._exit(1)


def _limit(limits: dict[str, Any]) -> None:
    with open("/proc/self/statm") as statm:
        mapped = int(statm.read().split()[0]) * resource.getpagesize()
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_NOFILE, limits["open_files"]),
        (resource.RLIMIT_NPROC, _tasks_of_user() + limits["processes"]),
        (resource.RLIMIT_AS, mapped + limits["memory_bytes"]),
    ):
        resource.setrlimit(kind, (most, most))
    # SIGXCPU at the soft limit tells why; a process that ignores it is killed at the hard one.
    resource.setrlimit(resource.RLIMIT_CPU, (limits["cpu_s"], limits["cpu_s"] + 5))


def _tasks_of_user() -> int:
    """Count the processes and threads of this user that can be seen, which is what the kernel's limit counts.

    Root has no limit: 0.
    """
    tasks = 0
    if os.getuid() == 0:
        return tasks
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{entry}/status", encoding="ascii", errors="replace") as file:
            facts = dict(line.split(":", 1) for line in file)
            tasks += int(facts["Threads"]) if int(facts["Uid"].split()[0]) == os.getuid() else 0
    return tasks


def _watch(
    pid: int, result_fd: int, error_fd: int, errors: bytearray, requests: int, limits: dict[str, Any]
) -> tuple[str, bytes]:
    """Return how the job ended (result, oversize, exit, hangup, by what it used up, or after what time it did not) and
    its result.

    What it writes to stderr meanwhile is appended to ``errors``, of which the end is kept.
    """
    patience = Patience(os.getpid(), limits["wall_s"], itself=False)
    most_s = processor_s(os.getpid()) + limits["cpu_s"]
    result = bytearray()
    exited = os.pidfd_open(pid)
    poll = select.poll()
    for fd, events in ((result_fd, select.POLLIN), (error_fd, select.POLLIN), (exited, select.POLLIN), (requests, 0)):
        if fd in (result_fd, error_fd):
            os.set_blocking(fd, False)
        poll.register(fd, events)

    end = ""
    while not end:
        ready = {fd for fd, _ in poll.poll(patience.look_s * 1000)}
        for fd, into, most in (
            (error_fd, errors, _STDERR_AT_ONCE),
            (result_fd, result, limits["result_bytes"] + 8),
        ):
            if _take(fd, into, most):
                with contextlib.suppress(KeyError):  # its end was seen before
                    poll.unregister(fd)
        del errors[:-_STDERR_CHARS]
        size = int.from_bytes(result[:8], "big") if len(result) >= 8 else None
        if size is not None and size <= limits["result_bytes"] and len(result) >= 8 + size:
            end = "result"
        elif len(result) > 8 and (size is None or size > limits["result_bytes"]):
            end = "oversize"
        elif requests in ready:
            end = "hangup"
        elif exited in ready:
            end = "exit"
        elif memory_bytes(pid) > limits["memory_bytes"]:  # of all its processes: the kernel limits each
            end = "memory"
        elif processor_s(os.getpid()) > most_s:
            end = "processor time"
        else:
            end = patience.over()
    os.close(exited)
    return end, bytes(result[8 : 8 + (size or 0)])


def _take(fd: int, into: bytearray, most: int) -> bool:
    """Read what is there, until ``into`` is longer than ``most``. Return whether that is all there will be."""
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(fd, 1 << 16):
            into += chunk
            if len(into) > most:
                return False
        return True
    return False


def _kill_all(pid: int) -> int:
    """Kill the job's process group and what left it: orphans become our children. Return the job's status."""
    status = 0
    victims = {pid}
    while True:
        for victim in victims:
            for kill in (os.killpg, os.kill):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    kill(victim, signal.SIGKILL)
        try:
            while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
                if ended[0] == pid:
                    status = ended[1]
        except ChildProcessError:
            return status
        time.sleep(0.001)
        victims = _children()


def _children() -> set[int]:
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as stat:
                    parent = int(stat.read().rpartition(b")")[2].split()[1])
            except OSError:
                continue
            if parent == os.getpid():
                found.add(int(entry))
    return found


def _read_frame(fd: int) -> bytes | None:
    head = _read(fd, 8)
    return None if head is None else _read(fd, int.from_bytes(head, "big"))


def _read(fd: int, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        chunk = os.read(fd, min(size - len(data), 1 << 20))
        if not chunk:
            return None
        data += chunk
    return bytes(data)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
