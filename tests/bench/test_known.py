"""The best kernels known are there for the problems and targets that are searched, and right."""

import re

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Evaluation, Status
from avo.evaluator.evaluators import EvaluateRequest
from avo.evaluator.judges import local_judge
from avo.evaluator.targets import get_target
from avo.seeds import seed_source
from bench.known import gluon
from bench.known.__main__ import HERE, PATHS, SPARSE, sources, walk
from bench.known.attempts import TARGET, kernels
from bench.known.sparse import scattered
from tests.corpus import soaked

pytestmark = pytest.mark.long

PLACES = [*PATHS, *(("fsa", target) for target in SPARSE)]
OF_CI = {("mha", "h100"), ("mha", "b200"), ("fsa", "h100")}


def test_there_is_a_kernel_for_each_path_of_moves() -> None:
    assert set(PLACES) == set(sources())


def test_the_tables_have_every_kernel_and_every_move() -> None:
    page = (HERE / "README.md").read_text()
    assert all(f"| {problem} | {target} | correct |" in page for problem, target in sources())
    assert all(f"| `{move}`: " in page for path in PATHS.values() for move in path)


def test_the_kernels_in_gluon_are_made_and_in_their_table() -> None:
    page = (HERE / "README.md").read_text()
    for (problem, target), source in gluon.sources().items():
        assert "from triton.experimental import gluon" in source
        steps = ", ".join(f"`{step}`" for step in gluon.PATHS[problem, target])
        assert re.search(rf"(?m)^\| {problem} \| {target} \| correct \|.*\| {re.escape(steps)} \|$", page)


@pytest.mark.parametrize("place", PATHS, ids="-".join)
def test_every_move_of_a_path_applies(place: tuple[str, str]) -> None:
    assert len(list(walk(*place))) == 1 + len(PATHS[place])


@pytest.mark.parametrize(("problem", "target"), soaked(PLACES, set(PLACES) - OF_CI))
def test_a_known_kernel_is_correct(problem: str, target: str) -> None:
    with local_judge(get_target(target), "quick") as judge:
        found = judge.ask(EvaluateRequest(Candidate(problem, sources()[problem, target])))
    assert isinstance(found, Evaluation)
    assert found.status is Status.CORRECT


def test_the_seed_for_fsa_is_correct_with_its_rows_scattered_by_a_descriptor() -> None:
    source = scattered(seed_source("fsa", "kv_outer"))
    assert "partial.scatter(" in source
    with local_judge(get_target("b200"), "quick") as judge:
        assert judge.ask(EvaluateRequest(Candidate("fsa", source))).status is Status.CORRECT


def test_what_a_language_model_found_is_made_again_and_correct() -> None:
    page = (HERE / "README.md").read_text()
    made = list(kernels())
    assert len({source for _, source in made}) == 4
    assert all(f"| {what} | correct |" in page for what, _ in made)
    with local_judge(get_target(TARGET), "quick") as judge:
        verdicts = [judge.ask(EvaluateRequest(Candidate("mha", source))).status for _, source in (made[0], made[-1])]
    assert verdicts == [Status.CORRECT, Status.CORRECT]
