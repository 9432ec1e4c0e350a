"""Time and memory of one full offline evaluation of the mha seed, in each suite.

    python -m bench.evaluate [--target h100]

Peak memory is that of the judge with its children, the largest process of each, added up: an upper bound.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time

from seeds import seed_source


def evaluate(target: str, suite: str) -> tuple[float, float, float, dict[str, object]]:
    """Return (seconds until ready, seconds of the evaluation, peak GiB, evaluation) of a fresh judge."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "evaluator", "--target", target, "--suite", suite],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    ready = time.perf_counter()
    process.stdin.write(json.dumps({"id": 1, "problem": "mha", "source": seed_source("mha")}) + "\n")
    process.stdin.flush()
    answer = json.loads(process.stdout.readline())
    done = time.perf_counter()
    judge_kib = _peak_kib(process.pid)
    process.stdin.close()
    process.wait()
    children_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return ready - started, done - ready, (judge_kib + children_kib) / 2**20, answer["evaluation"]


def _peak_kib(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def main() -> None:
    """Print one line a suite."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default="h100")
    target = parser.parse_args().target
    print(f"{platform.machine()}, {os.cpu_count()} cores, {target}")
    for suite in ("quick", "paper"):
        ready, seconds, gib, evaluation = evaluate(target, suite)
        print(
            f"{suite:6} start {ready:5.1f} s, evaluation {seconds:5.1f} s, peak {gib:4.1f} GiB, {evaluation['status']}"
        )


if __name__ == "__main__":
    main()
