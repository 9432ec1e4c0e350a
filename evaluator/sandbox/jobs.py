"""The fork server, as the trusted side sees it: runs named jobs on untrusted input, each in a process of its own.

A long-lived child interpreter with a closed environment (``avo.evaluator.sandbox.forkserver``) imports the job modules
once; each job is a fork of it, so torch and triton are imported once. A job's result is bytes; whatever else it does,
including dying, hanging or writing nonsense, is an outcome. The result of a hostile job is hostile data.

All of it runs in namespaces (``avo.evaluator.sandbox.bubblewrap``) where the machine allows them.
"""

import contextlib
import ctypes
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, TypeAlias

from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.folders import ROOT
from avo.evaluator.sandbox import bubblewrap, memory, tools
from avo.evaluator.sandbox.forkserver import ENDED_WELL, HEADER_BYTES, PR_SET_DUMPABLE, frame
from avo.evaluator.sandbox.isolation import Sandbox
from avo.evaluator.sandbox.patience import MOST
from avo.evaluator.temporary import TemporaryFolder

START_S = 600.0
"""Importing torch and triton takes about a second, much more on a cold disk or a busy machine: this ends a hang."""
GRACE_S = 120.0
"""Seconds that the server may take to answer beyond the longest that a job may take."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one job may use."""

    wall_s: float
    """Seconds in which none of its processes runs or waits for a processor, see ``Patience``."""
    cpu_s: int
    """Seconds of processor time of all its processes together."""
    memory_bytes: int
    """Memory of all its processes together, and address space of each on top of what the fork inherits. Where the
    machine has less for a job, it gets less, and what fails for that reason is no outcome.
    """
    file_bytes: int
    """Largest file it may write."""
    open_files: int
    processes: int
    """Processes and threads, on top of those that the user has; the kernel does not limit root."""
    result_bytes: int
    confined: bool
    """Deny new programs, signals to other processes and any change to files, besides what is denied to every job."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The job returned."""

    result: bytes
    stderr: str
    """The end of what the job wrote there."""


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The job was killed at a limit of time, which ``reason`` names."""

    reason: str


@dataclass(frozen=True, slots=True)
class Crashed:
    """The job's process ended, or was ended, without a complete result."""

    reason: str
    stderr: str


class OutOfMemory(Crashed):
    """The job wanted more memory than it may take."""


Outcome: TypeAlias = Finished | TimedOut | Crashed


