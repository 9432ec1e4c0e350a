"""``python -m avo.evaluator`` with workers on the stub card: ``python -m tests.evaluator.cuda.stub_card.evaluator``."""

import os
import sys
from collections.abc import Sequence
from typing import Any

from avo.evaluator import __main__ as evaluator
from avo.evaluator.cuda import contender, measuring

STUBS = [f"{name}={value}" for name, value in os.environ.items() if name.startswith(("STUB_", "NVML_"))]
WORKER = ("env", *STUBS, sys.executable, "-m", "tests.evaluator.cuda.stub_card.worker")
start_worker = contender.start_worker


def start(command: Sequence[str] = (), *arguments: Any, **named: Any) -> contender.Contender:
    """Return a worker on the stub card, whatever its command."""
    return start_worker(WORKER, *arguments, **named)


if __name__ == "__main__":
    contender.start_worker = start
    measuring.RUNS = 6
    measuring.LEAST_LIMIT_S = measuring.MOST_LIMIT_S = 600.0  # kernels are executed on the CPU
    sys.exit(evaluator.main())
