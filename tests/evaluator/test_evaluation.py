import json

import pytest

from avo.evaluator.evaluation import CaseResult, CaseScore, Evaluation, Resources, Score, Status
from avo.evaluator.target import ScoreKind

SCORE = Score(
    ScoreKind.PREDICTED,
    "h100",
    (CaseScore("a", 100.0, 10.0, "tensor", {"tensor": 0.6}), CaseScore("b", 400.0, 5.0, "exp", {"exp": 0.9})),
)
CORRECT = Evaluation(
    Status.CORRECT, "", "h100", "quick", 1.5, SCORE, (CaseResult("square", True, 2e-3, 1e-6),),
    (Resources("kernel", 128, 0, 65536, 0, 8, 1),), "digest",
)  # fmt: skip


def test_rank_is_the_geometric_mean() -> None:
    assert CORRECT.geomean_tflops == pytest.approx(200.0)


def test_json_round_trip() -> None:
    assert Evaluation.from_json(json.loads(json.dumps(CORRECT.to_json()))) == CORRECT


def test_json_says_how_the_score_was_obtained() -> None:
    data = CORRECT.to_json()
    assert data["score"]["kind"] == "predicted"
    assert data["score"]["geomean_tflops"] == pytest.approx(200.0)


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.CORRECT])
def test_a_fault_carries_a_message_and_no_score(status: Status) -> None:
    fault = Evaluation(status, "why", "h100", "quick", 1.0)
    assert fault.geomean_tflops == 0.0
    assert Evaluation.from_json(fault.to_json()) == fault
    with pytest.raises(ValueError, match="score"):
        Evaluation(status, "why", "h100", "quick", 1.0, SCORE)
    with pytest.raises(ValueError, match="message"):
        Evaluation(status, "", "h100", "quick", 1.0)


def test_an_unverified_candidate_may_have_a_prediction_that_is_no_score() -> None:
    unverified = Evaluation(Status.UNVERIFIED, "needs a GPU", "h100", "quick", 1.0, predicted=SCORE)
    assert unverified.geomean_tflops == 0.0
    assert unverified.to_json()["predicted"]["geomean_tflops"] == pytest.approx(200.0)
    assert Evaluation.from_json(json.loads(json.dumps(unverified.to_json()))) == unverified
    for status in (Status.CORRECT, Status.INCORRECT):
        with pytest.raises(ValueError, match="prediction in place of a score"):
            Evaluation(status, "", "h100", "quick", 1.0, SCORE if status is Status.CORRECT else None, predicted=SCORE)


def test_a_correct_candidate_must_have_a_score() -> None:
    with pytest.raises(ValueError, match="score"):
        Evaluation(Status.CORRECT, "", "h100", "quick", 1.0)


@pytest.mark.parametrize("tflops", [0.0, -1.0, float("nan"), float("inf")])
def test_a_score_is_positive_and_finite(tflops: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        Score(ScoreKind.PREDICTED, "h100", (CaseScore("a", tflops, 1.0, "tensor"),))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "guessed"}, "guessed"),
        ({"seconds": True}, r"Expected `float`, got `bool` - at `\$.seconds`"),
        ({"cases": {}}, r"\$.cases"),
        (
            {"cases": [{"case": "a", "passed": 1, "relative_error": None, "absolute_error": None}]},
            r"\$.cases\[0\].passed",
        ),
        ({"score": None}, "must have a score"),
        ({"traits": {"kind": 1}}, r"\$.traits"),
        ({"later": 1}, "unknown fields later"),
    ],
)
def test_other_data_is_refused_with_the_place(change: dict[str, object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Evaluation.from_json(json.loads(json.dumps(CORRECT.to_json())) | change)


def test_a_field_with_a_default_may_be_missing_and_a_whole_number_is_a_float() -> None:
    data = {"status": "crashed", "message": "died", "target": "h100", "suite": "quick", "seconds": 1}
    evaluation = Evaluation.from_json(data)
    assert evaluation == Evaluation(Status.CRASHED, "died", "h100", "quick", 1.0)
    assert type(evaluation.seconds) is float
    with pytest.raises(ValueError, match="missing required field `suite`"):
        Evaluation.from_json({name: value for name, value in data.items() if name != "suite"})
