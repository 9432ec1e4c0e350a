"""Sources as they are exported: the candidate's source, formatted and without unused imports.

Nothing is executed. The result is judged again before it is exported.
"""

import subprocess
import sys

from avo.export.errors import ExportError

_RUFF = (sys.executable, "-m", "ruff")
_ALIKE = ("--isolated", "--no-cache", "--target-version=py311", "--line-length=120", "-")
"""Settings that do not depend on the user's; the source comes by standard input."""


def tidied(source: str) -> str:
    """Return ``source`` formatted and without unused imports; raise ``ExportError`` if it is not Python."""
    return _ruff(
        "format",
        "--config=format.line-ending='lf'",
        source=_ruff("check", "--select=F401", "--fix-only", source=source),
    )


def _ruff(*arguments: str, source: str) -> str:
    done = subprocess.run(
        (*_RUFF, *arguments, *_ALIKE), input=source.encode("utf-8", "surrogatepass"), capture_output=True
    )
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split()) or f"ruff ended with {done.returncode}"
        raise ExportError(f"the source cannot be read: {said}")
    return done.stdout.decode()
