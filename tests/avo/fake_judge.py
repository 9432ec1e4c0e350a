"""The judge of the world of fakes as a command: ``--evaluator-command 'python fake_judge.py'``.

``python fake_judge.py kernels`` takes any kernel for correct, as fast as its digest will have it, after a moment.
``python fake_judge.py slowly`` takes a fifth of a second for a verdict, so that it can be killed before it gives one.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Evaluation, Fault, Status
from avo.evaluator.fake import FakeEvaluator
from avo.evaluator.inspection import Findings
from avo.evaluator.serving.protocol import MalformedRequest, answer_line, ready, requests
from tests.avo.fakes import judge


def judge_kernel(candidate: Candidate) -> Evaluation:
    """Return the verdict of the world of fakes on a kernel, or on a canary made of one."""
    time.sleep(0.05)
    kernel, _, canary = candidate.source.partition("_canary")
    speed = 100 + int(Candidate(candidate.problem, kernel.strip()).digest[:8], 16) / 2**32
    return judge(Candidate(candidate.problem, f"tflops = {speed}\n{canary and '_canary' + canary}"))


def judge_slowly(candidate: Candidate) -> Evaluation:
    """Return the verdict of the world of fakes, but not at once."""
    time.sleep(0.2)
    return judge(candidate)


JUDGES = {"kernels": judge_kernel, "slowly": judge_slowly}


def main() -> None:
    """Serve until standard input ends."""
    fake = FakeEvaluator(JUDGES.get(sys.argv[1], judge), Fault(Status.UNSUPPORTED, "no profile here"))
    fake.findings = Findings(text="looked")
    print(ready(fake.target), flush=True)
    for asked in requests(sys.stdin):
        assert not isinstance(asked, MalformedRequest)
        number, request = asked
        print(answer_line(number, fake.ask(request)), flush=True)


if __name__ == "__main__":
    main()
