"""A throwaway PostgreSQL for tests: found on this machine, on a socket of its own, gone when its process ends."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

_USERS = ("postgres", "nobody")
"""Users who may own the server where the tests run as root, which PostgreSQL refuses."""
_PATIENCE_S = 600.0


def missing() -> str:
    """Return why no server can be started; nothing where one can."""
    if find_spec("psycopg") is None:
        return "psycopg is not installed"
    return "" if _programs() else "no initdb and postgres on PATH or below /usr/lib/postgresql"


class Cluster:
    """A server. Nothing that it holds survives, so nothing is synced to a disk."""

    def __init__(self) -> None:
        programs = _programs()
        assert programs is not None, missing()
        self._programs = programs
        # Below /tmp, whatever TMPDIR says: a socket's path may have 107 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="avo-pg-", dir="/tmp"))
        self._prefix = ["setpriv", "--pdeathsig", "INT"]
        if os.geteuid() == 0:
            user = next(entry for entry in pwd.getpwall() if entry.pw_name in _USERS)
            os.chown(self._folder, user.pw_uid, user.pw_gid)
            self._prefix += [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        data = self._folder / "data"
        self._run("initdb", "--pgdata", str(data), "--auth=trust", "--username=avo", "--no-sync", "--encoding=UTF8")
        self._command = [
            *self._prefix, str(programs / "postgres"), "-D", str(data), "-k", str(self._folder), "-h", "",
            "-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_connections=60", "-c", "jit=off",
        ]  # fmt: skip
        self._server: subprocess.Popen[bytes] | None = None
        self.start()

    def url(self, name: str = "postgres") -> str:
        """Return the URL of a database."""
        return f"postgresql://avo@/{name}?host={self._folder}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with (self._folder / "log").open("ab") as log:
            self._server = subprocess.Popen(self._command, stdout=log, stderr=log, cwd="/")
        deadline = time.monotonic() + _PATIENCE_S
        ready = [str(self._programs / "pg_isready"), "--quiet", "--host", str(self._folder)]
        while subprocess.run(ready, check=False).returncode:
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.05)

    def stop(self, mode: str = "INT") -> None:
        """Stop the server: INT breaks its connections, QUIT also leaves it to recover when it starts."""
        assert self._server is not None
        subprocess.run(["kill", f"-{mode}", str(self._server.pid)], check=True)
        self._server.wait(_PATIENCE_S)

    def close(self) -> None:
        """Stop the server and remove what it has."""
        if self._server is not None and self._server.poll() is None:
            self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """Yield the URL of a new database; ``template`` is the name of one to copy."""
        name = f"avo_{uuid.uuid4().hex}"
        self._sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield self.url(name)
        self._sql(f"DROP DATABASE {name} WITH (FORCE)")

    def _sql(self, statement: str) -> None:
        execute(self.url(), statement)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._prefix, str(self._programs / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", env={"LC_ALL": "C"})
        assert done.returncode == 0, done.stderr


def empty(url: str) -> None:
    """Remove every row of a lineage database, and start numbering anew."""
    from avo.lineage_db.tables import metadata

    execute(url, f"TRUNCATE {', '.join(metadata.tables)} RESTART IDENTITY CASCADE")


def execute(url: str, statement: str) -> None:
    """Have a server do something."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)  # type: ignore[call-overload]


def _programs() -> Path | None:
    """Return the newest folder with PostgreSQL's programs."""
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parts[-2]), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()), None)
