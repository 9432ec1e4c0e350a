"""Time of the executor, with and without its sanitiser, against Triton's interpreter, on one thread each.

    python -m bench.executor [--tokens 1024] [--heads 4]

The interpreter runs in a process of its own, with TRITON_INTERPRET=1. Both run the whole grid, launch included.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from avo.evaluator.modules import imported
from avo.seeds import seed_source

INTERPRET = "--interpret"


def best(run: Callable[[], object], repeats: int) -> float:
    """Return the seconds of the fastest of several calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def workloads(options: argparse.Namespace, source: Path) -> dict[str, Callable[[], object]]:
    """Return what is timed, by name. ``source`` is a file with the mha seed."""
    module = imported(source)
    q, k, v = torch.randn(3, 1, options.heads, options.tokens, 128).bfloat16()
    out, lse = torch.empty_like(q), torch.empty(1, options.heads, options.tokens)
    seed = f"mha seed, {options.heads} heads, {options.tokens} tokens, D=128, bf16"
    return {
        f"{seed}, full": lambda: module.attention(q, k, v, out, lse, causal=False, scale=0.088),
        f"{seed}, causal": lambda: module.attention(q, k, v, out, lse, causal=True, scale=0.088),
    }


def executor_seconds(run: Callable[[], object], *, sanitize: bool) -> float:
    """Return what a launch takes once the kernel is built."""
    from avo.evaluator.offline import offline

    with offline("h100", sanitize=sanitize, autotune="first", threads=1) as session:
        run()
        seconds = best(run, 5)
    report = session.report()
    assert not report.faults, report
    return seconds


def main() -> None:
    """Print seconds and ratios of every workload."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument(INTERPRET, nargs=2, metavar=("FILE", "NAME"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if options.interpret:
        file, name = options.interpret
        print(best(workloads(options, Path(file))[name], 1))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "seed.py"
        source.write_text(seed_source("mha"))
        for name, run in workloads(options, source).items():
            plain, sanitised = (executor_seconds(run, sanitize=sanitize) for sanitize in (False, True))
            command = [sys.executable, "-m", "bench.executor", INTERPRET, str(source), name]
            command += ["--tokens", str(options.tokens), "--heads", str(options.heads)]
            environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
            interpreted = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
            slow = float(interpreted.stdout)
            print(f"{name}: executor {plain:.3f} s, interpreter {slow:.2f} s: {slow / plain:.0f} times faster")
            print(f"    sanitised {sanitised:.3f} s: {sanitised / plain:.2f} times the time")


if __name__ == "__main__":
    main()
