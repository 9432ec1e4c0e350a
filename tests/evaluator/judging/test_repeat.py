"""The same call gives the same plan, or the candidate is refused."""

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.catalogue import get_problem, get_suite
from avo.evaluator.judging.judge import Judge
from avo.evaluator.judging.refusal import Refused
from avo.evaluator.sandbox.jobs import ForkServer
from avo.evaluator.targets import get_target
from corpora.attacks.host import FICKLE
from tests.corpus import sample
from tests.kernels import SEED


def repeat(server: ForkServer, source: str) -> None:
    problem = get_problem("mha")
    with Judge(get_target("h100"), "quick", server=server) as judge:
        cases = problem.correctness_cases[:1], get_suite(problem, "quick")
        judge._captured(Candidate("mha", source), *cases).repeat()


def test_a_candidate_that_repeats_itself_passes(fork_server: ForkServer) -> None:
    repeat(fork_server, SEED)


@pytest.mark.parametrize("way", sample(FICKLE, 6))
def test_what_launches_something_else_when_called_again_is_refused(fork_server: ForkServer, way: str) -> None:
    with pytest.raises(Refused, match="launches other plans when it is called again"):
        repeat(fork_server, FICKLE[way])
