"""What becomes a version."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avo.config import RunConfig
from avo.search.acceptance import accepts, outdated
from evaluator.evaluation import Comparison, Evaluation, Status, Verdict
from evaluator.target import ScoreKind
from lineage_db.records import Attempt, Version
from tests.avo.fakes import NOW, correct

SPEEDS = st.floats(min_value=0.01, max_value=1e4)
GAINS = st.floats(min_value=0, max_value=0.5)


def attempt(evaluation: Evaluation) -> Attempt:
    return Attempt(1, 1, 1, "digest", "source", "change", (), evaluation, NOW, NOW)


def lineage(*evaluations: Evaluation) -> list[Version]:
    return [Version(1, number, (), NOW, attempt(evaluation)) for number, evaluation in enumerate(evaluations)]


FAULT = Evaluation(Status.INCORRECT, "wrong", "h100", "quick", 1.0)


@given(st.lists(SPEEDS, max_size=4), GAINS)
def test_a_faulty_attempt_is_never_accepted(speeds: list[float], min_gain: float) -> None:
    assert not accepts(lineage(*map(correct, speeds)), attempt(FAULT), min_gain)


@given(SPEEDS, GAINS)
def test_any_correct_seed_is_accepted(speed: float, min_gain: float) -> None:
    assert accepts([], attempt(correct(speed)), min_gain)


@given(st.lists(SPEEDS, min_size=1, max_size=4), SPEEDS, GAINS)
def test_a_version_beats_every_other_by_the_least_gain(speeds: list[float], speed: float, min_gain: float) -> None:
    accepted = accepts(lineage(*map(correct, speeds)), attempt(correct(speed, plan="new")), min_gain)
    slack = 1e-9
    if accepted:
        assert all(speed >= other * (1 + min_gain) * (1 - slack) for other in speeds)
    else:
        assert any(speed < other * (1 + min_gain) * (1 + slack) for other in speeds)


def test_the_best_counts_not_the_latest() -> None:
    assert not accepts(lineage(correct(200.0), correct(100.0)), attempt(correct(150.0)), 0.002)


def test_without_a_least_gain_an_equal_with_another_plan_is_accepted() -> None:
    versions = lineage(correct(100.0, plan="a"))
    assert accepts(versions, attempt(correct(100.0, plan="b")), 0.0)
    assert not accepts(versions, attempt(correct(100.0, plan="b")), 0.002)


def test_by_default_versions_do_not_pile_up_for_less_than_a_percent() -> None:
    versions, least = lineage(correct(100.0)), RunConfig().min_gain
    assert not accepts(versions, attempt(correct(100.9)), least)
    assert accepts(versions, attempt(correct(101.1)), least)


def test_a_plan_of_the_lineage_is_not_accepted_again() -> None:
    versions = lineage(correct(50.0, plan="a"), correct(100.0, plan="b"))
    assert not accepts(versions, attempt(correct(300.0, plan="a")), 0.002)


def test_scores_that_cannot_be_compared_are_not_accepted() -> None:
    versions = lineage(correct(100.0))
    assert not accepts(versions, attempt(correct(900.0, target="b200")), 0.002)
    assert not accepts(versions, attempt(correct(900.0, suite="paper")), 0.002)
    assert not accepts(versions, attempt(correct(900.0, kind=ScoreKind.MEASURED)), 0.002)


def measured(speed: float, plan: str, incumbent: str = "", verdict: Verdict = Verdict.FASTER) -> Evaluation:
    evaluation = correct(speed, kind=ScoreKind.MEASURED, plan=plan)
    assert evaluation.score is not None
    comparison = Comparison(incumbent, 0.01, (0.1,), verdict) if incumbent else None
    return replace(evaluation, score=replace(evaluation.score, comparison=comparison))


MEASURED = lineage(measured(100.0, "seed"), measured(90.0, "best", "seed"))


def test_a_measured_attempt_is_accepted_if_shown_faster_than_the_latest_version_whatever_the_scores() -> None:
    assert accepts(MEASURED, attempt(measured(80.0, "new", "best")), 0.5)
    assert not accepts(MEASURED, attempt(measured(900.0, "new", "seed")), 0.0)
    assert not accepts(MEASURED, attempt(measured(900.0, "new")), 0.0)
    assert not accepts(MEASURED, attempt(measured(900.0, "seed", "best")), 0.0)


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict is not Verdict.FASTER])
def test_no_other_verdict_is_accepted_and_none_of_them_is_worth_another_comparison(verdict: Verdict) -> None:
    assert not accepts(MEASURED, attempt(measured(900.0, "new", "best", verdict)), 0.0)
    assert not outdated(MEASURED, attempt(measured(900.0, "new", "seed", verdict)))


def test_only_an_attempt_shown_faster_than_an_earlier_best_is_outdated() -> None:
    assert outdated(MEASURED, attempt(measured(90.0, "new", "seed")))
    assert not outdated(MEASURED, attempt(measured(90.0, "new", "best")))
    assert not outdated(MEASURED, attempt(measured(90.0, "seed", "seed")))
    assert not outdated([], attempt(measured(90.0, "new", "seed")))
    assert not outdated(lineage(correct(100.0)), attempt(correct(90.0)))
    assert not outdated(MEASURED, attempt(FAULT))


def test_measured_scores_are_not_compared_by_their_values() -> None:
    scores = [evaluation.score for evaluation in (measured(100.0, "a"), measured(200.0, "b"))]
    assert scores[0] is not None
    assert scores[1] is not None
    with pytest.raises(ValueError, match="by their Comparison"):
        scores[1].beats(scores[0], 0.01)


def test_a_version_measured_on_another_card_is_no_yardstick() -> None:
    new = measured(80.0, "new", "best")
    assert new.score is not None
    assert not accepts(MEASURED, attempt(replace(new, score=replace(new.score, card="another"))), 0.0)


def ranged(speed: float, low: float, high: float, plan: str) -> Evaluation:
    evaluation = correct(speed, plan=plan)
    assert evaluation.score is not None
    cases = tuple(replace(case, low_tflops=low, high_tflops=high) for case in evaluation.score.cases)
    return replace(evaluation, score=replace(evaluation.score, cases=cases))


def test_a_gain_that_vanishes_at_an_end_of_the_models_range_is_none() -> None:
    versions = lineage(ranged(100.0, 60.0, 140.0, "seed"))
    assert accepts(versions, attempt(ranged(110.0, 61.0, 150.0, "faster")), 0.01)
    assert not accepts(versions, attempt(ranged(110.0, 59.0, 150.0, "slower at the slow end")), 0.01)
    assert not accepts(versions, attempt(ranged(110.0, 61.0, 139.0, "slower at the fast end")), 0.01)
