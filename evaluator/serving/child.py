"""Child processes that answer lines with lines; one is ended together with all that it started."""

import contextlib
import os
import queue
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import IO

from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.renamed import with_new_name

START_S = 600.0
"""How long a child may take to say its first line: it may import torch on a busy machine, or be on another one."""
_END_S = 3.0
_KILL_S = 20.0
"""How long a killed process may take to end: a driver frees its memory first."""
ENVIRONMENT = frozenset(
    {"PATH", "HOME", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "OMP_NUM_THREADS"}
    | {"CC", "CXX", "CPATH", "C_INCLUDE_PATH", "LIBRARY_PATH"}  # Triton's launcher is compiled in the GPU worker
)
_PREFIXES = ("LC_", "PYTHON", "CUDA_", "NVIDIA_", "TRITON_")
"""Variables of this process's environment that a child gets; API keys are not among them."""


def environment(names: Collection[str] = ENVIRONMENT) -> dict[str, str]:
    """Return the variables that a child may have: those with ``names``, and those that configure Python and CUDA."""
    return {name: value for name, value in os.environ.items() if name in names or name.startswith(_PREFIXES)}


class Child:
    """One process in a session of its own. It writes a line when it is ready, and then one for each line it is asked.

    Raises ``EvaluatorUnavailable`` when there is no such command, calling the process ``name``.
    """

    end_s = 3.0
    """How long it may take to end in good order."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], name: str, log: IO[bytes] | None = None
    ) -> None:
        """``log`` gets what it writes to standard error, of which there are no last words then."""
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if log is None else log,
                encoding="utf-8",
                errors="replace",
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise EvaluatorUnavailable(f"{name} does not start: {command[0]}: {error.strerror}") from None
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._errors: deque[str] = deque(maxlen=20)
        self._readers = [self._read(self._process.stdout, self._lines.put, end="")]
        if log is None:
            self._readers.append(self._read(self._process.stderr, self._errors.append, end=None))
        self._name = name

    @cached_property
    def ready(self) -> str:
        """Its first line, for which this waits. Raises ``EvaluatorUnavailable`` when there is none."""
        try:
            line = self.next_line(START_S)
            trouble = "" if line else with_new_name(self.last_words())
        except TimeoutError:
            trouble = f"silent for {START_S:g} s"
        if trouble:
            self.kill()
            raise EvaluatorUnavailable(f"{self._name} does not start: {trouble}")
        return line

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ask(self, line: str, wall_s: float) -> str:
        """Return the answer to ``line``, or "" when the process died; raise ``TimeoutError`` after ``wall_s``."""
        return self.next_line(wall_s) if self.tell(line) else ""

    def tell(self, line: str) -> bool:
        """Pass ``line`` on; return whether the process was there to take it."""
        assert self._process.stdin is not None
        if self._process.stdin.closed:
            return False
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return False
        return True

    def code(self, wall_s: float) -> int | None:
        """Return its exit code, negative for the signal that killed it; None if it does not end in ``wall_s``."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=wall_s)
        return self._process.returncode

    def last_words(self) -> str:
        """Return how the process ended and the last line it wrote to standard error."""
        if (code := self.code(5)) is None:
            return "it does not answer"
        self._readers[-1].join(_END_S)
        ending = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"{ending}; {self._errors[-1].strip()}" if self._errors else ending

    def end(self) -> None:
        """Let the process finish and remove its files; kill it if it is busy."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self.code(self.end_s)
        self.kill()

    def kill(self) -> bool:
        """Kill the process group, and return whether the process ended: one that waits in a driver may not."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        ended = self.code(_KILL_S) is not None
        for reader in self._readers:
            reader.join(_END_S)  # with a limit: what left the group, as ssh's shared connection does, may hold the pipe
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        return ended

    def next_line(self, wall_s: float) -> str:
        """Return the next line it writes, or "" when it died; raise ``TimeoutError`` after ``wall_s``."""
        try:
            return self._lines.get(timeout=wall_s)
        except queue.Empty:
            raise TimeoutError from None

    @staticmethod
    def _read(pipe: IO[str] | None, put: Callable[[str], None], end: str | None) -> threading.Thread:
        def read() -> None:
            assert pipe is not None
            with pipe:
                for line in pipe:
                    put(line)
            if end is not None:
                put(end)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        return thread
