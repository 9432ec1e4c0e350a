"""Whatever a job does, the parent gets an outcome, and nothing of the job is left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from evaluator import landlock
from evaluator.errors import EvaluatorUnavailable
from evaluator.sandbox import Crashed, Finished, ForkServer, Limits, Outcome, TimedOut

LIMITS = Limits(
    wall_s=30,
    cpu_s=20,
    memory_bytes=2**30,
    file_bytes=0,
    open_files=32,
    result_bytes=1 << 20,
    confined=True,
)
FREE = replace(LIMITS, confined=False)
JOBS = "sandbox_jobs"


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVO_SECRET", "a key of the parent")
        with ForkServer((JOBS,), path=[Path(__file__).parent]) as server:
            yield server


def run(server: ForkServer, code: str, limits: Limits = LIMITS) -> Outcome:
    return server.run(f"{JOBS}:run", code.encode(), limits)


def result(server: ForkServer, code: str, limits: Limits = LIMITS) -> str:
    outcome = run(server, code, limits)
    assert isinstance(outcome, Finished), outcome
    return outcome.result.decode()


def still_running(marker: str) -> list[str]:
    """Processes with ``marker`` in their command line."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                line = Path(f"/proc/{entry}/cmdline").read_bytes()
            except OSError:
                continue
            if marker.encode() in line:
                found.append(entry)
    return found


def test_the_result_comes_back(server: ForkServer) -> None:
    assert run(server, "result = b'x' * 1_000_000") == Finished(b"x" * 1_000_000, "")


def test_the_parents_environment_does_not_reach_the_job(server: ForkServer) -> None:
    names = result(server, "import os; result = ' '.join(sorted(os.environ)).encode()").split()
    assert "AVO_SECRET" not in names
    assert not [name for name in names if "KEY" in name or "PYTHON" in name]


def test_the_parents_files_do_not_reach_the_job(server: ForkServer) -> None:
    with open(__file__) as held:
        os.set_inheritable(held.fileno(), True)
        code = (
            "import os; fds = sorted(os.listdir('/proc/self/fd'), key=int)\n"
            "result = repr([(int(fd), os.readlink(f'/proc/self/fd/{fd}')) for fd in fds[:4]]"
            " + fds[5:]).encode()"
        )
        with ForkServer((JOBS,), path=[Path(__file__).parent]) as own:
            seen = eval(result(own, code))
    assert [fd for fd, _ in seen] == [0, 1, 2, 3]
    assert [name.partition(":")[0] for _, name in seen] == ["/dev/null", "/dev/null", "pipe", "pipe"]


def test_the_job_starts_in_an_empty_folder_that_does_not_outlive_it(server: ForkServer) -> None:
    code = "import os, tempfile; assert not os.listdir(); result = os.getcwd().encode(); os.mkdir('residue')"
    first, second = result(server, code, FREE), result(server, code, FREE)
    assert first != second
    assert not Path(first).exists()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os._exit(0)", "exited with code 0 before giving a result"),
        ("import os; os._exit(7)", "exited with code 7"),
        ("import sys; sys.exit(0)", "exited with code 1"),
        ("import os; os.closerange(0, 100)", "exited with code 1"),
        ("import os; os.write(3, b'\\0' * 7 + b'\\5abc'); os._exit(0)", "exited with code 0"),
        ("import os; os.write(3, b'\\xff' * 9)", "too large"),
        ("result = b'x' * (2 << 20)", "too large"),
        ("import os; os.abort()", "SIGABRT"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("bytearray(8 << 30)", "exited with code 1"),
        ("raise ValueError('of its own')", "exited with code 1"),
    ],
)
def test_a_job_that_ends_without_a_result_has_crashed(server: ForkServer, code: str, reason: str) -> None:
    outcome = run(server, code)
    assert isinstance(outcome, Crashed), outcome
    assert reason in outcome.reason


def test_a_crash_keeps_the_end_of_what_was_said(server: ForkServer) -> None:
    outcome = run(
        server, "import sys\nfor _ in range(9999): print('junk' * 99, file=sys.stderr)\nraise OSError('last')"
    )
    assert isinstance(outcome, Crashed)
    assert outcome.stderr.strip().endswith("OSError: last")
    assert len(outcome.stderr) < 20_000


def test_junk_on_the_standard_streams_does_not_spoil_the_result(server: ForkServer) -> None:
    code = "import os\nfor fd in (1, 2): os.write(fd, b'\\0\\xff' * 200_000)\nresult = b'kept'"
    assert result(server, code) == "kept"


def test_a_job_that_runs_on_is_killed_at_its_wall_limit(server: ForkServer) -> None:
    outcome = run(server, "import time; time.sleep(1000)", replace(LIMITS, wall_s=0.2))
    assert outcome == TimedOut("still running after 0.2 s")


def test_a_job_that_spins_is_killed_at_its_cpu_limit(server: ForkServer) -> None:
    assert run(server, "while True: pass", replace(LIMITS, cpu_s=1)) == TimedOut("used up 1 s of processor time")


def test_files_cannot_grow_beyond_the_limit(server: ForkServer) -> None:
    code = "import os; fd = os.open('f', os.O_CREAT | os.O_WRONLY)\ntry: os.write(fd, b'x')\nexcept OSError as e: "
    assert "File too large" in result(server, code + "result = str(e).encode()", FREE)


@pytest.mark.parametrize(
    "attempt",
    [
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "socket.socket()",
        "os.kill(os.getppid(), 0)",
        "os.kill(1, 0)",
        "resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))",
    ],
)
def test_a_confined_job_cannot_reach_other_processes(server: ForkServer, attempt: str) -> None:
    code = f"import os, resource, socket\ntry: {attempt}\nexcept PermissionError: result = b'refused'"
    assert result(server, code) == "refused"


