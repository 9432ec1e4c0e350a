"""Predictions: known orders between compiled kernels, published figures, and the bounds no prediction may break."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avo.evaluator.binary import Binary
from avo.evaluator.compiling.residency import ctas_per_sm
from avo.evaluator.performance import ModelError, model, predict
from avo.evaluator.performance.constants import DRAWS, constants
from avo.evaluator.performance.kernel import costs_under, measure
from avo.evaluator.performance.model import CaseTime, time_case
from avo.evaluator.target import TARGETS
from avo.evaluator.targets import get_target
from avo.evaluator.work import Body, LaunchWork, LoopWork
from bench.anchors import ANCHORS, BLACKWELL_SPACE, HOPPER_SPACE, LENGTHS, NARROW_IN_BULK, PAIRS, TUTORIAL, Anchor, Pair
from bench.variants import HEAD_DIM, HEADS, TOKENS, Variant, compile_variant, launch_work, predict_variant
from tests.corpus import sample

TUNED = Variant(128, 64, 8, 3)
H100 = get_target("h100")


def tflops(variant: Variant, target: str = "h100", length: int = 16384) -> float:
    return predict_variant(variant, target, length).tflops


@pytest.mark.parametrize("place", range(len(LENGTHS)))
@pytest.mark.parametrize("anchor", sample(ANCHORS[:4], 4), ids=lambda anchor: f"{anchor.name}, {anchor.low}")
def test_plain_triton_on_h100_is_predicted_where_it_was_published(anchor: Anchor, place: int) -> None:
    predicted = predict_variant(anchor.variant, anchor.target, LENGTHS[place], anchor.rows[place]).tflops
    assert anchor.low[place] / 1.2 < predicted < anchor.high[place] * 1.2  # their tiles and compilers are not known


def test_plain_triton_on_a100_is_predicted_where_it_was_published() -> None:
    assert 150 < tflops(TUNED, "a100") < 200


@pytest.mark.long
def test_plain_triton_on_b200_is_predicted_near_what_was_published() -> None:
    assert 400 < tflops(Variant(128, 128, 8, 3), "b200") < 900


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "space", "chosen"),
    [("h100", HOPPER_SPACE, NARROW_IN_BULK), ("b200", BLACKWELL_SPACE, TUTORIAL)],
    ids=["h100", "b200"],
)
def test_the_tutorials_kernel_is_held_against_one_of_its_fastest_configurations(
    name: str, space: Sequence[Variant], chosen: Variant
) -> None:
    target = get_target(name)
    fitting = [each for each in space if ctas_per_sm(compile_variant(each, target.arch), target)]
    assert chosen in fitting
    assert tflops(chosen, name, 8192) > 0.99 * max(tflops(each, name, 8192) for each in fitting)


@pytest.mark.long
@pytest.mark.parametrize(("length", "published"), [(4096, 567), (8192, 671), (16384, 746)])
def test_the_tutorials_kernel_on_b200_is_predicted_near_what_was_published(length: int, published: float) -> None:
    assert predict_variant(TUTORIAL, "b200", length, rows=4 * 48).tflops == pytest.approx(published, rel=0.15)


@pytest.mark.long
def test_causal_attention_is_somewhat_slower_than_full() -> None:
    assert 0.8 < tflops(replace(TUNED, schedule="split")) / tflops(TUNED) < 1


@pytest.mark.long
def test_warp_specialisation_on_h100_is_predicted_where_it_was_published() -> None:
    specialised = tflops(Variant(128, 64, 4, 3, descriptors=True, specialised=True))
    assert tflops(Variant(128, 64, 8, 3, descriptors=True)) < specialised
    assert 440 < specialised < 580


@pytest.mark.corpus
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair.target} {pair.name}")
def test_what_is_known_to_be_faster_is_predicted_faster(pair: Pair) -> None:
    assert tflops(pair.slower, pair.target) < tflops(pair.faster, pair.target)


@pytest.mark.long
def test_roles_without_pipelining_are_not_predicted_above_what_the_best_such_kernel_reaches() -> None:
    # FlashAttention-3 without overlap of products and softmax within a warpgroup: 582 (arXiv:2407.08608, table 2),
    # to which a constant is fitted
    assert round(tflops(Variant(128, 128, 4, 2, descriptors=True, specialised=True))) <= 582


def test_the_kernel_meant_to_spill_spills() -> None:
    assert compile_variant(Variant(128, 64, 4, 3), 90).spill_bytes > 0
    assert compile_variant(TUNED, 90).spill_bytes == 0


@pytest.mark.long
def test_a_deliberately_plain_kernel_is_predicted_far_below_a_tuned_one() -> None:
    plain = Variant(64, 64, 4, 1, schedule="all", exp2=False)
    assert tflops(plain) < 0.5 * tflops(replace(TUNED, schedule="split"))


@pytest.mark.long
def test_scalar_products_run_at_a_few_percent_of_the_tensor_cores() -> None:
    assert tflops(Variant(16, 16, 4, 1, tensor_cores=False)) < 0.1 * tflops(TUNED)


def test_a_prediction_is_repeatable() -> None:
    first = predict_variant(TUNED, "h100")
    measure.cache_clear()
    costs_under.cache_clear()
    assert predict_variant(TUNED, "h100") == first


@pytest.mark.parametrize("variant", sample([TUNED, Variant(128, 128, 4, 2, descriptors=True, specialised=True)], 2))
def test_a_score_is_the_mean_of_its_draws_and_within_its_own_range(variant: Variant) -> None:
    score = predict_variant(variant, "h100")
    assert len(score.draws) == DRAWS
    assert score.tflops == pytest.approx(np.exp(np.log(score.draws).mean()))
    assert score.low_tflops < min(score.draws) < score.tflops < max(score.draws) < score.high_tflops
    assert score.high_tflops >= 1.09 * max(score.draws)  # what no constant explains


def test_utilisation_is_a_fraction_of_each_pipe() -> None:
    score = predict_variant(TUNED, "h100")
    assert {"tensor", "exp", "fma", "alu", "shared", "lsu", "issue"} <= set(score.utilisation)
    assert all(0 <= share <= 1 for share in score.utilisation.values())


@pytest.mark.parametrize("target", sample(sorted(TARGETS), 5))
def test_work_that_the_tensor_cores_could_not_do_in_the_time_is_missing(target: str) -> None:
    chosen = get_target(target)
    launch = launch_work(Variant(128, 64, 8, 3), chosen.arch, 16384)
    with pytest.raises(
        ModelError, match=r"asks for 1e\+18 FLOP and the launches' matrix products are 4.4e\+12.*missing"
    ):
        predict("case", 10**18, 10**9, [launch], chosen)


def work(trips: list[int]) -> LaunchWork:
    body = Body(4 * 128 * 64 * HEAD_DIM, 128 * 64, 2 * 64 * HEAD_DIM * 2, 0)
    outside = Body(0, 128, 128 * HEAD_DIM * 2, 128 * HEAD_DIM * 2)
    loop = LoopWork(None, body, np.array(trips, dtype=np.int64))
    return LaunchWork(compile_variant(TUNED, 90), len(trips), (loop,), outside)


def time_us(trips: list[int]) -> float:
    return predict("case", 10**9, 10**6, [work(trips)], get_target("h100")).time_us


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(1, 500), min_size=1, max_size=132 * 3), st.data())
def test_more_work_never_takes_less_time_than_balanced_scheduling_allows(trips: list[int], data: st.DataObject) -> None:
    grown = [trip + data.draw(st.integers(0, 3)) for trip in trips[:5]] + trips[5:]
    assert time_us([2 * trip for trip in trips]) > time_us(trips)
    assert time_us([*trips, *trips]) >= time_us(trips)
    if len(trips) <= 132:
        assert time_us(grown) >= time_us(trips)


def test_the_tail_of_a_wave_costs_a_whole_wave_at_the_clock_of_a_chip_that_is_half_idle() -> None:
    fast = constants(90).free_clock / get_target("h100").sustained_clock_ratio
    wave, two = time_us([100] * 132), time_us([100] * 264)
    assert two / fast < time_us([100] * 133) < two
    assert 1.9 * (wave - 6) < two < 2 * wave


@pytest.mark.parametrize(("share", "critical"), [(0.6, "launches"), (0.4, "")])
def test_starting_launches_is_critical_where_it_takes_most_of_the_time(
    monkeypatch: pytest.MonkeyPatch, share: float, critical: str
) -> None:
    def timed(*arguments: Any) -> CaseTime:
        found = replace(time_case(*arguments), overhead=0.0)
        return replace(found, overhead=share / (1 - share) * found.seconds)

    monkeypatch.setattr(model, "time_case", timed)
    assert predict("case", 10**6, 10**6, [work([1] * 132)], get_target("h100")).critical == critical


def test_every_launch_adds_its_overhead() -> None:
    h100 = get_target("h100")
    once = predict("case", 10**9, 10**6, [work([100] * 132)], h100).time_us
    twice = predict("case", 10**9, 10**6, [work([100] * 132)] * 2, h100).time_us
    assert twice == pytest.approx(2 * once - constants(90).event_us, abs=0.1)  # that is once for all launches


def test_bytes_that_must_pass_hbm_bound_the_time() -> None:
    h100 = get_target("h100")
    score = predict("case", 10**9, 10**11, [work([1] * 132)], h100)
    assert score.limiter == "hbm"
    table = constants(90)
    assert score.time_us == pytest.approx(1e11 / (table.hbm_share * h100.hbm_bytes_per_s) * 1e6, rel=0.002)


def test_bytes_asked_of_l2_bound_the_time() -> None:
    launch = work([1] * 132)
    greedy = replace(launch, outside=replace(launch.outside, load_bytes=10**9))
    score = predict("case", 10**9, 10**6, [greedy], get_target("h100"))
    assert score.limiter == "l2"


def test_a_case_without_launches_is_refused() -> None:
    with pytest.raises(ModelError, match="no launch"):
        predict("case", 1, 1, [], get_target("h100"))


def test_a_kernel_that_does_not_fit_is_refused_by_name() -> None:
    launch = work([1])
    big = replace(launch, binary=replace(launch.binary, shared_bytes=300_000))
    with pytest.raises(ModelError, match="kernel forward does not fit"):
        predict("case", 1, 1, [big], get_target("h100"))


@pytest.mark.parametrize(
    ("threads", "registers", "shared", "columns", "target", "expected"),
    [
        (256, 150, 131072, 0, "h100", 1),  # registers
        (128, 159, 98304, 0, "h100", 2),  # shared memory
        (128, 32, 0, 0, "h100", 16),  # warps
        (32, 32, 0, 0, "h100", 32),  # CTAs
        (128, 64, 0, 256, "b200", 2),  # tensor memory
        (128, 255, 0, 0, "a100", 2),
        (128, 64, 232449, 0, "h100", 0),
        (128, 256, 0, 0, "h100", 0),
        (1024, 128, 0, 0, "h100", 0),
    ],
)
def test_residency_is_what_the_scarcest_resource_allows(
    threads: int, registers: int, shared: int, columns: int, target: str, expected: int
) -> None:
    binary = Binary("kernel", target, b"", "", threads, registers, 0, shared, columns)
    assert ctas_per_sm(binary, get_target(target)) == expected


def doubled(body: Body) -> Body:
    return replace(body, dot_flops=2 * body.dot_flops, load_bytes=2 * body.load_bytes, store_bytes=2 * body.store_bytes)


def test_a_program_of_two_ctas_takes_two_sms() -> None:
    pair = replace(work([100] * 66).binary, ptx=work([1]).binary.ptx + "\n.reqnctapercluster 2, 1, 1\n")
    assert pair.ctas_per_program == 2

    def seconds(programs: int) -> float:
        launch = work([100] * programs)
        (loop,) = launch.loops
        twice = (replace(loop, body=doubled(loop.body)),)
        asked = replace(launch, binary=pair, loops=twice, outside=doubled(launch.outside))
        return predict("case", 10**9, 10**6, [asked], H100).time_us

    assert seconds(66) == pytest.approx(time_us([100] * 132), rel=0.02)
    assert seconds(67) > 1.5 * seconds(66)


def test_an_unrolled_kernel_still_pays_for_its_products() -> None:
    h100 = get_target("h100")
    launch = work([100] * 132)
    looped = predict("case", 10**9, 10**6, [launch], h100).time_us
    heavy = replace(launch.loops[0], body=replace(launch.loops[0].body, dot_flops=launch.loops[0].body.dot_flops * 4))
    assert predict("case", 10**9, 10**6, [replace(launch, loops=(heavy,))], h100).time_us > 3 * looped


def test_the_case_is_what_the_launch_covers() -> None:
    launch = launch_work(TUNED, 90, 4096)
    assert launch.programs == TOKENS * HEADS // 128
    assert launch.loops[0].trips.sum() * 64 == launch.programs * 4096
