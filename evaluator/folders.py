"""Where this package's files lie: the processes that it starts import it from there."""

import sys
from pathlib import Path

_EVALUATOR = Path(__file__).parent
ROOT = _EVALUATOR.parents[1]
"""The folder that ``avo`` is imported from: that of a checkout, where ``avo/evaluator`` is a link, or site-packages."""
OURS = (_EVALUATOR.parent / "__init__.py", _EVALUATOR)
"""What a confined process may read of ``avo``, by the names by which it is imported."""
_RUN = (
    "import runpy, sys; root, module = sys.argv[1:3]; del sys.argv[1:3]; sys.path.insert(0, root); import avo; "
    "sys.path.remove(root); runpy.run_module(module, run_name='__main__', alter_sys=True)"
)


def command(module: str) -> tuple[str, ...]:
    """Return the command that runs a module of this code, installed or not.

    Python searches neither the current folder nor the one that ``avo`` lies in for anything else, so a user's package
    may be called like one of a checkout's folders.
    """
    return (sys.executable, "-P", "-c", _RUN, str(ROOT), module)