def hide() -> None:
    """Keep other processes of this user, except root's, from reading this one's memory and environment."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the kernel refuses to hide this process")


class _ServerDied(Exception):
    """The server closed its pipe or missed its deadline."""


class ForkServer:
    """Runs jobs named ``package.module:function``, functions from bytes to bytes, one at a time.

    Starts on first use. Safe to call from several threads. Close it, or leave that to garbage collection.
    """

    def __init__(self, modules: Sequence[str], path: Sequence[Path] = (), *, sandbox: Sandbox = Sandbox.AUTO) -> None:
        """Serve the functions of ``modules``, found on the interpreter's path or in the folders of ``path``."""
        self._modules = tuple(modules)
        self._path = tuple(path)
        self._sandbox = sandbox
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self.jobs = 0
        """Jobs asked for so far."""
        self.processor_s = 0.0
        """Seconds of processor time that jobs with an outcome have taken so far, if they left their server up."""

    def run(self, job: str, payload: bytes, limits: Limits) -> Outcome:
        """Run one job. Raises ``EvaluatorUnavailable`` when no server starts, or the machine has too little memory."""
        module, _, function = job.partition(":")
        request = {"module": module, "function": function}
        with self._lock:
            self.jobs += 1
            least = min(most := limits.memory_bytes, memory.LEAST_BYTES)
            self._started()  # it is one of those that share the memory
            for again in (True, False):
                kills, granted = memory.kills(), memory.share(most, least)
                outcome = self._outcome(request, payload, replace(limits, memory_bytes=granted))
                # A job ends so when it has written its result: on a machine with 20 times its load, one was missing.
                lost = isinstance(outcome, Crashed) and outcome.reason == ENDED_WELL
                killed = isinstance(outcome, Crashed) and memory.kills() != kills
                if killed or (isinstance(outcome, OutOfMemory) and granted < most):
                    least = most  # the machine's fault, not the job's
                elif not (lost and again):
                    self.processor_s += self._started().last_s
                    return outcome
            raise EvaluatorUnavailable(f"this machine has run out of memory twice: {memory.ADVICE}")

    def _outcome(self, request: dict[str, Any], payload: bytes, limits: Limits) -> Outcome:
        for _ in range(2):
            server = self._started()
            try:
                return server.run({**request, "limits": asdict(limits)}, payload, MOST * limits.wall_s + GRACE_S)
            except _ServerDied:
                self._stop()
        self._started()  # raises unless a fresh server comes up: then it was the job that brought the others down
        return Crashed("the job brought down the process that supervises it, twice", "")

    def close(self) -> None:
        """Stop the server and whatever it runs. A later ``run`` starts a new one."""
        with self._lock:
            self._stop()

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id of the running server."""
        return self._server.process.pid if self._server else None

    def _started(self) -> "_Server":
        if self._server is None:
            self._sandbox.check()
            self._server = _Server(self._modules, self._path)
        return self._server

    def _stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None


class _Server:
    def __init__(self, modules: tuple[str, ...], path: tuple[Path, ...]) -> None:
        namespaces = not bubblewrap.missing()
        folder = TemporaryFolder(memory.FOLDER)  # in namespaces for others to count
        work = bubblewrap.WORK if namespaces else folder.name
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in _stop_process
        command = [
            *(bubblewrap.command(path) if namespaces else ()),
            *(sys.executable, "-I", "-B", "-c"),
            "import sys; sys.path += sys.argv[2:]\n"
            "from avo.evaluator.sandbox.forkserver import serve; serve(sys.argv[1])",
            *(work, str(ROOT), *map(str, path)),
        ]
        starter = ThreadPoolExecutor(1)  # bubblewrap ends with the thread that starts it
        self.process: subprocess.Popen[bytes] = starter.submit(
            subprocess.Popen,
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd="/" if namespaces else folder.name,
            env=_environment(work),
            close_fds=True,
            start_new_session=True,
        ).result()
        self.stop = weakref.finalize(self, _stop_process, self.process, errors, folder, starter)
        self._errors = errors
        self.last_s = 0.0  # of processor time, that the last job took
        try:
            self._send(json.dumps({"modules": modules}).encode())
            self._receive(time.monotonic() + START_S, HEADER_BYTES)
        except _ServerDied:
            errors.seek(0)
            lines = errors.read()[-4000:].decode(errors="replace").strip().splitlines()
            self.stop()
            raise EvaluatorUnavailable(
                f"the sandbox server does not start: {lines[-1] if lines else 'it ended or hung without a message'}"
            ) from None

    def run(self, request: dict[str, Any], payload: bytes, wall_s: float) -> Outcome:
        deadline = time.monotonic() + wall_s
        self._send(json.dumps(request).encode())
        self._send(payload)
        header = json.loads(self._receive(deadline, HEADER_BYTES))
        body = self._receive(deadline, request["limits"]["result_bytes"])
        self.last_s = header["processor_s"]
        if header["outcome"] == "finished":
            return Finished(body, header["stderr"])
        if header["outcome"] == "timed_out":
            return TimedOut(header["reason"])
        return (OutOfMemory if header["outcome"] == "out_of_memory" else Crashed)(header["reason"], header["stderr"])

    def _send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(frame(data))
            self.process.stdin.flush()
        except OSError:
            raise _ServerDied from None

    def _receive(self, deadline: float, most: int) -> bytes:
        size = int.from_bytes(self._read(8, deadline), "big")
        if size > most:
            raise _ServerDied
        return self._read(size, deadline)

    def _read(self, size: int, deadline: float) -> bytes:
        assert self.process.stdout is not None
        pipe = self.process.stdout.fileno()
        data = bytearray()
        while len(data) < size:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(pipe, min(size - len(data), 1 << 20)) if ready else b""
            if not chunk:
                raise _ServerDied
            data += chunk
        return bytes(data)


def _environment(work: str) -> dict[str, str]:
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": work,
        "TMPDIR": work,
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "TRITON_DEFAULT_FP_FUSION": "1",
        **tools.chosen(),
    }


def _stop_process(
    process: "subprocess.Popen[bytes]",
    errors: IO[bytes],
    folder: TemporaryFolder,
    starter: ThreadPoolExecutor,
) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(OSError):  # unsent data for a dead server
        process.stdin.close()
    try:
        process.wait(timeout=10)  # it ends its job, then itself, when the pipe closes
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
    errors.close()
    folder.cleanup()
    starter.shutdown(wait=False)
