"""Whatever a job does, the parent gets an outcome, and nothing of the job is left."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.renamed import FORMER
from avo.evaluator.sandbox import bubblewrap, landlock, patience
from avo.evaluator.sandbox.jobs import Crashed, Finished, ForkServer, Limits, TimedOut, _Server
from tests.evaluator.sandbox.isolation import FREE, JOBS, LIMITS, WAYS, isolated, result, run


@pytest.fixture
def in_namespaces(server: ForkServer) -> bool:
    """Whether the server is the one in namespaces."""
    return not bubblewrap.missing()


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


def test_a_result_that_goes_missing_is_asked_for_again(server: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = [Crashed("exited with code 0 before giving a result", ""), Finished(b"found", "")]
    monkeypatch.setattr(_Server, "run", lambda *_: lost.pop(0))
    assert run(server, "result = b''") == Finished(b"found", "")


def test_a_job_has_its_own_descriptors_and_no_others(server: ForkServer) -> None:
    code = (
        "import os; fds = sorted(os.listdir('/proc/self/fd'), key=int)\n"
        "result = repr([(int(fd), os.readlink(f'/proc/self/fd/{fd}')) for fd in fds[:4]] + fds[5:]).encode()"
    )
    seen = eval(result(server, code))
    assert [fd for fd, _ in seen] == [0, 1, 2, 3]
    assert [name.partition(":")[0] for _, name in seen] == ["/dev/null", "/dev/null", "pipe", "pipe"]


def test_a_job_has_the_limits_it_was_given(server: ForkServer) -> None:
    code = (
        "import resource as r; soft = lambda kind: r.getrlimit(kind)[0]\n"
        "result = repr([soft(kind) for kind in"
        " (r.RLIMIT_CORE, r.RLIMIT_CPU, r.RLIMIT_FSIZE, r.RLIMIT_NOFILE, r.RLIMIT_AS, r.RLIMIT_NPROC)]"
        " + [int(open('/proc/self/oom_score_adj').read())]).encode()"
    )
    core, cpu, file, files, memory, processes, dies_first = eval(result(server, code))
    assert len({Path(f"/proc/{pid}/oom_score_adj").read_text() for pid in patience._tree(os.getpid())}) == 1
    assert (core, cpu, file, files, dies_first) == (0, LIMITS.cpu_s, LIMITS.file_bytes, LIMITS.open_files, 1000)
    assert LIMITS.memory_bytes < memory < LIMITS.memory_bytes + 2**30
    assert LIMITS.processes <= processes != resource.getrlimit(resource.RLIMIT_NPROC)[0]


def test_a_job_has_the_evaluator_alone_by_one_name(server: ForkServer, in_namespaces: bool) -> None:
    code = (
        "import os, sys, avo.evaluator.inspection\n"
        "folder = os.path.dirname(avo.__file__)\n"
        "def readable(path):\n"
        "    try: open(path).close()\n"
        "    except OSError: return False\n"
        "    return True\n"
        "places = (f'{folder}/__init__.py', f'{folder}/config.py', f'{folder}/agents/__init__.py')\n"
        "result = repr(([*map(readable, places)], *sys.modules)).encode()"
    )
    found, *modules = eval(result(server, code))
    assert {"avo.evaluator.inspection", "avo.evaluator.sandbox.forkserver"} < {*modules}
    assert not {*FORMER} & {*modules}
    if in_namespaces or landlock.version():
        assert found == [True, False, False]


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


def test_what_is_said_just_before_the_result_is_kept() -> None:
    with ForkServer(("late_reason",), path=[Path(__file__).parent]) as server:
        assert server.run("late_reason:run", b"", LIMITS) == Finished(b"result", "error: the reason")


def test_junk_on_the_standard_streams_does_not_spoil_the_result(server: ForkServer) -> None:
    code = "import os\nfor fd in (1, 2): os.write(fd, b'\\0\\xff' * 200_000)\nresult = b'kept'"
    assert result(server, code) == "kept"


def test_a_job_that_does_nothing_is_killed_at_its_wall_limit(server: ForkServer) -> None:
    outcome = run(server, "import time; time.sleep(1000)", replace(LIMITS, wall_s=0.2))
    assert outcome == TimedOut("still running after 0.2 s in which it did nothing")


SPIN = "import time\ndef spin():\n    while time.process_time() < 0.6: pass\n"


@pytest.mark.long
@pytest.mark.parametrize(
    ("work", "limits"),
    [
        ("spin()", LIMITS),
        ("import threading; work = threading.Thread(target=spin); work.start(); work.join()", LIMITS),
        (f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {SPIN + 'spin()'!r}])", FREE),
    ],
    ids=["itself", "a thread", "a program"],
)
def test_time_in_which_a_job_works_does_not_count(
    server: ForkServer, monkeypatch: pytest.MonkeyPatch, work: str, limits: Limits
) -> None:
    monkeypatch.setattr(patience, "MOST", 1000)  # so that a busy machine does not end it
    assert result(server, f"{SPIN}{work}\nresult = b'done'", replace(limits, wall_s=0.5)) == "done"


def test_a_job_that_spins_is_killed_at_its_cpu_limit(server: ForkServer) -> None:
    assert run(server, "while True: pass", replace(LIMITS, cpu_s=1)) == TimedOut("used up 1 s of processor time")


@pytest.mark.long
@pytest.mark.parametrize("end", ["result = b'done'", "raise ValueError('stopped')"])
def test_a_job_that_catches_the_signal_of_its_cpu_limit_is_out_of_time_however_it_ends(
    server: ForkServer, end: str
) -> None:
    catches = "import signal, time\nsignal.signal(signal.SIGXCPU, lambda *_: None)\n"
    late = f"{catches}while time.process_time() < 1.1: pass\n{end}"
    assert run(server, late, replace(LIMITS, cpu_s=1)) == TimedOut("used up 1 s of processor time")


def test_the_processes_of_a_job_have_one_limit_of_processor_time(server: ForkServer) -> None:
    code = f"{SPIN}import os\nwhile True:\n    os.fork() or (spin(), os._exit(0))\n    os.wait()"
    before_s = server.processor_s
    assert run(server, code, replace(FREE, cpu_s=1)) == TimedOut("used up 1 s of processor time")
    assert server.processor_s - before_s > 0.9


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


@pytest.mark.parametrize("limits", [LIMITS, FREE], ids=["confined", "free"])
@pytest.mark.parametrize(
    "attempt",
    [
        "socket.socket()",
        "socket.socketpair()",
        "check(libc.unshare(0x10000000))",
        "check(libc.syscall(number, 0x10000000 | 17, 0, 0, 0, 0))",
        "check(libc.ptrace(16, os.getppid(), 0, 0))",
        "check(libc.mount(b'none', b'/tmp', b'tmpfs', 0, 0))",
    ],
)
def test_no_job_gets_sockets_namespaces_or_into_other_processes(
    server: ForkServer, attempt: str, limits: Limits
) -> None:
    code = f"""
