"""``python -m evaluator``: a judge that reads requests and writes verdicts, one JSON object a line."""

import argparse
import contextlib
import os
import sys

from evaluator.errors import EvaluatorError
from evaluator.protocol import Request, answer, failure, ready, requests
from evaluator.target import get_target


def main() -> int:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m evaluator", description=__doc__)
    parser.add_argument("--target", required=True, help="architecture to judge for, e.g. h100")
    parser.add_argument("--suite", default="quick", help="benchmark cases: quick or paper")
    options = parser.parse_args()
    # Verdicts alone go to standard output: whatever a library prints goes to standard error.
    verdicts = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        target = get_target(options.target)
    except EvaluatorError as error:
        parser.error(str(error))
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    import torch

    from evaluator.judge import Judge

    torch.set_num_threads(1)
    with Judge(target, options.suite) as judge, contextlib.suppress(KeyboardInterrupt):
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
