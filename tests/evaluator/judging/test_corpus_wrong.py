"""Right kernels, edited to be subtly wrong, are seen to be wrong, and the message says where."""

import re

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.judging.judge import Judge
from avo.evaluator.problems.mha.wrong import WRONG
from avo.evaluator.problems.mutant import Mutant
from avo.seeds import seed_source
from tests.corpus import sample
from tests.evaluator.wrong import styles
from tests.kernels import stored

OF_MHA = {fault: mutant for fault, mutant in WRONG.items() if not mutant.setting}


def check(judge: Judge, mutant: Mutant, source: str) -> None:
    evaluation = judge.evaluate(Candidate("mha", mutant.of(source)))
    assert evaluation.status is mutant.status, evaluation.message
    assert re.search(mutant.message, evaluation.message), evaluation.message


@pytest.mark.parametrize("fault", sample(OF_MHA, 64))
def test_a_mutant_of_the_seed_is_caught(judge: Judge, fault: str) -> None:
    check(judge, OF_MHA[fault], seed_source("mha"))


@pytest.mark.corpus
@pytest.mark.parametrize(("name", "fault"), styles.MUTANTS)
def test_a_mutant_of_an_honest_kernel_is_caught(judge: Judge, name: str, fault: str) -> None:
    check(judge, styles.MUTANTS[name, fault], stored(f"honest/mha/{name}"))
