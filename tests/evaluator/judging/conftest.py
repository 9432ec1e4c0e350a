"""A judge and its verdict on the seed, for the tests that ask for no other."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from evaluator import capture
from evaluator.candidate import Candidate
from evaluator.evaluation import Evaluation, Status
from evaluator.judging.judge import Judge
from evaluator.sandbox.jobs import ForkServer
from evaluator.targets import get_target
from seeds import seed_source


@pytest.fixture(scope="session")
def judge(fork_server: ForkServer) -> Iterator[Judge]:
    """A judge whose patience ends after 3 seconds of processor time, on a machine however busy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(capture, "DEFAULT_LIMITS", replace(capture.DEFAULT_LIMITS, wall_s=600))
        judge = Judge(get_target("h100"), "quick", server=fork_server, capture_cpu_s=3)
    with judge:  # other judges keep the usual limits
        yield judge


@pytest.fixture(scope="session")
def seed(judge: Judge) -> Evaluation:
    """What the judge says of the seed of ``mha``."""
    evaluation = judge.evaluate(Candidate("mha", seed_source("mha")))
    assert evaluation.status is Status.CORRECT, evaluation.message
    return evaluation
