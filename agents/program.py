"""A user's program: an agent that is started in a folder of its own, and ended with all that it started."""

import os
import select
import subprocess
import sys
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO

from avo.agents import keeper

TAIL_CHARS = 16_000
"""How many characters of what a program writes are kept, for each of its two streams: the last ones."""
_ENVIRONMENT = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TERM", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"}
    | {"NODE_EXTRA_CA_CERTS", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"}
)
_PREFIXES = ("LC_", "XDG_")
"""Variables that a program gets unasked: no keys, no addresses of databases, nothing of Ray's."""
_END_S = keeper.PARTING_S + 10
_READ_BYTES = 1 << 16


def environment(of: Mapping[str, str], also: Collection[str]) -> dict[str, str]:
    """Return what a program gets of the environment ``of``: also the variables that the user names."""
    return {
        name: value for name, value in of.items() if name in _ENVIRONMENT or name in also or name.startswith(_PREFIXES)
    }


class Program:
    """A shell command that runs until it ends or is ended."""

    def __init__(self, command: str, folder: Path, environment: Mapping[str, str]) -> None:
        code, told = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-I", keeper.__file__, command, str(told)],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(told,),
        )
        os.close(told)
        self._code = os.fdopen(code, "rb")
        self.code: int | None = None
        """Its exit code; None while it runs."""
        self.stdout, self.stderr = _Tail(self._process.stdout), _Tail(self._process.stderr)
        self._process.wait()

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        self.wait(0)
        return self.code is None

    def wait(self, seconds: float) -> None:
        """Wait until it ends by itself, at most this long."""
        if self.code is None and select.select([self._code], [], [], seconds)[0]:
            self.code = int(self._code.read() or -1)  # nothing where its keeper was killed

    def end(self) -> None:
        """End it with all that it started, and read what it wrote last."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self.wait(_END_S)
        self._code.close()
        self.stdout.close()
        self.stderr.close()

    @property
    def last_line(self) -> str:
        """The last line that it wrote, on standard error if there is one."""
        lines = (line.strip() for text in (self.stdout.text, self.stderr.text) for line in text.splitlines())
        return next(reversed([line for line in lines if line]), "it wrote nothing")


class _Tail:
    """The end of what comes out of a pipe."""

    def __init__(self, pipe: IO[bytes] | None) -> None:
        assert pipe is not None
        self._pipe, self._kept = pipe, bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        return bytes(self._kept).decode(errors="replace")[-TAIL_CHARS:]

    def close(self) -> None:
        self._thread.join(_END_S)

    def _read(self) -> None:
        with self._pipe:
            while chunk := os.read(self._pipe.fileno(), _READ_BYTES):
                self._kept += chunk
                del self._kept[: -4 * TAIL_CHARS]
