"""The verdict on the seed, and limits of a test's own."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Evaluation, Status
from avo.evaluator.judging.judge import Judge
from avo.evaluator.problems import PROBLEMS
from avo.evaluator.problems.mha import MHA
from avo.seeds import seed_source


@pytest.fixture
def impatient(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give candidates' host code limits of the test's own: a test that waits for one should not wait long."""

    def limit(**limits: int) -> None:
        capturer = judge._tools.planner._capturer
        monkeypatch.setattr(capturer, "_limits", replace(capturer._limits, **limits))

    return limit


@pytest.fixture(scope="session")
def seed(judge: Judge) -> Evaluation:
    """What the judge says of the seed of ``mha``."""
    evaluation = judge.evaluate(Candidate("mha", seed_source("mha")))
    assert evaluation.status is Status.CORRECT, evaluation.message
    return evaluation


@pytest.fixture(scope="module")
def once() -> Iterator[str]:
    """The problem ``mha`` with one case that is timed, of the two: for tests of what is right, not of how fast."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROBLEMS, "once", replace(MHA, suites=MHA.suites | {"quick": MHA.suites["quick"][:1]}))
        yield "once"
