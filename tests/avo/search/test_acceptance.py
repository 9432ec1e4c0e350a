"""What becomes a version."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avo.config import RunConfig
from avo.evaluator.evaluation import CaseScore, Comparison, Evaluation, Score, Status, Verdict
from avo.evaluator.resolution import difference
from avo.evaluator.target import ScoreKind
from avo.lineage_db.records import Attempt, Version
from avo.search.acceptance import Thresholds, decide, outdated
from tests.avo.fakes import NOW, correct

SPEEDS = st.floats(min_value=0.01, max_value=1e4)
SHARE = RunConfig().min_share
GAINS = st.floats(min_value=0, max_value=0.5)


def attempt(evaluation: Evaluation) -> Attempt:
    return Attempt(1, 1, 1, "digest", "source", "change", (), evaluation, NOW, NOW)


def lineage(*evaluations: Evaluation) -> list[Version]:
    return [Version(1, number, (), NOW, attempt(evaluation)) for number, evaluation in enumerate(evaluations)]


def accepts(versions: Sequence[Version], evaluation: Evaluation, min_gain: float, min_share: float = SHARE) -> bool:
    decision = decide(versions, evaluation, Thresholds(min_gain, min_share))
    return decision is not None and not decision.refused


def beats(mine: Score, other: Score, min_gain: float, min_share: float) -> bool:
    best, challenger = (replace(correct(1.0, plan=plan), score=of) for plan, of in (("best", other), ("new", mine)))
    return accepts(lineage(best), challenger, min_gain, min_share)


FAULT = Evaluation(Status.INCORRECT, "wrong", "h100", "quick", 1.0)


@given(st.lists(SPEEDS, max_size=4), GAINS)
def test_a_faulty_attempt_is_never_accepted(speeds: list[float], min_gain: float) -> None:
    assert not accepts(lineage(*map(correct, speeds)), FAULT, min_gain)


@given(SPEEDS, GAINS)
def test_any_correct_seed_is_accepted(speed: float, min_gain: float) -> None:
    assert accepts([], correct(speed), min_gain)


@given(st.lists(SPEEDS, min_size=1, max_size=4), SPEEDS, GAINS)
def test_a_version_beats_every_other_by_the_least_gain(speeds: list[float], speed: float, min_gain: float) -> None:
    accepted = accepts(lineage(*map(correct, speeds)), correct(speed, plan="new"), min_gain)
    slack = 1e-9
    if accepted:
        assert all(speed >= other * (1 + min_gain) * (1 - slack) for other in speeds)
    else:
        assert any(speed < other * (1 + min_gain) * (1 + slack) for other in speeds)


def test_the_best_counts_not_the_latest() -> None:
    assert not accepts(lineage(correct(200.0), correct(100.0)), correct(150.0), 0.002)


def test_without_a_least_gain_an_equal_with_another_plan_is_accepted() -> None:
    versions = lineage(correct(100.0, plan="a"))
    assert accepts(versions, correct(100.0, plan="b"), 0.0)
    assert not accepts(versions, correct(100.0, plan="b"), 0.002)


def test_by_default_versions_do_not_pile_up_for_less_than_a_percent() -> None:
    versions, least = lineage(correct(100.0)), RunConfig().min_gain
    assert not accepts(versions, correct(100.9), least)
    assert accepts(versions, correct(101.1), least)


def test_a_plan_of_the_lineage_is_not_accepted_again() -> None:
    versions = lineage(correct(50.0, plan="a"), correct(100.0, plan="b"))
    assert not accepts(versions, correct(300.0, plan="a"), 0.002)


def test_scores_that_cannot_be_compared_are_not_accepted() -> None:
    versions = lineage(correct(100.0))
    assert not accepts(versions, correct(900.0, target="b200"), 0.002)
    assert not accepts(versions, correct(900.0, suite="paper"), 0.002)
    assert not accepts(versions, correct(900.0, kind=ScoreKind.MEASURED), 0.002)


def measured(speed: float, plan: str, incumbent: str = "", verdict: Verdict = Verdict.FASTER) -> Evaluation:
    evaluation = correct(speed, kind=ScoreKind.MEASURED, plan=plan)
    assert evaluation.score is not None
    comparison = Comparison(incumbent, 0.01, (0.1,), verdict) if incumbent else None
    return replace(evaluation, score=replace(evaluation.score, comparison=comparison))


MEASURED = lineage(measured(100.0, "seed"), measured(90.0, "best", "seed"))


def test_a_measured_attempt_is_accepted_if_shown_faster_than_the_latest_version_whatever_the_scores() -> None:
    assert accepts(MEASURED, measured(80.0, "new", "best"), 0.5)
    assert not accepts(MEASURED, measured(900.0, "new", "seed"), 0.0)
    assert not accepts(MEASURED, measured(900.0, "new"), 0.0)
    assert not accepts(MEASURED, measured(900.0, "seed", "best"), 0.0)


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict is not Verdict.FASTER])
def test_no_other_verdict_is_accepted_and_none_of_them_is_worth_another_comparison(verdict: Verdict) -> None:
    assert not accepts(MEASURED, measured(900.0, "new", "best", verdict), 0.0)
    assert not outdated(MEASURED, measured(900.0, "new", "seed", verdict))


def test_only_an_attempt_shown_faster_than_an_earlier_best_is_outdated() -> None:
    assert outdated(MEASURED, measured(90.0, "new", "seed"))
    assert not outdated(MEASURED, measured(90.0, "new", "best"))
    assert not outdated(MEASURED, measured(90.0, "seed", "seed"))
    assert not outdated([], measured(90.0, "new", "seed"))
    assert not outdated(lineage(correct(100.0)), correct(90.0))
    assert not outdated(MEASURED, FAULT)


def test_measured_scores_are_not_compared_by_their_values() -> None:
    scores = [evaluation.score for evaluation in (measured(100.0, "a"), measured(200.0, "b"))]
    assert scores[0] is not None
    assert scores[1] is not None
    with pytest.raises(ValueError, match="by their Comparison"):
        difference(scores[1], scores[0])


def test_a_version_measured_on_another_card_is_no_yardstick() -> None:
    new = measured(80.0, "new", "best")
    assert new.score is not None
    assert not accepts(MEASURED, replace(new, score=replace(new.score, card="another")), 0.0)


CASES = 2
DRAWS = 4
RATIOS = st.floats(min_value=0.25, max_value=4.0)
DOUBTS = st.floats(min_value=1.0, max_value=4.0)
DRAWN = st.lists(st.lists(RATIOS, min_size=DRAWS, max_size=DRAWS), min_size=CASES, max_size=CASES)
DOUBTED = st.builds(lambda drawn, doubt: score(1.0, drawn, doubt), DRAWN, DOUBTS)


def score(tflops: float, drawn: Sequence[Sequence[float]], doubt: float = 1.0) -> Score:
    """Return a score of ``tflops`` in each case, times ``drawn[case][draw]`` in each draw."""
    cases = (
        CaseScore(str(case), tflops, 1.0, "tensor", draws=tuple(tflops * ratio for ratio in ratios), doubt=doubt)
        for case, ratios in enumerate(drawn)
    )
    return Score(ScoreKind.PREDICTED, "h100", tuple(cases))


def doubting(of: Score, doubt: float) -> Score:
    return replace(of, cases=tuple(replace(case, doubt=doubt) for case in of.cases))


def share(mine: Score, other: Score) -> float:
    found = difference(mine, other).share
    assert found is not None
    return found


@given(DOUBTED, DOUBTED, DOUBTS)
def test_nobodys_doubt_helps_its_owner_in_any_draw(mine: Score, other: Score, more: float) -> None:
    doubt = more * max(mine.cases[0].doubt, other.cases[0].doubt)
    for draw in range(DRAWS):
        challenger, best = (
            replace(of, cases=tuple(replace(case, draws=(case.draws[draw],)) for case in of.cases))
            for of in (mine, other)
        )
        assert share(doubting(challenger, doubt), best) <= share(challenger, best)
        assert share(challenger, doubting(best, doubt)) >= share(challenger, best)


@given(DRAWN, st.lists(st.floats(min_value=1.02, max_value=3.0), min_size=DRAWS, max_size=DRAWS), GAINS, DOUBTS)
def test_a_challenger_that_is_better_at_every_draw_and_has_no_doubts_is_accepted(
    drawn: list[list[float]], better: list[float], gain: float, doubt: float
) -> None:
    best = score(1.0, drawn, doubt)
    ahead = [[ratio * times for ratio, times in zip(case, better, strict=True)] for case in drawn]
    challenger = score(1.02 + gain, ahead)
    assert share(challenger, best) == 1.0
    assert beats(challenger, best, 0.01, 1.0)


@given(DOUBTED)
def test_a_kernel_is_not_accepted_against_itself(mine: Score) -> None:
    assert share(mine, mine) < 0.5
    assert not beats(mine, mine, 0.0, SHARE)


@given(DRAWN, DRAWN, DOUBTS)
def test_no_version_blocks_for_ever_what_is_better_by_more_than_the_doubts_at_every_draw(
    drawn: list[list[float]], others: list[list[float]], doubt: float
) -> None:
    best = score(1.0, drawn, doubt)
    leads = [
        sum(math.log(mine / its) for mine, its in zip(cases, theirs, strict=True)) / CASES
        for cases, theirs in zip(zip(*others, strict=True), zip(*drawn, strict=True), strict=True)
    ]
    enough = doubt * math.exp(-min(leads)) * 1.02
    assert beats(score(max(enough, 1.02), others, doubt), best, 0.01, 1.0)


def test_a_wide_version_does_not_block_a_gain_that_holds_in_nine_draws_of_ten() -> None:
    wide = [[483 / 534, 1.0, 741 / 534, *([1.0] * 7)]]
    drawn = [[484 / 589, 1.0, 656 / 589, *([1.0] * 7)]]
    assert share(score(589.0, drawn), score(534.0, wide)) == 0.9
    assert beats(score(589.0, drawn), score(534.0, wide), 0.01, 0.9)
    assert not beats(score(589.0, drawn), score(534.0, wide), 0.01, 0.91)


def test_a_doubtful_best_is_beaten_by_what_is_better_in_the_mean_and_a_doubtful_challenger_has_to_gain_more() -> None:
    flat = [[1.0, 1.0, 1.0]]
    assert beats(score(438.0, flat), score(415.0, flat, 1.5), 0.01, 0.9)
    assert not beats(score(438.0, flat, 1.5), score(415.0, flat), 0.01, 0.9)
    assert beats(score(415.0 * 1.6, flat, 1.5), score(415.0, flat), 0.01, 0.9)


def test_the_mean_has_to_gain_too() -> None:
    assert not beats(score(100.5, [[1.0, 1.0]]), score(100.0, [[1.0, 1.0]]), 0.01, 0.9)


@pytest.mark.parametrize(
    "other", [score(100.0, [[]]), score(100.0, [[1.0]]), score(100.0, [[1.0, 1.0]] * 2)], ids=["none", "fewer", "cases"]
)
def test_without_the_same_draws_only_the_means_count(other: Score) -> None:
    wide = score(102.0, [[0.1, 0.1]], 4.0)
    assert difference(wide, other).share is None
    assert difference(other, wide).share is None
    assert beats(wide, other, 0.01, 1.0)
    assert not beats(wide, other, 0.05, 0.1)


def test_the_best_rival_is_the_one_to_beat_also_in_the_draws() -> None:
    def evaluated(of: Score, plan: str) -> Evaluation:
        return replace(correct(of.geomean_tflops, plan=plan), score=of)

    wide, best = score(50.0, [[0.9, 9.0]]), score(100.0, [[1.0, 1.0]])
    versions = lineage(evaluated(wide, "wide"), evaluated(best, "best"))
    assert accepts(versions, evaluated(score(110.0, [[1.0, 1.0]]), "new"), 0.01)
    assert not accepts(versions, evaluated(score(110.0, [[0.8, 2.0]]), "new"), 0.01)


FLAT = [[1.0] * DRAWS]


def known(tflops: float, *neighbours: float) -> Score:
    return replace(score(tflops, FLAT), neighbours=tuple((each,) * DRAWS for each in neighbours))


@given(st.lists(RATIOS, min_size=1, max_size=8), st.lists(RATIOS, min_size=1, max_size=8))
def test_scores_are_compared_by_the_mean_of_their_neighbours_whatever_order_was_submitted(
    mine: list[float], others: list[float]
) -> None:
    lucky, unlucky = (difference(known(of, *mine), known(1 / of, *others)) for of in (2.0, 0.5))
    assert lucky.gain == pytest.approx(unlucky.gain)
    assert lucky.gain == pytest.approx(known(1.0, *mine).geomean_tflops / known(1.0, *others).geomean_tflops - 1)
    assert lucky.resolution == pytest.approx(unlucky.resolution)


@pytest.mark.parametrize(("spread", "accepted"), [(0.0, True), (0.005, True), (0.02, False)])
def test_a_gain_has_to_exceed_what_the_orders_of_both_kernels_differ_by(spread: float, accepted: bool) -> None:
    best, challenger = (known(of, of * (1 - spread), of, of * (1 + spread)) for of in (100.0, 103.0))
    assert beats(challenger, best, 0.01, 0.9) is accepted
    found = difference(challenger, best)
    assert found.resolution is not None
    assert (found.gain > found.resolution) is accepted


def test_what_a_draw_says_is_the_mean_over_the_neighbours_in_it() -> None:
    best = known(100.0, 100.0, 100.0)
    drawn = replace(best, neighbours=((104.0, 98.0, 104.0, 98.0), (98.0, 104.0, 104.0, 98.0)))
    assert share(drawn, best) == 0.75


def test_the_luck_of_one_order_is_no_gain() -> None:
    best, lucky = known(100.0, 100.0, 99.0, 101.0), known(103.6, 100.2, 99.3, 100.9)
    assert beats(replace(lucky, neighbours=()), best, 0.01, 0.9)
    assert not beats(lucky, best, 0.01, 0.9)


def test_before_the_neighbours_of_both_are_known_kernels_are_compared_as_the_compiler_wrote_them() -> None:
    best, challenger = known(100.0, 103.0, 103.1), score(102.0, FLAT)
    assert difference(challenger, best).gain == pytest.approx(0.02)
    assert difference(best, challenger).gain == pytest.approx(1 / 1.02 - 1)
    assert difference(known(102.0, 103.0, 103.1), best).gain == pytest.approx(0.0)
    assert difference(known(102.0, 103.0, 103.1), best).alone == pytest.approx(0.02)


@given(DOUBTED, DOUBTED, st.floats(min_value=0.5, max_value=1.0))
def test_a_gain_is_resolved_exactly_if_it_is_larger_than_the_resolution(mine: Score, other: Score, sure: float) -> None:
    found = difference(mine, other, sure)
    assert found.share is not None
    assert found.resolution is not None
    if found.gain > found.resolution + 1e-9:
        assert found.share >= sure - 1e-9
    if 0 < found.gain < found.resolution - 1e-9:
        assert found.share <= sure
