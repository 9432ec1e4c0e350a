"""The judge of the world of fakes as a command: ``--evaluator-command 'python fake_judge.py'``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from evaluator.evaluation import Fault, Status
from evaluator.inspection import Findings
from evaluator.protocol import (
    InspectRequest,
    MalformedRequest,
    ProfileRequest,
    answer,
    explanation,
    ready,
    requests,
    seen,
)
from evaluator.target import get_target
from tests.avo.fakes import judge


def main() -> None:
    """Serve until standard input ends."""
    print(ready(get_target("h100")), flush=True)
    for request in requests(sys.stdin):
        assert not isinstance(request, MalformedRequest)
        if isinstance(request, InspectRequest):
            line = seen(request, Findings(text="looked"))
        elif isinstance(request, ProfileRequest):
            line = explanation(request, Fault(Status.UNSUPPORTED, "no profile here"))
        else:
            line = answer(request, judge(request.candidate))
        print(line, flush=True)


if __name__ == "__main__":
    main()
