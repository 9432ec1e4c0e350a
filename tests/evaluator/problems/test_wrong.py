"""Every problem's folder is complete, and the wrong answers in it are refused with a message that says where."""

import re
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest

from avo.evaluator import problems
from avo.evaluator.candidate import Candidate
from avo.evaluator.catalogue import get_problem
from avo.evaluator.evaluation import Evaluation, Fault
from avo.evaluator.judging.judge import Judge
from avo.evaluator.offline.errors import FaultsFound
from avo.evaluator.problem import HELD_OUT
from avo.evaluator.problems import PROBLEMS
from avo.evaluator.problems.mutant import Mutant
from avo.knowledge_base.library import Library
from avo.seeds import claimed, seed_source
from bench.orders import module_of
from tests.evaluator.problems.offline_kernel import first_fault

WRONG: dict[str, dict[str, Mutant]] = {
    kind: import_module(f"{problems.__name__}.{kind}.wrong").WRONG for kind in PROBLEMS
}
FAULTS = [
    pytest.param(kind, fault, marks=[pytest.mark.corpus] * bool(place))
    for kind, mutants in WRONG.items()
    for place, fault in enumerate(mutants)
]


@pytest.mark.parametrize("kind", PROBLEMS)
def test_a_problem_has_a_name_held_out_shapes_wrong_answers_a_seed_and_a_note(kind: str) -> None:
    assert PROBLEMS[kind].name == kind
    assert PROBLEMS[kind].suites[HELD_OUT]
    assert WRONG[kind]
    assert [fault for fault, mutant in WRONG[kind].items() if not mutant.message] == []
    assert claimed(kind)
    assert any(kind in note.problems for note in Library.load().notes)


@pytest.mark.parametrize(("kind", "fault"), FAULTS)
def test_a_wrong_answer_is_refused_with_a_message_that_says_where(
    judge: Judge, kind: str, fault: str, tmp_path: Path
) -> None:
    """Those of mha go through the judge. For others the small cases, a tenth of its time, mostly find the fault."""
    mutant = WRONG[kind][fault]
    name = mutant.problem(kind)
    source = mutant.of(seed_source(name, mutant.seed))
    found: Fault | Evaluation | None = None
    if name != "mha":
        with suppress(FaultsFound):
            found = first_fault(get_problem(name), module_of(source, tmp_path))
    if found is None or found.status is not mutant.status:
        found = judge.evaluate(Candidate(name, source))
    assert found.status is mutant.status, found.message
    assert re.search(mutant.message, found.message), found.message
