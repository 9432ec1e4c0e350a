"""Right kernels in other styles, edited to be subtly wrong, are seen to be wrong, and the message says where."""

import re

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.judging.judge import Judge
from tests.evaluator.wrong import styles
from tests.kernels import stored


@pytest.mark.corpus
@pytest.mark.parametrize(("name", "fault"), styles.MUTANTS)
def test_a_mutant_of_an_honest_kernel_is_caught(judge: Judge, name: str, fault: str) -> None:
    mutant = styles.MUTANTS[name, fault]
    evaluation = judge.evaluate(Candidate("mha", mutant.of(stored(f"honest/mha/{name}"))))
    assert evaluation.status is mutant.status, evaluation.message
    assert re.search(mutant.message, evaluation.message), evaluation.message
