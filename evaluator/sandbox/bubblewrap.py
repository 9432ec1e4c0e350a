"""Namespaces for the fork server, made by bubblewrap (``bwrap``); needs no privileges where user namespaces are on.

Inside there is no network, no other process, no home folder and no temporary file of anyone else. The file system has
only what Python and the compiler are made of, read-only, and an empty ``/tmp``. All options are in bubblewrap 0.4, so
old distributions work.
"""

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from avo.evaluator.folders import OURS
from avo.evaluator.sandbox import tools
from avo.evaluator.sandbox.landlock import READABLE

WORK = "/tmp/avo-sandbox"
"""The working folder inside the namespaces."""
ADVICE = (
    "apt-get install bubblewrap, and allow user namespaces "
    "(sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns; containers often forbid them)"
)
"""What to do where namespaces are missing."""
_PROBE_S = 120.0


def command(folders: Iterable[Path] = ()) -> list[str]:
    """Return what to put before a command line to run it in namespaces in which ``folders`` can be read too.

    The process ends with the thread that starts it. Raises as ``tools.chosen``.
    """
    arguments = [
        shutil.which("bwrap") or "bwrap",
        "--unshare-all",
        "--unshare-user",
        "--cap-drop",
        "ALL",
        "--new-session",
    ]
    arguments += ["--die-with-parent", "--as-pid-1", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    for path in _system():
        arguments += ["--symlink", os.readlink(path), path] if os.path.islink(path) else ["--ro-bind", path, path]
    for path in _ours(folders):
        arguments += ["--ro-bind", path, path]
    return [*arguments, "--dir", WORK, "--remount-ro", "/", "--remount-ro", "/dev", "--chdir", WORK, "--"]


@functools.cache
def missing() -> str:
    """Return in a few words why this machine has no namespaces for us; nothing where it has."""
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed"
    try:
        trial = subprocess.run(
            [*command(), sys.executable, "-I", "-S", "-c", ""], capture_output=True, text=True, timeout=_PROBE_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap does not work ({error})"
    said = trial.stderr.strip().splitlines() or [f"exit code {trial.returncode}"]
    return f"bubblewrap does not work ({said[-1].removeprefix('bwrap: ')})" if trial.returncode else ""


def _system() -> Iterator[str]:
    """Yield the system's folders and files; ``/lib`` and the like are links on most."""
    return (path for path in READABLE if os.path.exists(path) and not path.startswith("/proc"))


def _ours(folders: Iterable[Path]) -> list[str]:
    """Return the folders of the interpreter, its packages and ``OURS``, and the assemblers that the environment names,
    by their names and by where links lead.
    """
    given = [sys.prefix, sys.base_prefix, *map(str, (*OURS, *folders)), *tools.chosen().values()]
    paths = sorted({os.path.abspath(path) for path in given} | {os.path.realpath(path) for path in given})
    held = [*_system(), *paths]
    return [path for path in paths if path not in READABLE and not any(path.startswith(f"{other}/") for other in held)]
