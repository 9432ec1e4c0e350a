"""``python -m evaluator``: a judge that reads requests and writes verdicts, one JSON object a line."""

import argparse
import contextlib
import ctypes
import os
import sys

from evaluator.errors import EvaluatorError
from evaluator.protocol import Request, answer, failure, ready, requests
from evaluator.sandbox import Sandbox, hide
from evaluator.target import get_target

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Parameters of glibc's allocator, malloc.h."""
_KEPT_BYTES = 2**30


def _keep_freed_memory() -> None:
    """Have the allocator reuse what tensors free: pages given back and taken anew cost a tenth of an evaluation."""
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def main() -> int:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m evaluator", description=__doc__)
    parser.add_argument("--target", required=True, help="architecture to judge for, e.g. h100")
    parser.add_argument("--suite", default="quick", help="benchmark cases: quick or paper")
    parser.add_argument(
        "--sandbox", type=Sandbox, default=Sandbox.AUTO, choices=list(Sandbox),
        help="require: refuse to start where candidates cannot be kept in namespaces",
    )  # fmt: skip
    options = parser.parse_args()
    hide()
    _keep_freed_memory()
    # Verdicts alone go to standard output: whatever a library prints goes to standard error.
    verdicts = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        target = get_target(options.target)
        options.sandbox.check()
    except EvaluatorError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    import torch

    from evaluator.judge import Judge

    torch.set_num_threads(1)
    with Judge(target, options.suite, sandbox=options.sandbox) as judge, contextlib.suppress(KeyboardInterrupt):
        print(ready(target.name), file=verdicts, flush=True)
        for request in requests(sys.stdin):
            if isinstance(request, Request):
                try:
                    line = answer(request, judge.evaluate(request.candidate))
                except EvaluatorError as error:
                    line = failure(request.id, str(error))
            else:
                line = failure(None, str(request))
            print(line, file=verdicts, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