import ctypes, os, platform, socket
libc = ctypes.CDLL(None, use_errno=True)
number = {{"x86_64": 56, "aarch64": 220}}[platform.machine()]  # clone
def check(status):
    if status < 0: raise OSError(ctypes.get_errno(), "refused")
try: {attempt}
except PermissionError: result = b'refused'
"""
    assert result(server, code, limits) == "refused"


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
    code = f"import os\ntry: {attempt}\nexcept (PermissionError, FileNotFoundError): result = b'refused'"
    assert result(server, code, limits) == "refused"


@needs_landlock
@pytest.mark.parametrize("limits", [LIMITS, FREE], ids=["confined", "free"])
@pytest.mark.parametrize("attempt", ["open({}, 'w')", "os.truncate({}, 0)", "os.chmod({}, 0)", "os.utime({})"])
def test_no_job_changes_what_is_outside_its_folder(
    server: ForkServer, tmp_path: Path, attempt: str, limits: Limits
) -> None:
    (tmp_path / "file").touch()
    code = attempt.format(repr(str(tmp_path / "file")))
    assert result(server, f"import os\ntry: {code}\nexcept OSError: result = b'refused'", limits) == "refused"


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


@pytest.mark.parametrize("limits", [LIMITS, FREE], ids=["confined", "free"])
@pytest.mark.parametrize("attempt", ["os.kill(server, 9)", "libc.tgkill(server, server, 9)"])
def test_no_job_ends_the_server(server: ForkServer, in_namespaces: bool, attempt: str, limits: Limits) -> None:
    if not in_namespaces and not limits.confined and landlock.version() < 6:
        pytest.skip("without namespaces it takes a Landlock that knows of signals")
    run(server, "pass")
    pid = server.pid
    run(server, f"import ctypes, os; libc = ctypes.CDLL(None); server = os.getppid(); {attempt}", limits)
    assert result(server, "result = b'ok'") == "ok"
    assert server.pid == pid


@pytest.mark.parametrize("way", WAYS)
def test_closing_leaves_neither_process_nor_folder(way: str, tmp_path: Path) -> None:
    with isolated(way):
        server = ForkServer((JOBS,), path=[Path(__file__).parent, tmp_path])
        folder = result(server, "import os; result = os.getcwd().encode()")
        assert still_running(str(tmp_path))
        server.close()
    assert not still_running(str(tmp_path))
    assert not Path(folder).parent.exists()


def test_a_server_outlives_the_thread_that_started_it() -> None:
    with ForkServer((JOBS,), path=[Path(__file__).parent]) as server:
        thread = threading.Thread(target=run, args=(server, "pass"))
        thread.start()
        thread.join()
        pid = server.pid
        for _ in range(3):
            assert result(server, "result = b'ok'") == "ok"
        assert server.pid == pid


ORPHAN = """
import os, signal, sys
from pathlib import Path
from avo.evaluator.sandbox.jobs import ForkServer, Limits
server = ForkServer(["sandbox_jobs"], path=[Path(sys.argv[1]), Path(sys.argv[2])])
limits = Limits(600, 20, 2**30, 0, 32, 64, 2**20, confined=False)
outcome = server.run("sandbox_jobs:run", b"import os; result = os.getcwd().encode()", limits)
print(outcome.result.decode(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("way", WAYS)
def test_a_killed_parent_leaves_neither_process_nor_folder(way: str, tmp_path: Path) -> None:
    with isolated(way):
        path = os.environ["PATH"] if not bubblewrap.missing() else ""
    command = [sys.executable, "-c", ORPHAN, str(Path(__file__).parent), str(tmp_path)]
    parent = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": path})
    assert parent.returncode == -signal.SIGKILL, parent.stderr
    folder = Path(parent.stdout.strip()).parent
    deadline = time.monotonic() + 600
    while folder.exists() or still_running(str(tmp_path)):
        assert time.monotonic() < deadline, "the server or its folder is still there"
        time.sleep(0.01)


def test_a_server_that_cannot_start_is_a_fault_of_the_house() -> None:
    with ForkServer(("no_such_module",)) as server, pytest.raises(EvaluatorUnavailable, match="no_such_module"):
        run(server, "pass")
