"""Time of the executor against Triton's interpreter, for the mha seed, in one run and with one thread each.

    python -m bench.executor [--tokens 1024] [--heads 4]

The interpreter runs in a process of its own, with TRITON_INTERPRET=1. Both run the whole grid.
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

from seeds import seed_source

INTERPRET = "--interpret"


def best(run: Callable[[], object], repeats: int) -> float:
    """Return the seconds of the fastest of several calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def interpreter_seconds(source: Path, tokens: int, heads: int, causal: bool) -> float:
    """Return what Triton's interpreter takes; the environment must have TRITON_INTERPRET=1."""
    import importlib.util

    import torch

    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location("seed", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    q, k, v = torch.randn(3, 1, heads, tokens, 128).bfloat16()
    out, lse = torch.empty_like(q), torch.empty(1, heads, tokens)
    return best(lambda: module.attention(q, k, v, out, lse, causal=causal, scale=0.088), 1)


def executor_seconds(source: Path, tokens: int, heads: int, causal: bool) -> float:
    """Return what executing the plan's IR takes once it is built."""
    import torch

    from evaluator import executor
    from evaluator.buffers import allocate
    from evaluator.capture import Capturer
    from evaluator.evaluation import Fault
    from evaluator.problem import Case, get_problem
    from evaluator.target import get_target

    torch.set_num_threads(1)
    problem = get_problem("mha")
    case = Case("bench", 1, heads, heads, tokens, tokens, 128, causal)
    capturer = Capturer()
    plans = capturer.capture(source.read_text(), problem.entry, [problem.call(case)], get_target("h100"))
    capturer.close()
    assert not isinstance(plans, Fault), plans
    held = allocate(problem.call(case), plans[0], problem.make_inputs(case, 0))
    assert not isinstance(held, Fault), held
    kernel, launch = executor.load(plans[0].kernels[0].ttir), plans[0].launches[0]
    return best(lambda: kernel.run(held.allocations, launch.args, launch.grid), 5)


def main() -> None:
    """Print seconds of both and their ratio, full and causal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument(INTERPRET, nargs=2, metavar=("FILE", "CAUSAL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.interpret:
        file, causal = options.interpret
        print(interpreter_seconds(Path(file), options.tokens, options.heads, causal == "True"))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores; {options.heads} heads, {options.tokens} tokens, D=128, bf16")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "seed.py"
        source.write_text(seed_source("mha"))
        for causal in (False, True):
            fast = executor_seconds(source, options.tokens, options.heads, causal)
            command = [sys.executable, "-m", "bench.executor", INTERPRET, str(source), str(causal)]
            sizes = ["--tokens", str(options.tokens), "--heads", str(options.heads)]
            environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
            run = subprocess.run(command + sizes, check=True, env=environment, capture_output=True, text=True)
            slow = float(run.stdout)
            name = "causal" if causal else "full"
            print(f"{name:6} executor {fast:6.3f} s, interpreter {slow:6.2f} s: {slow / fast:.0f} times faster")


if __name__ == "__main__":
    main()