@pytest.mark.parametrize(
    "attempt",
    [
        "open(path, 'w')",
        "open(path, 'r+')",
        "open(path, 'a')",
        "open(path + '.new', 'x')",
        "os.truncate(path, 0)",
        "os.rename(path, path + '.new')",
        "os.remove(path)",
        "os.mkdir(path + '.new')",
        "os.symlink('/', path + '.new')",
        "os.link(path, path + '.new')",
        "os.chmod(path, 0)",
        "os.utime(path)",
        "os.mkfifo(path + '.new')",
    ],
)
def test_a_confined_job_cannot_change_files(server: ForkServer, tmp_path: Path, attempt: str) -> None:
    file = tmp_path / "file"
    file.write_text("contents")
    code = f"import os\npath = {str(file)!r}\ntry: {attempt}\nexcept PermissionError: result = b'refused'"
    assert result(server, code) == "refused"
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_text() == "contents"


needs_landlock = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")


@needs_landlock
@pytest.mark.parametrize("limits", [LIMITS, FREE], ids=["confined", "free"])
@pytest.mark.parametrize("what", ["file", "folder", "environment", "memory"])
def test_no_job_reads_what_is_none_of_its_business(
    server: ForkServer, tmp_path: Path, what: str, limits: Limits
) -> None:
    (tmp_path / "key").write_text("a key of the parent")
    attempt = {
        "file": f"open({str(tmp_path / 'key')!r})",
        "folder": f"os.listdir({str(tmp_path)!r})",
        "environment": f"open('/proc/{os.getpid()}/environ').read()",
        "memory": f"open('/proc/{os.getpid()}/mem', 'rb')",
    }[what]
    code = f"import os\ntry: {attempt}\nexcept PermissionError: result = b'refused'"
    assert result(server, code, limits) == "refused"


@needs_landlock
@pytest.mark.parametrize("limits", [LIMITS, FREE], ids=["confined", "free"])
def test_no_job_writes_outside_its_folder(server: ForkServer, tmp_path: Path, limits: Limits) -> None:
    code = f"try: open({str(tmp_path / 'new')!r}, 'w')\nexcept PermissionError: result = b'refused'"
    assert result(server, code, limits) == "refused"


def test_a_confined_job_can_still_use_threads(server: ForkServer) -> None:
    code = "import threading; t = threading.Thread(target=lambda: None); t.start(); t.join(); result = b'ran'"
    assert result(server, code) == "ran"


FORKS = """
import os, sys, time
for _ in range(4):
    if os.fork() == 0:
        {leave}
        os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(1000)', '{marker}'])
{then}
"""


@pytest.mark.parametrize("leave", ["pass", "os.setsid()", "os.setsid(); os.fork() and os._exit(0)"])
@pytest.mark.parametrize("then", ["result = b'done'", "os._exit(1)", "time.sleep(1000)"])
def test_no_process_of_a_job_outlives_it(server: ForkServer, leave: str, then: str) -> None:
    marker = f"avo-test-{os.getpid()}-{time.monotonic_ns()}"
    run(server, FORKS.format(leave=leave, marker=marker, then=then), replace(FREE, wall_s=1))
    assert not still_running(marker)


def test_the_server_outlives_its_jobs(server: ForkServer) -> None:
    run(server, "pass")
    pid = server.pid
    run(server, "import os; os.abort()")
    run(server, "import time; time.sleep(1000)", replace(LIMITS, wall_s=0.1))
    assert result(server, "result = b'ok'") == "ok"
    assert server.pid == pid


def test_a_dead_server_is_replaced(server: ForkServer) -> None:
    run(server, "pass")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    assert result(server, "result = b'ok'") == "ok"


def test_a_job_that_kills_the_server_has_crashed(server: ForkServer) -> None:
    outcome = run(server, "import os, signal; os.kill(os.getppid(), signal.SIGKILL)", FREE)
    assert isinstance(outcome, Crashed)
    assert result(server, "result = b'ok'") == "ok"


def test_closing_leaves_neither_process_nor_folder() -> None:
    server = ForkServer((JOBS,), path=[Path(__file__).parent])
    folder = result(server, "import os; result = os.getcwd().encode()")
    pid = server.pid
    server.close()
    assert not Path(f"/proc/{pid}").exists()
    assert not Path(folder).parent.parent.exists()


ORPHAN = """
import os, signal, sys
from pathlib import Path
from evaluator.sandbox import ForkServer, Limits
server = ForkServer(["sandbox_jobs"], path=[Path(sys.argv[1])])
limits = Limits(30, 20, 2**30, 0, 32, 2**20, confined=False)
outcome = server.run("sandbox_jobs:run", b"import os; result = os.getcwd().encode()", limits)
print(server.pid, outcome.result.decode(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_parent_leaves_neither_process_nor_folder() -> None:
    command = [sys.executable, "-c", ORPHAN, str(Path(__file__).parent)]
    parent = subprocess.run(command, capture_output=True, text=True)
    assert parent.returncode == -signal.SIGKILL, parent.stderr
    pid, folder = parent.stdout.split()
    deadline = time.monotonic() + 30
    while Path(folder).parent.parent.exists() or still_running(Path(folder).parent.parent.name):
        assert time.monotonic() < deadline, f"process {pid} or its folder is still there"
        time.sleep(0.01)


def test_a_server_that_cannot_start_is_a_fault_of_the_house() -> None:
    with ForkServer(("no_such_module",)) as server, pytest.raises(EvaluatorUnavailable, match="no_such_module"):
        run(server, "pass")
