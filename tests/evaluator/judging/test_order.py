"""Kernels of which one is faster for a reason that physics leaves no doubt about are judged in that order.

More pairs, predicted without a judge, are in ``bench.anchors``: some of them belong to every run of the tests.
"""

from functools import partial

import pytest

from avo.evaluator.inspection import Inspection, Look
from avo.evaluator.judging.judge import Judge
from avo.evaluator.targets import get_target
from tests.kernels import edited, stored

pytestmark = pytest.mark.corpus

# Which is faster is known of the kernels as they were published, with offsets of rows in 32 bits.
TUNED = stored("honest/mha/tuned").replace(", None].to(tl.int64)", ", None]").replace(", :].to(tl.int64)", ", :]")
edit = partial(edited, source=TUNED)
TILES = "BM=128, BN=64, num_warps=8, num_stages=3"
ONE_STAGE = "BM=64, BN=64, num_warps=4, num_stages=1"
QK = "qk = tl.dot(q, k)"
PV = "acc = tl.dot(p.to(v.dtype), v, acc)"
WHOLE_BLOCKS = ("full = (pid * BM + shift + 1) // BN * BN", "full = n_kv // BN * BN")
MARGIN = 1.01
"""How much faster the faster one must be, at least."""


@pytest.fixture(scope="module")
def tuned(judge: Judge) -> dict[str, float]:
    return speeds(judge, TUNED)


def speeds(judge: Judge, source: str) -> dict[str, float]:
    """The predicted speeds by case; these kernels' numbers are checked among the honest ones."""
    found = judge.ask(Inspection(Look.SPEED, "mha", source))
    assert found.score is not None, found.fault
    return {case.case: case.tflops for case in found.score.cases}


SLOWER = {
    "every block masked": edit(*((bound, "full = 0") for bound in WHOLE_BLOCKS)),
    "product made twice": edit((QK, "qk = tl.dot(q, k, tl.dot(q, k)) * 0.5")),
}


@pytest.mark.parametrize("name", SLOWER)
def test_a_slower_kernel_is_predicted_to_be_slower(judge: Judge, tuned: dict[str, float], name: str) -> None:
    slower = speeds(judge, SLOWER[name])
    assert all(tuned[case] > MARGIN * slower[case] for case in tuned), (tuned, slower)


def test_serialised_products_and_spills_do_not_pay_where_two_ctas_are_resident(judge: Judge) -> None:
    source = stored("honest/mha/two_ctas")
    capped = source.replace("num_warps=4", "num_warps=4, maxnreg=192")
    assert capped != source
    fast, slow = speeds(judge, source), speeds(judge, capped)
    assert all(fast[case] > MARGIN * slow[case] for case in fast), (fast, slow)


def test_skipping_blocks_above_the_diagonal_pays_only_where_there_is_one(judge: Judge, tuned: dict[str, float]) -> None:
    everywhere = speeds(judge, edit(("end = tl.minimum(n_kv, pid * BM + BM + shift)", "end = n_kv")))
    assert tuned["8k-causal"] > 1.5 * everywhere["8k-causal"]
    assert tuned["8k-full"] == pytest.approx(everywhere["8k-full"], rel=0.01)


def test_products_in_bfloat16_beat_tf32(judge: Judge) -> None:
    tf32 = edit(
        (TILES, ONE_STAGE),
        (QK, "qk = tl.dot(q.to(tl.float32), k.to(tl.float32), input_precision='tf32')"),
        (PV, "acc = tl.dot(p, v.to(tl.float32), acc, input_precision='tf32')"),
    )
    fast, slow = speeds(judge, edit((TILES, ONE_STAGE))), speeds(judge, tf32)
    assert all(fast[case] > MARGIN * slow[case] for case in fast), (fast, slow)


def test_a_prediction_for_plain_triton_stays_below_three_quarters_of_the_peak(tuned: dict[str, float]) -> None:
    target = get_target("h100")
    assert max(tuned.values()) < 0.75 * target.tensor_flop * target.sms * target.clock_ghz / 1000
