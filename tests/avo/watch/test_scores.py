"""Scores of versions: gains over parents, and comparisons with published baselines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avo.evaluator.evaluation import CaseScore, Score
from avo.evaluator.problem import Baseline
from avo.evaluator.resolution import between
from avo.evaluator.target import ScoreKind
from avo.lineage_db.store import Store
from avo.watch.scores import compare, gain
from tests.avo.recorded import Recorded


def test_a_gain_is_over_the_fastest_parent(store: Store) -> None:
    run = Recorded(store)
    run.step(100.0)
    run.step(120.0, (0,))
    run.step(132.0, (0, 1))
    versions = store.versions(run.run.id)
    by_number = {version.number: version for version in versions}
    assert [gain(version, by_number) for version in versions] == [None, pytest.approx(0.2), pytest.approx(0.1)]


def test_the_width_of_a_gain_is_that_of_the_difference_of_both() -> None:
    steady, shaky = (
        Score(ScoreKind.PREDICTED, "h100", _score(a=100.0).cases, neighbours=neighbours)
        for neighbours in (((99.9,), (100.0,), (100.1,)), ((96.0,), (100.0,), (104.0,)))
    )
    alone, apart = between(steady, None), between(steady, shaky)
    assert alone is not None
    assert apart is not None
    assert alone < 0.012 < 0.05 < apart == pytest.approx(between(shaky, steady))
    assert between(steady, _score(a=90.0)) == alone, "a kernel whose neighbours are not known has such as its own"
    assert between(_score(a=90.0), None) is None
    assert between(None, steady) is None


def _score(**cases: float) -> Score:
    return Score(
        ScoreKind.PREDICTED, "h100", tuple(CaseScore(name, value, 1.0, "exp") for name, value in cases.items())
    )


def test_a_baseline_is_compared_over_the_cases_that_both_have() -> None:
    score = _score(a=100.0, b=400.0)
    partial = Baseline("partial", "h100", {"a": 200.0, "c": 5.0}, "")
    whole = Baseline("whole", "h100", {"a": 100.0, "b": 100.0}, "")
    foreign = Baseline("foreign", "b200", {"a": 100.0}, "")
    apart = Baseline("apart", "h100", {"c": 100.0}, "")
    found = compare(score, [partial, whole, foreign, apart])
    assert [(c.name, c.shared, c.total) for c in found] == [("whole", 2, 2), ("partial", 1, 2)]
    assert [c.ours for c in found] == [pytest.approx(200.0), pytest.approx(100.0)]
    assert [c.published for c in found] == [pytest.approx(100.0), pytest.approx(200.0)]


@given(st.lists(st.floats(1.0, 2000.0), min_size=1, max_size=8), st.floats(0.1, 10.0))
def test_a_score_compared_with_a_multiple_of_itself_has_that_ratio(values: list[float], factor: float) -> None:
    score = _score(**{f"case{index}": value for index, value in enumerate(values)})
    (found,) = compare(score, [Baseline("scaled", "h100", {c.case: c.tflops * factor for c in score.cases}, "")])
    assert found.published / found.ours == pytest.approx(factor)
