"""A judge for ``--evaluator-command`` that finds what it is told: sources that hold its first argument are wrong."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from avo.evaluator.candidate import Candidate
from avo.evaluator.catalogue import get_problem, get_suite
from avo.evaluator.evaluation import CaseScore, Evaluation, Score, Status
from avo.evaluator.fake import FakeEvaluator
from avo.evaluator.serving.protocol import MalformedRequest, answer_line, ready, requests
from avo.evaluator.target import ScoreKind
from avo.evaluator.targets import get_target

parser = argparse.ArgumentParser()
parser.add_argument("wrong")
parser.add_argument("--target")
parser.add_argument("--suite")
options, _ = parser.parse_known_args()


def found(candidate: Candidate) -> Evaluation:
    """Return the verdict."""
    status, message, score = Status.INCORRECT, "case ragged: 12 of 77 rows are wrong", None
    if options.wrong not in candidate.source:
        suite = get_suite(get_problem(candidate.problem), options.suite)
        cases = tuple(CaseScore(case.name, 200.0, 1.0, "exp") for case in suite)
        status, message, score = Status.CORRECT, "", Score(ScoreKind.PREDICTED, options.target, cases)
    return Evaluation(status, message, options.target, options.suite, 1.0, score)


fake = FakeEvaluator(found)
print(ready(get_target(options.target)), flush=True)
for asked in requests(sys.stdin):
    assert not isinstance(asked, MalformedRequest)
    number, request = asked
    print(answer_line(number, fake.ask(request)), flush=True)
