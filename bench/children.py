"""Time to start a candidate's process, until the candidate's first line, against that of a fresh interpreter.

    python -m bench.children [--starts 40]

Both read the machine's monotonic clock; the candidate does so in its first line and reports it as its error.
"""

import argparse
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from avo.evaluator.capture import Capturer
from avo.evaluator.catalogue import get_problem
from avo.evaluator.evaluation import Fault
from avo.evaluator.sandbox.isolation import isolation
from avo.evaluator.targets import get_target

_FIRST_LINE = "import time; raise OSError(f'at {time.monotonic()} s')\n"
_SYNTAX_ERROR = "def attention(:\n"
_FRESH = "import time, torch, triton; print(f'at {time.monotonic()} s')"


def delay(run: Callable[[], str]) -> float:
    """Return the seconds from now until the time that ``run`` reports."""
    started = time.monotonic()
    match = re.search(r"at ([\d.]+) s", run())
    assert match is not None
    return float(match[1]) - started


def main() -> None:
    """Print a line for each figure: median, and the smallest and largest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=40)
    starts = parser.parse_args().starts
    problem, target = get_problem("mha"), get_target("h100")
    calls = [problem.call(problem.correctness_cases[0])]

    def fresh() -> str:
        return subprocess.run([sys.executable, "-c", _FRESH], capture_output=True, text=True, check=True).stdout

    def child(source: str = _FIRST_LINE) -> str:
        fault = capturer.capture(source, problem.entry, calls, target)
        assert isinstance(fault, Fault)
        return fault.message

    capturer = Capturer()
    started = time.monotonic()
    child()
    print(f"candidates are kept apart by {isolation()}; server ready after {time.monotonic() - started:.2f} s")
    fresh()
    slow = [delay(fresh) for _ in range(max(3, starts // 8))]
    fast = [delay(child) for _ in range(starts)]
    refused = []
    for _ in range(starts):
        started = time.monotonic()
        child(_SYNTAX_ERROR)
        refused.append(time.monotonic() - started)
    capturer.close()
    for name, times in (("fresh interpreter", slow), ("child", fast), ("syntax error refused", refused)):
        middle = statistics.median(times)
        print(f"{name:21} {middle * 1e3:8.1f} ms ({min(times) * 1e3:.1f} to {max(times) * 1e3:.1f})")
    print(f"{statistics.median(slow) / statistics.median(fast):.0f} times faster")


if __name__ == "__main__":
    main()
