"""A judge in a process of its own: what hangs or kills it costs one verdict, not the search."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import IO

from evaluator.candidate import Candidate
from evaluator.errors import EvaluatorUnavailable
from evaluator.evaluation import Evaluation, Status
from evaluator.problem import get_problem, get_suite
from evaluator.protocol import Request, verdict
from evaluator.sandbox import Sandbox
from evaluator.target import get_target

_ENVIRONMENT = frozenset({"PATH", "HOME", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "OMP_NUM_THREADS"})
_ENVIRONMENT_PREFIXES = ("LC_", "PYTHON", "CUDA_", "NVIDIA_", "TRITON_")
"""What a judge gets of this process's environment: no key is among it."""
_START_S = 120.0
_END_S = 3.0
_TRIES = 2
"""A judge that dies on a candidate is started anew this often in all; then the candidate is to blame."""


class ProcessEvaluator:
    """An evaluator that runs ``python -m evaluator`` as a child and restarts it when it dies.

    Not thread-safe. Raises ``UnknownTarget`` or ``UnknownProblem`` at once for names that are none.
    """

    def __init__(self, target: str, suite: str, wall_s: float = 300.0, *, sandbox: Sandbox = Sandbox.AUTO) -> None:
        self._target = get_target(target).name
        self._suite = suite
        self._sandbox = sandbox
        self._wall_s = wall_s
        self._child: _Child | None = None
        self._count = 0

    def evaluate(self, candidate: Candidate) -> Evaluation:
        """Return the verdict; no answer within ``wall_s`` seconds is ``TIMED_OUT``, a death ``CRASHED``."""
        get_suite(get_problem(candidate.problem), self._suite)
        self._count += 1
        request = Request(self._count, candidate)
        started = time.monotonic()
        last_words = ""
        for _ in range(_TRIES):
            child = self._running()
            try:
                line = child.ask(request.line(), self._wall_s)
            except TimeoutError:
                child.kill()
                self._child = None
                return self._fault(Status.TIMED_OUT, f"no verdict within {self._wall_s:g} s", started)
            if line:
                return verdict(request, line)
            last_words = child.last_words()
            self.close()
        return self._fault(Status.CRASHED, f"the judge's process died on this candidate: {last_words}", started)

    def close(self) -> None:
        """End the child process and everything it started."""
        if self._child:
            self._child.end()
            self._child = None

    def __enter__(self) -> "ProcessEvaluator":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _running(self) -> "_Child":
        if self._child is None:
            self._child = _Child(self._target, self._suite, self._sandbox)
        return self._child

    def _fault(self, status: Status, message: str, started: float) -> Evaluation:
        return Evaluation(status, message, self._target, self._suite, time.monotonic() - started)


class _Child:
    """One judge process; raises ``EvaluatorUnavailable`` when it does not come up."""

    def __init__(self, target: str, suite: str, sandbox: Sandbox) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "evaluator", "--target", target, "--suite", suite, "--sandbox", sandbox],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env=_environment(),
            start_new_session=True,
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._errors: deque[str] = deque(maxlen=20)
        self._readers = [
            self._read(self._process.stdout, self._lines.put, end=""),
            self._read(self._process.stderr, self._errors.append, end=None),
        ]
        try:
            ready = self._next_line(_START_S)
        except TimeoutError:
            ready = ""
        if not ready:
            words = self.last_words()
            self.kill()
            raise EvaluatorUnavailable(f"the judge's process does not start: {words}")

    def ask(self, line: str, wall_s: float) -> str:
        """Return the answer to ``line``, or "" when the process died; raise ``TimeoutError`` after ``wall_s``."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return ""
        return self._next_line(wall_s)

    def last_words(self) -> str:
        """Return how the process ended and the last line it wrote to standard error."""
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "it does not answer"
        self._readers[1].join(timeout=5)
        ending = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"{ending}; {self._errors[-1].strip()}" if self._errors else ending

    def end(self) -> None:
        """Let the process finish and remove its files; kill it if it is busy."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_END_S)
        self.kill()

    def kill(self) -> None:
        """Kill the process group and wait for its end."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for reader in self._readers:
            reader.join()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _next_line(self, wall_s: float) -> str:
        try:
            return self._lines.get(timeout=wall_s)
        except queue.Empty:
            raise TimeoutError from None

    @staticmethod
    def _read(pipe: IO[str] | None, put: Callable[[str], None], end: str | None) -> threading.Thread:
        def read() -> None:
            assert pipe is not None
            for line in pipe:
                put(line)
            if end is not None:
                put(end)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        return thread


def _environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name in _ENVIRONMENT or name.startswith(_ENVIRONMENT_PREFIXES)
    }
