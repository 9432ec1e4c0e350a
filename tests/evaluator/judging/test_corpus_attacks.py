"""Candidates that attack the evaluator are rejected for what they do, or change nothing."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import CaseScore, Evaluation, Status
from avo.evaluator.judging import execution
from avo.evaluator.judging.judge import Judge
from avo.evaluator.problem import HELD_OUT
from avo.evaluator.problems import PROBLEMS
from avo.evaluator.problems.mha import MHA
from avo.evaluator.sandbox.jobs import ForkServer
from avo.evaluator.targets import get_target
from corpora.attacks import benchmark, gluon, harmless, host, kernels, lengths, plans, problems, process
from tests.corpus import sample
from tests.kernels import SEED, Attack

ATTACKS = {
    (module.__name__.rpartition(".")[2], name): attack
    for module in (host, process, kernels, plans, benchmark)
    for name, attack in module.ATTACKS.items()
}
NO_FASTER = 1.03
"""The predicted speed of a candidate that does the seed's work in other words, relative to the seed's, at most: the
compiler's choices differ."""


def judged(judge: Judge, source: str) -> Evaluation:
    return judge.evaluate(Candidate("mha", source))


def beside(seed: Evaluation, evaluation: Evaluation) -> list[tuple[CaseScore, CaseScore]]:
    """The scores of a correct candidate, each with the seed's."""
    assert evaluation.status is Status.CORRECT, evaluation.message
    assert seed.score is not None
    assert evaluation.score is not None
    return list(zip(evaluation.score.cases, seed.score.cases, strict=True))


def check(judge: Judge, attack: Attack, problem: str) -> None:
    evaluation = judge.evaluate(Candidate(problem, attack.source))
    assert evaluation.status is attack.status, evaluation.message
    assert re.search(attack.message, evaluation.message), evaluation.message


@pytest.mark.parametrize(("where", "name"), sample(ATTACKS, 96, 3))
def test_an_attack_is_rejected_for_what_it_does(
    judge: Judge, once: str, impatient: Callable[..., None], monkeypatch: pytest.MonkeyPatch, where: str, name: str
) -> None:
    attack = ATTACKS[where, name]
    if name == "a loop that never ends":
        monkeypatch.setattr(execution, "EXECUTION_S", 4.0)
    if name in ("an endless loop", "an unrolled loop of a million steps"):
        impatient(cpu_s=3)
    if name == "a pause":
        impatient(wall_s=2)
    check(judge, attack, once)


@pytest.mark.long
@pytest.mark.parametrize("name", sample(harmless.CANDIDATES, 32, 4))
def test_an_attack_that_is_let_through_changes_nothing(judge: Judge, seed: Evaluation, name: str) -> None:
    evaluation = judged(judge, harmless.CANDIDATES[name])
    assert evaluation.status is Status.CORRECT, evaluation.message
    assert evaluation.plan_digest == seed.plan_digest
    assert evaluation.score == seed.score


@pytest.mark.corpus
@pytest.mark.parametrize("name", harmless.NO_FASTER)
def test_work_that_depends_on_the_inputs_is_counted(judge: Judge, seed: Evaluation, name: str) -> None:
    for case, honest in beside(seed, judged(judge, harmless.NO_FASTER[name])):
        assert case.tflops <= NO_FASTER * honest.tflops


@pytest.mark.corpus
@pytest.mark.parametrize("name", harmless.SLOWER)
def test_work_besides_the_problem_is_charged(judge: Judge, seed: Evaluation, name: str) -> None:
    for case, honest in beside(seed, judged(judge, harmless.SLOWER[name])):
        assert case.time_us > honest.time_us + 300


@pytest.fixture(scope="module")
def few_cases() -> Iterator[None]:
    """The problem ``few``: little of ``mha``."""
    with pytest.MonkeyPatch.context() as patch:
        suites = MHA.suites | {"quick": MHA.suites["quick"][:1], HELD_OUT: MHA.suites[HELD_OUT][:1]}
        patch.setitem(PROBLEMS, "few", replace(MHA, correctness_cases=MHA.correctness_cases[:4], suites=suites))
        yield


@pytest.fixture(scope="module")
def close_judge(fork_server: ForkServer, few_cases: None) -> Iterator[Judge]:
    """A judge for few cases, whose examinations before acceptance draw the same every time."""
    with Judge(get_target("h100"), "quick", server=fork_server) as judge:
        yield judge


@pytest.fixture(scope="module")
def blackwell_judge(fork_server: ForkServer, few_cases: None) -> Iterator[Judge]:
    """The same for Blackwell."""
    with Judge(get_target("b200"), "quick", server=fork_server) as judge:
        yield judge


@pytest.mark.corpus
@pytest.mark.parametrize("name", lengths.ATTACKS)
def test_what_is_wrong_where_nobody_looks_is_not_accepted(close_judge: Judge, name: str) -> None:
    attack = lengths.ATTACKS[name]
    close_judge._tools.chance.seed(1)
    scored = close_judge.evaluate(Candidate("few", attack.source))
    assert scored.correct
    evaluation = close_judge.verify(Candidate("few", attack.source), scored.plan_digest)
    assert evaluation.status is attack.status, evaluation.message
    assert re.search(attack.message, evaluation.message), evaluation.message


@pytest.mark.corpus
@pytest.mark.parametrize("name", problems.ATTACKS)
def test_an_attack_on_another_problem_is_rejected_for_what_it_does(close_judge: Judge, name: str) -> None:
    problem, attack = problems.ATTACKS[name]
    check(close_judge, attack, problem)


@pytest.mark.corpus
@pytest.mark.parametrize("name", gluon.H100)
def test_an_attack_in_gluon_is_rejected_for_what_it_does(close_judge: Judge, name: str) -> None:
    check(close_judge, gluon.H100[name], "few")


@pytest.mark.corpus
@pytest.mark.parametrize("name", gluon.B200)
def test_an_attack_in_gluon_for_blackwell_is_rejected_for_what_it_does(blackwell_judge: Judge, name: str) -> None:
    check(blackwell_judge, gluon.B200[name], "few")


@pytest.mark.corpus
def test_the_judge_is_the_same_after_attacks(judge: Judge, seed: Evaluation) -> None:
    for name in ("the judge replaced", "the target made faster", "the evaluator's comparison replaced"):
        assert judged(judge, harmless.CANDIDATES[name]).correct
    assert judged(judge, SEED).score == seed.score
