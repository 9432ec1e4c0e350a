"""Sources as they are exported: the candidate's source, formatted, without unused imports, and saying what it is.

Nothing is executed. The result is judged again before it is exported.
"""

import ast
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from avo.export.errors import ExportError

_RUFF = (sys.executable, "-m", "ruff")
_ALIKE = ("--isolated", "--no-cache", "--target-version=py311", "--line-length=120")
"""Settings that do not depend on the user's."""
_STEPS = (("check", "--select=F401", "--fix-only"), ("format", "--config=format.line-ending='lf'"))


def tidied(source: str) -> str:
    """Return ``source`` formatted and without unused imports; raise ``ExportError`` if it is not Python."""
    with TemporaryDirectory() as folder:
        file = Path(folder, "kernel.py")
        file.write_bytes(source.encode("utf-8", "surrogatepass"))
        for step in _STEPS:
            done = subprocess.run((*_RUFF, *step, *_ALIKE, file.name), cwd=folder, capture_output=True)
            if done.returncode:
                said = " ".join(done.stderr.decode(errors="replace").split()) or f"ruff ended with {done.returncode}"
                raise ExportError(f"the source cannot be read: {said}")
        return file.read_bytes().decode()


def about(source: str) -> str:
    """Return the docstring of a module; empty where it has none, or where it is not Python."""
    try:
        return ast.get_docstring(ast.parse(source), clean=False) or ""
    except (SyntaxError, ValueError):
        return ""


def saying(source: str, text: str) -> str:
    """Return ``source`` with ``text`` in place of its module's docstring, or with that before it where it has none."""
    lines = source.split("\n")
    first = next(iter(ast.parse(source).body), None)
    if about(source) and first is not None:
        del lines[first.lineno - 1 : first.end_lineno]
    quoted = text.replace("\\", "\\\\").replace('"', "'")
    return f'"""{quoted}\n"""\n\n' + "\n".join(lines).lstrip()
