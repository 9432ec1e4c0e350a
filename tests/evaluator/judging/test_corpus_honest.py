"""Honest kernels in the styles of many authors are accepted, whatever they look like."""

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Status
from avo.evaluator.judging.judge import Judge
from avo.evaluator.problems.mha import MHA
from corpora.edits import HONEST
from tests.corpus import sample, soaked
from tests.evaluator.problems import (
    test_backward_kernels,
    test_decode,
    test_fsa_backward_kernels,
    test_fsa_kernels,
    test_gqa_kernels,
)

pytestmark = pytest.mark.corpus


@pytest.mark.parametrize("name", sample(HONEST["mha"], 1, 3))
def test_an_honest_kernel_is_correct(judge: Judge, once: str, name: str) -> None:
    evaluation = judge.evaluate(Candidate(once, HONEST["mha"][name]))
    if "Block pointers have been removed" in evaluation.message:
        pytest.skip("this version of Triton has no block pointers")
    assert evaluation.status is Status.CORRECT, evaluation.message
    assert evaluation.score is not None
    assert [case.case for case in evaluation.score.cases] == [MHA.suites["quick"][0].name]


STYLES = {
    "gqa": test_gqa_kernels.HONEST_KERNELS,
    "mha_backward": test_backward_kernels.HONEST_KERNELS,
    "decode": test_decode.HONEST_KERNELS,
    "fsa": test_fsa_kernels.HONEST_KERNELS,
    "fsa_backward": test_fsa_backward_kernels.HONEST_KERNELS,
}
OF_OTHERS = {problem: {**styles, **HONEST.get(problem, {})} for problem, styles in STYLES.items()}
OTHERS = [(problem, name) for problem, sources in OF_OTHERS.items() for name in sources]
CHOSEN = {(problem, name) for problem in STYLES for name in (next(iter(STYLES[problem])), *HONEST.get(problem, {}))}
"""Those that CI judges."""


@pytest.mark.parametrize(("problem", "name"), soaked(OTHERS, {*OTHERS} - CHOSEN))
def test_an_honest_kernel_for_another_problem_is_correct(judge: Judge, problem: str, name: str) -> None:
    evaluation = judge.evaluate(Candidate(problem, OF_OTHERS[problem][name]))
    assert evaluation.status is Status.CORRECT, evaluation.message
