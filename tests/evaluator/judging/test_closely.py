"""What is examined before acceptance besides the scored cases: order of calls, configurations, drawn cases."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Status
from avo.evaluator.judging import closely
from avo.evaluator.judging.planning import digest_of
from avo.evaluator.judging.refusal import Refused
from avo.evaluator.plan import Configuration, LaunchPlan
from avo.evaluator.problem import Case, Problem
from avo.evaluator.problems.mha import MHA

CANDIDATE = Candidate("mha", "")
SHOWN = MHA.suites["quick"]
HELD_OUT = MHA.suites["held_out"]


class Calls:
    """A candidate's host code, which may know what else it was called for in the same process."""

    def __init__(self, *, honest: bool) -> None:
        self._honest = honest
        self.sessions: list[list[str]] = []

    def alternatives(self, candidate: Candidate, problem: Problem, cases: Sequence[Case]) -> closely.Plans:
        self.sessions.append([case.name for case in cases])
        known = {case.name for case in (*problem.correctness_cases, *SHOWN)}
        cheats = not self._honest and known.issuperset(self.sessions[-1])
        return tuple((plan(case.name, *["cheats"] * cheats),) for case in cases)

    def kinds(
        self, candidate: Candidate, problem: Problem, cases: Sequence[Case], *, arguments: bool = True
    ) -> list[str]:
        return ["one"] * len(cases)


def plan(case: str, *choices: str) -> LaunchPlan:
    buffers, configurations = (), tuple(Configuration(choice, "", choice) for choice in choices)
    return LaunchPlan(case + "".join(choices), buffers, (), (), configurations)


def captured(
    calls: Calls, scored: str | None = None
) -> tuple[closely.Plans, list[tuple[Case, tuple[LaunchPlan, ...]]]]:
    return closely.captured(calls, CANDIDATE, MHA, HELD_OUT, SHOWN, scored, random.Random(3))  # type: ignore[arg-type]


def test_plans_come_back_in_order_although_calls_are_made_in_another() -> None:
    calls = Calls(honest=True)
    plans, drawn = captured(calls)
    assert [of_case[0].case for of_case in plans] == [case.name for case in HELD_OUT]
    assert all(of_case[0].case == case.name for case, of_case in drawn)
    _, first, second = calls.sessions
    assert sorted(first) == sorted(case.name for case in (*HELD_OUT, *SHOWN))
    assert first != [case.name for case in (*HELD_OUT, *SHOWN)]
    assert {case.name for case in SHOWN} < set(second)


def test_a_candidate_that_tells_the_examination_from_the_scoring_is_refused() -> None:
    with pytest.raises(Refused, match="launches something else when it is called for other cases") as caught:
        captured(Calls(honest=False))
    assert caught.value.fault.status is Status.FORBIDDEN


def test_plans_other_than_those_that_were_scored_are_refused() -> None:
    scored = digest_of((plan(case.name),) for case in (*MHA.correctness_cases, *SHOWN))
    captured(Calls(honest=True), scored)
    with pytest.raises(Refused, match="launches something else than when it was scored") as caught:
        captured(Calls(honest=True), digest_of([[plan("another")]]))
    assert caught.value.fault.status is Status.FORBIDDEN


def test_every_configuration_is_looked_at_but_the_fastest_where_it_is() -> None:
    names = [f"c{i}" for i in range(12)]
    plans = {case: [plan(case.name, name) for name in names] for case in MHA.suites["paper"]}
    fastest = [of_case[3] for of_case in plans.values()]
    further = closely.others(plans.items(), fastest, random.Random(1))
    assert {each.configurations[0].choice for _, each in further} == set(names) - {"c3"}
    assert len(further) == closely.MOST_OTHERS
    assert len({id(each) for _, each in further}) == len(further)
    (case, of_case), *_ = plans.items()
    few = closely.others([(case, of_case)], fastest, random.Random(1))
    assert sorted(each.configurations[0].choice for _, each in few) == sorted(set(names) - {"c3"})


def test_a_drawn_case_gets_any_configuration_that_fits() -> None:
    plans = [plan("drawn", name) for name in ("fits", "does not", "fits too")]
    fit = {replace(plans[i].configurations[0], key="another key") for i in (0, 2)}
    chosen = {closely.one_of(plans, fit, random.Random(i)).case for i in range(20)}
    assert chosen == {"drawnfits", "drawnfits too"}
    assert closely.one_of(plans, set(), random.Random(1)) is plans[0]
