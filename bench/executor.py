"""How fast the executor is next to Triton's own interpreter, on the same attention kernel in one run.

    python bench/executor.py [--tokens 1024] [--heads 4] [--head-dim 128] [--dtype bfloat16]

Both use one thread. The interpreter's bfloat16 results are wrong, but take as long as right ones.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

KERNELS = Path(__file__).parent.parent / "tests" / "evaluator" / "executor"


def case(options: argparse.Namespace, causal: bool) -> tuple[list[Any], tuple[int, int], dict[str, Any]]:
    """Return arguments, grid and constants of one launch of the attention kernel of the tests."""
    torch.manual_seed(0)
    heads, tokens, d = options.heads, options.tokens, options.head_dim
    dtype = getattr(torch, options.dtype)
    q, k, v = (torch.randn(heads, tokens, d).to(dtype) for _ in range(3))
    out, lse = torch.zeros_like(q), torch.zeros(heads, tokens)
    args = [q, k, v, out, lse, d**-0.5, tokens * d, d, heads, 1, tokens, tokens]
    constants = {"CAUSAL": causal, "D": d, "BLOCK_M": 64, "BLOCK_N": 64}
    return args, (-(-tokens // 64), heads), constants


def best(function: Any, repeats: int) -> float:
    """Return the seconds of the fastest of several calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def time_interpreter(options: argparse.Namespace) -> dict[str, float]:
    """Time Triton's interpreter; the environment must have TRITON_INTERPRET=1."""
    from attention_kernels import attention

    seconds = {}
    for causal in (False, True):
        args, grid, constants = case(options, causal)
        seconds[str(causal)] = best(lambda a=args, g=grid, c=constants: attention[g](*a, **c), 1)
    return seconds


def main() -> None:
    """Time both and print seconds and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--interpreter", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.insert(0, str(KERNELS))
    if options.interpreter:
        print(json.dumps(time_interpreter(options)))
        return
    from attention_kernels import attention
    from conftest import prepare

    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--interpreter", *sys.argv[1:]]
    slow = json.loads(subprocess.run(command, check=True, env=environment, capture_output=True, text=True).stdout)
    for causal in (False, True):
        args, grid, constants = case(options, causal)
        launch = prepare(attention, *args, grid=grid, **constants)
        fast = best(launch.run, 5)
        interpreter = slow[str(causal)]
        print(
            f"{options.dtype} {options.heads} heads, {options.tokens} tokens, D={options.head_dim}, "
            f"{'causal' if causal else 'full'}: executor {fast:.3f} s, interpreter {interpreter:.2f} s, "
            f"ratio {interpreter / fast:.0f}"
        )


if __name__ == "__main__":
    main()
