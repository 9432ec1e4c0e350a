"""A judge for ``--evaluator-command`` that finds what it is told: sources that hold its first argument are wrong."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from evaluator.evaluation import Evaluation, Status
from evaluator.protocol import Request, answer, ready, requests
from evaluator.target import get_target
from tests.avo.sample_run import make_evaluation

parser = argparse.ArgumentParser()
parser.add_argument("wrong")
parser.add_argument("--target")
parser.add_argument("--suite")
options, _ = parser.parse_known_args()
print(ready(get_target(options.target)), flush=True)
for request in requests(sys.stdin):
    assert isinstance(request, Request)
    found: Evaluation = make_evaluation(200.0, target=options.target, suite=options.suite)
    if options.wrong in request.candidate.source:
        found = replace(make_evaluation(Status.INCORRECT), suite=options.suite, target=options.target)
    print(answer(request, found), flush=True)
