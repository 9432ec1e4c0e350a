"""Other assemblers than the one in Triton's wheel: the way out where a driver is older than that one.

Triton takes them from the environment (``triton/knobs.py``), and silently takes its own where such a path is wrong.
"""

import os
import subprocess
from functools import cache

from avo.evaluator.errors import EvaluatorUnavailable

VARIABLES = ("TRITON_PTXAS_PATH", "TRITON_PTXAS_BLACKWELL_PATH")
"""Which of them assembles for a card depends on Triton's release: up to 3.7 the second is for compute capability 10.0
and later, since 3.9 for 9.0 and later.
"""


def chosen() -> dict[str, str]:
    """Return the paths of the assemblers that the environment names, by variable.

    Raises ``EvaluatorUnavailable`` where one is no program.
    """
    found = {name: os.path.abspath(os.environ[name]) for name in VARIABLES if os.environ.get(name)}
    for name, path in found.items():
        if not os.path.isfile(path) or not os.access(path, os.X_OK):
            raise EvaluatorUnavailable(f"{name} names {path}, which is no program: correct or unset it")
    return found


def versions() -> dict[str, str]:
    """Return what the assemblers that the environment names say of their versions, by variable.

    Raises as ``chosen``.
    """
    return {name: _version(path) for name, path in chosen().items()}


@cache
def _version(path: str) -> str:
    try:
        return subprocess.run([path, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise EvaluatorUnavailable(f"the assembler {path} does not say its version: {error}") from None
