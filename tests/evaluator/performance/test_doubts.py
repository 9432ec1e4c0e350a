"""What widens the range of a prediction, and what two predictions must differ by."""

from dataclasses import replace
from typing import Any

import pytest

from avo.evaluator.evaluation import CaseScore, Evaluation, Score, Status
from avo.evaluator.performance.doubts import doubts
from avo.evaluator.performance.passes import Pass, PlayedKernel
from avo.evaluator.performance.pipes import Costs
from avo.evaluator.performance.sass import Instruction
from avo.evaluator.resolution import difference
from avo.evaluator.target import ScoreKind
from avo.evaluator.targets import get_target
from bench.variants import Variant, predict_variant
from tests.corpus import sample

FFMA = Instruction(0, 0, "", "FFMA", "", 1, 7, 7, 0)
LDSM = Instruction(2, 32, "", "LDSM.16.M88.4", "R4, [R2]", 1, 7, 7, 0)
STRANGE = Instruction(1, 16, "", "QUUX.64", "", 1, 7, 7, 0)
HOT = Pass(100, 8, {"issue": 0.1}, (((FFMA, STRANGE), 4),))
BUSY = replace(HOT, usage={"shared": 0.9}, parts=(((LDSM,), 4),))


def reasons(kernel: PlayedKernel, hot: Pass = HOT, limiter: str = "tensor", **flags: Any) -> list[str]:
    every = {"guessed_loops": False, "unrolled": False, **flags}
    return [doubt.reason for doubt in doubts(kernel, hot, limiter, **every)]


@pytest.mark.parametrize(
    ("change", "hot", "limiter", "flags", "reason"),
    [
        ({"unknown": frozenset({1})}, HOT, "tensor", {}, "costs of QUUX in the hot loop are guessed"),
        ({"untied": True}, HOT, "tensor", {}, "mbarriers between them could not be followed"),
        ({"serialised": True}, HOT, "tensor", {}, "serialised"),
        ({}, HOT, "l2", {}, "L2 limits it"),
        ({"unfollowed": frozenset({2})}, BUSY, "shared", {}, "bank conflicts of 1 accesses to shared memory"),
        ({}, replace(HOT, skipped=0.25), "tensor", {}, "around 25% of the hot loop"),
        ({}, HOT, "tensor", {"guessed_loops": True}, "could not be told apart"),
        ({}, HOT, "tensor", {"unrolled": True}, "unrolled loop"),
        ({}, HOT, "hbm", {"short": 0.6}, "pieces shorter than a sector"),
    ],
)
def test_what_is_not_known_is_said(
    change: dict[str, Any], hot: Pass, limiter: str, flags: dict[str, Any], reason: str
) -> None:
    kernel = PlayedKernel(1, Pass(10, 0, {"issue": 0.1}), (HOT,))
    assert reasons(kernel) == reasons(kernel, BUSY) == []
    (found,) = reasons(replace(kernel, **change), hot, limiter, **flags)
    assert reason in found


def test_an_instruction_that_the_model_does_not_know_is_noted_when_it_is_costed() -> None:
    costs = Costs((FFMA, STRANGE), get_target("h100"))
    costs.op(FFMA)
    assert not costs.unknown
    costs.op(STRANGE)
    assert costs.unknown == {1}


@pytest.mark.parametrize("target", sample(["h100", "a100", "b200"], 3))
def test_nothing_in_attention_kernels_is_unknown(target: str) -> None:
    score = predict_variant(Variant(128, 64, 8, 3), target)
    assert not any("guessed" in reason for reason in score.doubts)


@pytest.mark.long
def test_the_range_contains_the_prediction_and_what_the_clock_alone_may_change() -> None:
    h100 = get_target("h100")
    low, high = (end / h100.sustained_clock_ratio for end in h100.sustained_clock_range)
    for stages in (1, 3):
        score = predict_variant(Variant(128, 64, 8, stages), "h100")
        assert score.low_tflops < low * score.tflops * 1.001
        assert score.high_tflops > high * score.tflops * 0.999


def test_a_doubt_widens_the_range() -> None:
    kernel = PlayedKernel(1, Pass(10, 0, {"issue": 0.1}), (HOT,))
    for found in doubts(replace(kernel, untied=True, serialised=True), HOT, "l2", guessed_loops=True, unrolled=True):
        assert found.slower >= 1 >= found.faster
        assert found.slower > found.faster


@pytest.mark.long
def test_related_kernels_are_told_apart_within_the_range_of_one() -> None:
    slower, faster = (predict_variant(Variant(128, 64, 8, 3, exp2=exp2), "h100") for exp2 in (False, True))
    assert slower.high_tflops > faster.tflops
    after, before = (Score(ScoreKind.PREDICTED, "h100", (case,)) for case in (faster, slower))
    assert faster.tflops > 1.01 * slower.tflops
    assert difference(after, before).share == 1
    assert difference(before, after).share == 0


def test_range_and_doubts_survive_the_wire_and_old_records_have_none() -> None:
    case = CaseScore("case", 100.0, 1.0, "exp", {}, 80.0, 120.0, ("a reason",))
    evaluation = Evaluation(
        Status.CORRECT, "", "h100", "quick", 1.0, Score(ScoreKind.PREDICTED, "h100", (case,)), plan_digest="x"
    )
    assert Evaluation.from_json(evaluation.to_json()) == evaluation
    data = evaluation.to_json()
    for name in ("low_tflops", "high_tflops", "doubts"):
        del data["score"]["cases"][0][name]
    old = Evaluation.from_json(data).score
    assert old is not None
    assert (old.cases[0].low_tflops, old.cases[0].doubts) == (0.0, ())
