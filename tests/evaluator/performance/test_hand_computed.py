"""Whole launches against times worked out by hand: kernels with given clocks, grids of given trips."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from evaluator.binary import Binary
from evaluator.performance.constants import constants
from evaluator.performance.kernel import Pass, PlayedKernel
from evaluator.performance.model import CaseTime, clock_hz, time_case
from evaluator.target import Target
from evaluator.targets import get_target
from evaluator.work import Body, LaunchWork, LoopWork

H100 = get_target("h100")
BINARY = Binary("kernel", "sm_90", b"", "", 256, 168, 0, 100_000, 0)  # registers: one CTA on each SM
OUTSIDE, PASS = 5000.0, 2000.0
NOTHING = Body(0, 0, 0, 0)
PRODUCT = Body(1000, 0, 0, 0)


def passed(clocks: float, flops: float = 1000, light: Pass | None = None) -> Pass:
    return Pass(clocks, flops, {"tensor": 0.7}, light=light)


def loop(trips: Sequence[int], body: Body = PRODUCT, parent: int | None = None) -> LoopWork:
    return LoopWork(parent, body, np.array(trips, dtype=np.int64))


def launch(*loops: LoopWork, programs: int | None = None, outside: Body = NOTHING) -> LaunchWork:
    return LaunchWork(BINARY, programs or len(loops[0].trips), loops, outside)


def time(launches: Sequence[LaunchWork], *passes: Pass, least_bytes: int = 0, target: Target = H100) -> CaseTime:
    def measured(_: Binary, __: Target, resident: int, ___: int) -> PlayedKernel:
        return PlayedKernel(resident, passed(OUTSIDE, 0), passes)

    return time_case(launches, least_bytes, target, measured)


def clocks(launches: Sequence[LaunchWork], *passes: Pass, target: Target = H100) -> float:
    return sum(made.compute for made in time(launches, *passes, target=target).launches) * clock_hz(H100)


def test_prologue_and_epilogue_are_paid_once_a_program() -> None:
    assert clocks([launch(loop([64] * 132))], passed(PASS)) == pytest.approx(OUTSIDE + 64 * PASS)


def test_a_wave_and_a_bit_takes_two_waves() -> None:
    assert clocks([launch(loop([64] * 133))], passed(PASS)) == pytest.approx(2 * (OUTSIDE + 64 * PASS))


def test_a_causal_grid_ends_when_its_longest_sm_is_done() -> None:
    two_sms = replace(H100, sms=2)
    ascending, descending = launch(loop([1, 2, 1, 2])), launch(loop([2, 2, 1, 1]))
    # one SM does the blocks of 1 and 1, the other those of 2 and 2
    assert clocks([ascending], passed(PASS), target=two_sms) == pytest.approx(2 * OUTSIDE + 4 * PASS)
    assert clocks([descending], passed(PASS), target=two_sms) == pytest.approx(2 * OUTSIDE + 3 * PASS)


def test_the_diagonal_split_off_is_charged_as_its_own_loop() -> None:
    below, diagonal = loop([10] * 132), loop([2] * 132)
    made = clocks([launch(below, diagonal)], passed(PASS), passed(2 * PASS))
    assert made == pytest.approx(OUTSIDE + 10 * PASS + 2 * 2 * PASS)


def test_a_persistent_grid_pays_its_prologue_once_and_its_tiles_by_the_outer_loop() -> None:
    tiles, steps = loop([8] * 132, NOTHING), loop([8 * 64] * 132, parent=0)
    persistent = clocks([launch(tiles, steps)], passed(300, 0), passed(PASS))
    assert persistent == pytest.approx(OUTSIDE + 8 * 300 + 8 * 64 * PASS)
    plain = clocks([launch(loop([64] * 8 * 132))], passed(PASS))
    assert plain - persistent == pytest.approx(7 * OUTSIDE - 8 * 300)


def test_launches_run_one_after_the_other_each_with_its_overhead() -> None:
    one, other = launch(loop([64] * 132)), launch(loop([32] * 132))
    made = time([one, other], passed(PASS))
    expected = (2 * OUTSIDE + 96 * PASS) / clock_hz(H100) + 2 * H100.launch_overhead_s
    assert made.seconds == pytest.approx(expected)
    assert made.longest is made.launches[0]


def test_a_branch_around_the_products_is_charged_as_often_as_it_is_taken() -> None:
    body = replace(PRODUCT, dot_flops=250.0)  # a quarter of the passes multiply
    made = clocks([launch(loop([64] * 132, body))], passed(PASS, light=passed(200, 0)))
    assert made == pytest.approx(OUTSIDE + 64 * (0.25 * PASS + 0.75 * 200))


def test_products_that_are_fewer_without_a_branch_are_charged_in_full() -> None:
    body = replace(PRODUCT, dot_flops=250.0)
    assert clocks([launch(loop([64] * 132, body))], passed(PASS)) == pytest.approx(OUTSIDE + 64 * PASS)


def test_a_loop_unrolled_by_two_takes_half_the_passes() -> None:
    body = replace(PRODUCT, dot_flops=2000.0)
    assert clocks([launch(loop([64] * 132, body))], passed(PASS)) == pytest.approx(OUTSIDE + 64 * 2 * PASS)


def test_more_ctas_than_the_grid_has_programs_are_not_resident() -> None:
    small = replace(BINARY, registers=64, shared_bytes=1000)
    half = replace(launch(loop([64] * 66)), binary=small)
    assert time([half], passed(PASS)).launches[0].kernel.resident == 1
    twice = replace(launch(loop([64] * 264)), binary=small)
    assert time([twice], passed(PASS)).launches[0].kernel.resident == 2


def test_bytes_take_what_l2_and_hbm_give() -> None:
    body = replace(PRODUCT, load_bytes=1e6)
    made = time([launch(loop([64] * 132, body))], passed(PASS)).launches[0]
    rate = constants(90).l2_bytes * H100.sms * clock_hz(H100)
    assert made.l2 == pytest.approx(64 * 132 * 1e6 / rate)
    assert made.hbm == 0
    above = time([launch(loop([64] * 132, body))], passed(PASS), least_bytes=2 * H100.l2_bytes).launches[0]
    assert above.hbm == pytest.approx(64 * 1e6 / H100.hbm_bytes_per_s)


def test_doubts_multiply_the_time_of_the_launch_that_has_them() -> None:
    def measured(_: Binary, __: Target, resident: int, ___: int) -> PlayedKernel:
        return PlayedKernel(resident, passed(OUTSIDE, 0), (passed(PASS),), untied=True)

    made = time_case([launch(loop([64] * 132))], 0, H100, measured)
    (doubt,) = made.launches[0].doubts
    slower = made.doubted(lambda doubt: doubt.slower) - made.overhead
    assert slower == pytest.approx(doubt.slower * (made.seconds - made.overhead))
    assert doubt.slower > 1
