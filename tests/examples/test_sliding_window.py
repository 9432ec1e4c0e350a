"""The example of a problem works: its kernel is judged correct, and a wrong kernel is seen."""

import math
from pathlib import Path

import pytest
import torch

from avo.evaluator.candidate import Candidate
from avo.evaluator.catalogue import get_problem
from avo.evaluator.evaluation import Status
from avo.evaluator.judging.judge import Judge
from avo.evaluator.problem import Case
from avo.evaluator.problems.dense import views
from tests import forward
from tests.corpus import sample

EXAMPLES = Path(__file__).parents[2] / "examples"
NAME = str(EXAMPLES / "sliding_window.py")
KERNEL = (EXAMPLES / "sliding_window_seed.py").read_text()
PROBLEM = get_problem(NAME)


@pytest.mark.long
def test_its_kernel_is_correct_and_scored(judge: Judge) -> None:
    evaluation = judge.evaluate(Candidate(NAME, KERNEL))
    assert evaluation.status is Status.CORRECT, evaluation.message
    assert evaluation.score is not None
    assert [case.case for case in evaluation.score.cases] == ["8k-512"]


@pytest.mark.parametrize(
    ("right", "wrong"),
    sample([("distance < window", "distance <= window"), ("start_m - window + 1", "start_m - window + 65")], 2),
)
def test_a_window_that_is_off_is_seen(judge: Judge, right: str, wrong: str) -> None:
    assert right in KERNEL
    assert judge.evaluate(Candidate(NAME, KERNEL.replace(right, wrong))).status is Status.INCORRECT


@pytest.mark.parametrize("case", PROBLEM.correctness_cases, ids=lambda case: case.name)
def test_its_reference_and_flops_are_the_definition(case: Case) -> None:
    window = dict(PROBLEM.call(case).scalars)["window"]
    visible = torch.ones(case.q_len, case.q_len, dtype=torch.bool).tril() & ~torch.ones(
        case.q_len, case.q_len, dtype=torch.bool
    ).tril(-window)
    assert PROBLEM.flops(case) == 4 * 128 * case.batch * case.heads * int(visible.sum())
    storages = PROBLEM.make_inputs(case, 1)
    q, k, v = (tensor[1, 0].double() for tensor in views(case, storages).values())
    logits = (q @ k.T / math.sqrt(128)).masked_fill(~visible, -math.inf)
    out, lse, _ = forward.reference(PROBLEM, case, storages, 1, 0, torch.arange(case.q_len))
    torch.testing.assert_close(out, logits.softmax(-1) @ v)
    torch.testing.assert_close(lse, logits.logsumexp(-1))
