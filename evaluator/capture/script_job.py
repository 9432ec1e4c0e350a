"""Runs a script in a process of its own and gives back what it printed."""

import contextlib
import io
import json
import linecache
import sys
import traceback

MOST_CHARS = 200_000
"""Characters of the output that are kept: its end."""
_FILE = "script.py"


def run(payload: bytes) -> bytes:
    """The job: from UTF-8 source to JSON with ``output`` and, where the script raised, the end of the ``error``."""
    source = payload.decode()
    linecache.cache[_FILE] = (len(source), None, source.splitlines(keepends=True), _FILE)
    printed, error = io.StringIO(), ""
    sys.argv = [_FILE]
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            exec(compile(source, _FILE, "exec", dont_inherit=True), {"__name__": "__main__", "__file__": _FILE})
        except SystemExit as end:
            error = "" if end.code in (None, 0) else f"exit code {end.code}"
        except BaseException as raised:  # whatever a script raises is what its author wants to read
            raised.__traceback__ = raised.__traceback__ and raised.__traceback__.tb_next
            error = "".join(traceback.format_exception(raised))
    return json.dumps({"output": printed.getvalue()[-MOST_CHARS:], "error": error[-MOST_CHARS:]}).encode()
