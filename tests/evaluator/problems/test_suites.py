"""What holds for the suites of every problem."""

import random
from dataclasses import replace

import pytest
import torch

from evaluator.catalogue import get_problem, get_suite
from evaluator.problem import Case
from evaluator.problems import PROBLEMS


def shapes(problem: str, *suites: str) -> set[Case]:
    cases = [case for suite in suites for case in get_suite(get_problem(problem), suite)]
    return {replace(case, name="") for case in cases}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_no_shape_that_is_held_out_is_in_another_suite(problem: str) -> None:
    assert len(shapes(problem, "held_out")) == 3
    assert shapes(problem, "held_out").isdisjoint(shapes(problem, "quick", "paper"))


@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_quick_suite_is_a_small_part_of_the_papers(problem: str) -> None:
    assert len(shapes(problem, "quick")) == 2
    assert shapes(problem, "quick") < shapes(problem, "paper")


@pytest.mark.parametrize("problem", PROBLEMS)
def test_names_of_cases_are_their_own(problem: str) -> None:
    found = get_problem(problem)
    for cases in (found.correctness_cases, *found.suites.values()):
        assert len({case.name for case in cases}) == len(cases)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_cases_exist_at_other_lengths(problem: str) -> None:
    """The inputs have the shapes that ``call`` names, and ``reference`` takes them."""
    found, chance = get_problem(problem), random.Random(1)
    for case in found.correctness_cases:
        drawn = found.at_other_lengths(case, chance)
        assert replace(drawn, batch=case.batch, q_len=case.q_len, kv_len=case.kv_len) == case
        assert drawn.q_len > case.q_len
        assert drawn.kv_len - drawn.q_len >= case.kv_len - case.q_len >= 0
        assert 1 <= drawn.batch <= case.batch
        inputs = found.make_inputs(drawn, 3)
        sizes = {spec.name: spec.size for spec in found.call(drawn).tensors}
        assert {name: storage.numel() for name, storage in inputs.items()}.items() <= sizes.items()
        out, lse, _ = found.reference(drawn, inputs, drawn.batch - 1, drawn.heads - 1, torch.arange(drawn.q_len))
        assert bool(out.isfinite().all())
        assert bool(lse.isfinite().all())
