"""The judge of the world of fakes as a command: ``--evaluator-command 'python fake_judge.py'``.

``python fake_judge.py kernels`` takes any kernel for correct, as fast as its digest will have it, after a moment.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from evaluator.candidate import Candidate
from evaluator.evaluation import Evaluation, Fault, Status
from evaluator.inspection import Findings
from evaluator.serving.protocol import (
    InspectRequest,
    MalformedRequest,
    ProfileRequest,
    answer,
    explanation,
    ready,
    requests,
    seen,
)
from evaluator.targets import get_target
from tests.avo.fakes import judge


def judge_kernel(candidate: Candidate) -> Evaluation:
    """Return the verdict of the world of fakes on a kernel, or on a canary made of one."""
    time.sleep(0.05)
    kernel, _, canary = candidate.source.partition("_canary")
    speed = 100 + int(Candidate(candidate.problem, kernel.strip()).digest[:8], 16) / 2**32
    return judge(Candidate(candidate.problem, f"tflops = {speed}\n{canary and '_canary' + canary}"))


def main() -> None:
    """Serve until standard input ends."""
    verdict = judge_kernel if "kernels" in sys.argv else judge
    print(ready(get_target("h100")), flush=True)
    for request in requests(sys.stdin):
        assert not isinstance(request, MalformedRequest)
        if isinstance(request, InspectRequest):
            line = seen(request, Findings(text="looked"))
        elif isinstance(request, ProfileRequest):
            line = explanation(request, Fault(Status.UNSUPPORTED, "no profile here"))
        else:
            line = answer(request, verdict(request.candidate))
        print(line, flush=True)


if __name__ == "__main__":
    main()
