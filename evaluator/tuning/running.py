"""Starts the process that runs a script, and reads what it wrote down."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from avo.evaluator.folders import ROOT
from avo.evaluator.target import Target
from avo.evaluator.temporary import TemporaryFolder
from avo.evaluator.tune import Ran, ScriptFailed
from avo.evaluator.tuning.records import decode

_START = "import sys; sys.path.append(sys.argv.pop(1)); from avo.evaluator.tuning.script import main; main()"


def run_script(script: Path, arguments: Sequence[str], target: Target, said: Callable[[str], None]) -> Ran:
    """Run a script, or a file of tests, in a process of its own that counts launches and executes none.

    ``said`` is given each line that it prints. Raises ``ScriptFailed`` if the script raises before it has launched an
    autotuned kernel, or ends its process.
    """
    environment = {"TRITON_DEFAULT_FP_FUSION": "1", **os.environ, "PYTHONUNBUFFERED": "1"}
    with TemporaryFolder("tune") as folder:
        out = Path(folder) / "record"
        command = [sys.executable, "-c", _START, str(ROOT), target.name, str(out), str(script), *arguments]
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                said(line.rstrip("\n"))
        if not out.exists():
            raise ScriptFailed(f"{script} ended its process, exit code {process.returncode}, so nothing is known of it")
        record = decode(out.read_bytes())
    if record.raised and not record.tried:
        raise ScriptFailed(f"{script} does not run for {target.name}: {record.error}", record.raised)
    return record
