"""Which model the next step asks: what pays is asked more, nothing is given up, and what changes is noticed."""

import random

import pytest

from avo.agents.agentic import choose
from avo.agents.bandit import FLOOR, ModelShare, shares
from avo.agents.settings import ModelSettings
from avo.lineage_db.entries import PaidStep

ONE, TWO = (ModelSettings(name=name) for name in ("one", "two"))


def steps(*told: tuple[str, float, float | None]) -> list[PaidStep]:
    return [PaidStep(number, model, 1000, usd, gain) for number, (model, gain, usd) in enumerate(told)]


def share(found: tuple[ModelShare, ...]) -> dict[str, float]:
    return {each.model: each.share for each in found}


def test_before_any_step_has_ended_shares_are_those_of_the_weights() -> None:
    found = shares([ONE, ModelSettings(name="two", weight=3.0)], [])
    assert share(found) == pytest.approx({"one": 0.25, "two": 0.75})


def test_the_model_that_gains_more_for_its_price_is_asked_more_and_none_is_given_up() -> None:
    paid = steps(*20 * [("one", 0.02, 1.0), ("two", 0.02, 0.1)])
    found = share(shares([ONE, TWO], paid))
    assert found["two"] > 0.7
    assert found["one"] >= FLOOR / 2
    assert sum(found.values()) == pytest.approx(1.0)


def test_where_a_price_is_not_known_tokens_are_the_cost() -> None:
    paid = steps(*20 * [("one", 0.04, 100.0), ("two", 0.02, None)])
    found = shares([ONE, TWO], paid)
    assert share(found)["one"] > 0.6
    assert [each.usd for each in found] == [2000.0, None]


def test_a_model_that_was_asked_less_is_asked_more_than_its_gains_say() -> None:
    often, rarely = steps(*20 * [("one", 0.01, 1.0)]), steps(("two", 0.01, 1.0))
    assert share(shares([ONE, TWO], [*often, *rarely]))["two"] > 0.5


def test_old_steps_count_less() -> None:
    before = [("one", 0.05, 1.0), ("two", 0.0, 1.0)]
    after = [("one", 0.0, 1.0), ("two", 0.02, 1.0)]
    found = share(shares([ONE, TWO], steps(*20 * before, *60 * after)))
    assert found["two"] > 0.6


def test_steps_of_models_that_the_run_no_longer_has_do_not_count() -> None:
    found = shares([ONE, TWO], steps(("gone", 1.0, 1.0)))
    assert share(found) == pytest.approx({"one": 0.5, "two": 0.5})
    assert [each.steps for each in found] == [0, 0]


def test_in_a_simulated_run_most_steps_go_to_the_better_of_two_models() -> None:
    asked, paid, rng = [], list[PaidStep](), random.Random(3)
    for number in range(120):
        chosen = choose([ONE, TWO], rng, paid).name
        gain = (0.03 if chosen == "two" else 0.01) if rng.random() < 0.3 else 0.0
        paid.append(PaidStep(number, chosen, 1000, 1.0, gain))
        asked.append(chosen)
    assert asked[60:].count("two") > 40
    assert asked[60:].count("one") > 0
