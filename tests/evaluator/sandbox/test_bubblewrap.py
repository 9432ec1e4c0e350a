"""Whether namespaces can be had is found out by trying, and the reason is one line."""

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest

from avo.evaluator.sandbox import bubblewrap

missing = bubblewrap.missing.__wrapped__


def put_in_place(folder: Path, script: str, patch: pytest.MonkeyPatch) -> None:
    """Make this script the machine's bubblewrap."""
    program = folder / "bwrap"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    patch.setenv("PATH", str(folder))


def test_a_machine_without_bubblewrap_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert missing() == "bubblewrap is not installed"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'bwrap: No permissions to create new namespace' >&2; exit 1", "No permissions to create new namespace"),
        ("exit 3", "exit code 3"),
    ],
)
def test_a_bubblewrap_that_may_not_make_namespaces_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, reason: str
) -> None:
    put_in_place(tmp_path, script, monkeypatch)
    assert missing() == f"bubblewrap does not work ({reason})"


def test_a_bubblewrap_that_works_is_all_that_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_in_place(tmp_path, "exit 0", monkeypatch)
    assert missing() == ""


SEE = """
import os, socket
def listed(path): return sorted(os.listdir(path)) if os.path.exists(path) else []
def writable(path):
    try: open(os.path.join(path, "new"), "w").close()
    except OSError: return False
    return True
folders = ("/", "/usr", "/tmp", "/dev", "/etc")
print(os.getpid(), [name for name in listed("/proc") if name.isdigit()], listed("/home"),
      [name for _, name in socket.if_nameindex()], [path for path in folders if writable(path)],
      [line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "CapBnd", "NoNewPrivs"))])
"""


@pytest.mark.skipif(bool(bubblewrap.missing()), reason=bubblewrap.missing() or "none")
def test_inside_are_one_process_one_interface_and_one_folder_to_write_in() -> None:
    command = [*bubblewrap.command(), sys.executable, "-I", "-c", SEE]
    seen = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    homes = sorted({path.split("/")[2] for path in bubblewrap._ours(()) if path.startswith("/home/")})
    assert seen.strip() == f"1 ['1'] {homes} ['lo'] ['/tmp'] ['{0:016x}', '{0:016x}', '1']"


@pytest.mark.skipif(bool(bubblewrap.missing()), reason=bubblewrap.missing() or "none")
def test_files_of_the_home_and_of_temporary_folders_are_not_there(tmp_path: Path) -> None:
    homes = {Path.home(), Path("/tmp"), Path("/var/tmp"), tmp_path}
    with ExitStack() as stack:
        names = [stack.enter_context(NamedTemporaryFile(prefix=".avo-test-", dir=home)).name for home in homes]
        code = "import os, sys; print([name for name in sys.argv[1:] if os.path.exists(name)])"
        command = [sys.executable, "-I", "-c", code, *names]
        outside, inside = (
            subprocess.run([*before, *command], capture_output=True, text=True, check=True).stdout
            for before in ([], bubblewrap.command())
        )
    assert (eval(outside), eval(inside)) == (names, [])
