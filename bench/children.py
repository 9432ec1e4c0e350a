"""Start of a process for a candidate, until its first line, against a fresh interpreter; evaluations a minute.

    python -m bench.children [--starts 40] [--evaluations 24]

Both clocks of the first are the machine's monotonic one; the candidate reads it in its first line and reports it as its
error. The second judges variants of the mha seed, quick suite for the h100, with two judges that are ready.
"""

import argparse
import itertools
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import local

from evaluator.candidate import Candidate
from evaluator.capture import Capturer
from evaluator.evaluation import Evaluation, Fault
from evaluator.problem import get_problem
from evaluator.process import ProcessEvaluator
from evaluator.sandbox import isolation
from evaluator.target import get_target
from seeds import seed_source

WORKERS = 2
_FIRST_LINE = "import time; raise OSError(f'at {time.monotonic()} s')\n"
_SYNTAX_ERROR = "def attention(:\n"
_FRESH = "import time, torch, triton; print(f'at {time.monotonic()} s')"


def delay(run: Callable[[], str]) -> float:
    """Return the seconds from now until the time that ``run`` reports."""
    started = time.monotonic()
    match = re.search(r"at ([\d.]+) s", run())
    assert match is not None
    return float(match[1]) - started


def variants() -> Iterator[Candidate]:
    """Yield the mha seed with tiles, warps and stages of its own."""
    seed = seed_source("mha", "plain")
    tiles = "block_m, block_n = 64, 64"
    options = "num_warps=4,\n        num_stages=1,"
    assert tiles in seed
    assert options in seed
    for stages, warps, block_n, block_m in itertools.product((1, 2, 3), (4, 8), (64, 32, 128), (64, 128)):
        source = seed.replace(tiles, f"block_m, block_n = {block_m}, {block_n}")
        yield Candidate("mha", source.replace(options, f"num_warps={warps}, num_stages={stages},"))


def per_minute(evaluations: int) -> tuple[float, Counter[str]]:
    """Return how many variants are judged in a minute, and the statuses."""
    workers = [ProcessEvaluator("h100", "quick") for _ in range(WORKERS)]
    for worker in workers:
        assert worker.target.name == "h100"  # waits until it is ready
    idle, mine = iter(workers), local()

    def start() -> None:
        mine.evaluator = next(idle)

    def judge(candidate: Candidate) -> Evaluation:
        evaluation: Evaluation = mine.evaluator.evaluate(candidate)
        return evaluation

    with ThreadPoolExecutor(WORKERS, initializer=start) as pool:
        started = time.monotonic()
        found = Counter(str(each.status) for each in pool.map(judge, itertools.islice(variants(), evaluations)))
        minutes = (time.monotonic() - started) / 60
    for worker in workers:
        worker.close()
    return found.total() / minutes, found


def main() -> None:
    """Print a line for each figure: median, and the smallest and largest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=40)
    parser.add_argument("--evaluations", type=int, default=24)
    options = parser.parse_args()
    starts = options.starts
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
    rate, found = per_minute(options.evaluations)
    print(f"{rate:.1f} evaluations a minute with {WORKERS} judges:", ", ".join(f"{n} {s}" for s, n in found.items()))


if __name__ == "__main__":
    main()
