"""The best kernels known are made by moves, and right."""

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Status
from avo.evaluator.evaluators import EvaluateRequest
from avo.evaluator.judges import local_judge
from avo.evaluator.targets import get_target
from bench.claims import made
from bench.known import GLUON, TRITON, Paths
from bench.known.__main__ import README
from tests.corpus import soaked

pytestmark = pytest.mark.long

OF_CI = {("mha", "h100"), ("mha", "b200"), ("fsa", "h100")}


@pytest.mark.parametrize("paths", [TRITON, GLUON], ids=["Triton", "Gluon"])
def test_every_path_is_in_its_table_and_each_of_its_moves_changes_the_kernel(paths: Paths) -> None:
    page = README.read_text()
    for (problem, target), steps in paths.items():
        assert len({made(steps[:count], target) for count in range(1, len(steps) + 1)}) == len(steps)
        rows = [f"| {problem} | {target} | `{step}` | correct | " for step in steps]
        assert [row for row in rows if row not in page] == []


@pytest.mark.parametrize(("problem", "target"), soaked(TRITON, set(TRITON) - OF_CI))
def test_a_known_kernel_is_correct(problem: str, target: str) -> None:
    with local_judge(get_target(target), "quick") as judge:
        found = judge.ask(EvaluateRequest(Candidate(problem, made(TRITON[problem, target], target))))
    assert found.status is Status.CORRECT
