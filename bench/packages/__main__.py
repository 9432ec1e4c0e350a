"""Command line of ``bench.packages``: each suite in a process of its own, then one table of all."""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

SUITES = {
    "liger": ("liger-kernel", "liger:run"),
    "fla": ("fla-core", "fla:run"),
    "gems": ("flag-gems", "gems:run"),
    "conch": ("conch-triton-kernels", "layers:conch"),
    "bitsandbytes": ("bitsandbytes", "layers:bitsandbytes"),
    "torchao": ("torchao", "layers:ao"),
    "xformers": ("xformers", "layers:xformers"),
    "sageattention": ("sageattention", "attentions:sage"),
    "adasplash": ("adasplash", "attentions:splash"),
    "flash": ("flash-attention-triton", "attentions:flash"),
    "jvp": ("jvp-flash-attention", "attentions:jvp"),
    "cce": ("cut-cross-entropy", "attentions:cce"),
    "late": ("late-interaction-kernels", "attentions:interaction"),
    "siglip": ("siglip-kernel", "attentions:contrastive"),
    "crossentropy": ("crossentropy-triton", "layers:entropy"),
    "sinkhorn": ("flash-sinkhorn", "layers:transport"),
    "kmeans": ("flash-kmeans", "layers:means"),
    "moe": ("moe-ops", "layers:experts"),
}
"""Distributions, and the functions of this folder that try them."""
OUTCOMES = ("agreed", "differs", "fault", "unsupported", "error", "refused")


def run_suite(suite: str, target: str) -> dict[str, Any]:
    """Run one suite in this process."""
    import torch

    from bench.packages.harness import Trial
    from evaluator.executor import offline

    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    start = time.monotonic()
    with offline(target, unsupported="skip", autotune="first", deadline_s=120) as session:
        distribution, where = SUITES[suite]
        module, _, function = where.partition(":")
        trial = Trial(distribution, session)
        getattr(importlib.import_module(f"bench.packages.{module}"), function)(trial)
    return {**trial.as_json(), "suite": suite, "seconds": time.monotonic() - start}


def table(results: list[dict[str, Any]]) -> str:
    """Return the results as a table in Markdown."""
    lines = [
        "| package | version | kernels | launches | calls | " + " | ".join(OUTCOMES) + " | seconds |",
        "|---|---|" + "---:|" * (4 + len(OUTCOMES)),
    ]
    for result in results:
        cases = result["cases"]
        kernels = {kernel for case in cases for kernel in case["kernels"]}
        outcomes = Counter(case["outcome"] for case in cases)
        numbers = (len(kernels), sum(case["launches"] for case in cases), len(cases), *(outcomes[o] for o in OUTCOMES))
        cells = [result["package"], result["version"], *map(str, numbers), f"{result['seconds']:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run suites, print what did not agree and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)}")
    parser.add_argument("--target", default="h100")
    parser.add_argument("--json", type=Path, help="write all cases to this file")
    parser.add_argument("--one", metavar="SUITE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        options.json.write_text(json.dumps(run_suite(options.one, options.target)))
        return
    results = []
    environment = {"TRITON_DEFAULT_FP_FUSION": "1", "OMP_NUM_THREADS": "1", **os.environ}
    with tempfile.TemporaryDirectory() as folder:
        for suite in options.suites or SUITES:
            file = Path(folder) / f"{suite}.json"
            command = [sys.executable, "-m", "bench.packages", "--target", options.target, "--json", str(file)]
            run = subprocess.run([*command, "--one", suite], env=environment, stderr=subprocess.PIPE, text=True)
            if run.returncode:
                print(f"{suite}: failed: {(run.stderr.strip().splitlines() or ['no reason'])[-1]}")
                continue
            results.append(json.loads(file.read_text()))
            for case in results[-1]["cases"]:
                if case["outcome"] not in ("agreed", "refused"):
                    print(f"{SUITES[suite][0]}: {case['name']}: {case['outcome']}: {case['message']}", flush=True)
    print(table(results))
    if options.json:
        options.json.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
