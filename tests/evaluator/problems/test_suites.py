"""What holds for the suites of every problem."""

from dataclasses import replace

import pytest

from evaluator.problem import Case, get_problem, get_suite
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
