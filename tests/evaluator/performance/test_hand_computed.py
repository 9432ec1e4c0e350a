"""Whole launches against times worked out by hand: kernels with given clocks, grids of given trips."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from avo.evaluator.binary import Binary
from avo.evaluator.performance.constants import constants
from avo.evaluator.performance.kernel import Conditions
from avo.evaluator.performance.memory import Timing
from avo.evaluator.performance.model import CaseTime, clock_hz, time_case
from avo.evaluator.performance.passes import LightPass, Pass, PlayedKernel
from avo.evaluator.target import Target
from avo.evaluator.targets import get_target
from avo.evaluator.work import Body, LaunchWork, LoopWork

H100 = get_target("h100")
BINARY = Binary("kernel", "sm_90", b"", "", 256, 168, 0, 100_000, 0)  # registers: one CTA on each SM
OUTSIDE, PASS = 5000.0, 2000.0
TABLE = constants(90)
WARM = Timing()
NOTHING = Body(0, 0, 0, 0)
PRODUCT = Body(1000, 0, 0, 0)


def passed(clocks: float, flops: float = 1000, light: LightPass | None = None, **more: float) -> Pass:
    return Pass(clocks, flops, {"tensor": 0.7}, light=light, **more)


def light(clocks: float, flops: float = 1000) -> LightPass:
    return LightPass(flops, lambda: clocks)


def at(place: int) -> range:
    """The lines of a kernel's loop at this place."""
    return range(1 + place, 2 + place)


AROUND = passed(OUTSIDE, 0)


def loop(trips: Sequence[int], body: Body = PRODUCT, parent: int | None = None) -> LoopWork:
    return LoopWork(parent, body, np.array(trips, dtype=np.int64))


def launch(*loops: LoopWork, programs: int | None = None, outside: Body = NOTHING) -> LaunchWork:
    placed = tuple(replace(loop, lines=at(place)) for place, loop in enumerate(loops))
    return LaunchWork(BINARY, programs or len(loops[0].trips), placed, outside)


def placed(kernel: PlayedKernel) -> PlayedKernel:
    """The kernel with lines by which its loops are found in the IR."""
    loops = tuple(replace(each, lines=tuple(at(place))) for place, each in enumerate(kernel.loops))
    return replace(kernel, loops=loops)


def time(
    launches: Sequence[LaunchWork],
    *passes: Pass,
    least_bytes: int = 0,
    target: Target = H100,
    timing: Timing = WARM,
    outside: Pass = AROUND,
    **unknown: bool,
) -> CaseTime:
    def measured(_: Binary, __: Target, resident: int, ___: Conditions, ____: int | None = None) -> PlayedKernel:
        return placed(PlayedKernel(resident, outside, passes, **unknown))

    return time_case(launches, least_bytes, target, timing, measured=measured)


def clocks(launches: Sequence[LaunchWork], *passes: Pass, target: Target = H100) -> float:
    return sum(made.compute * made.clock_hz for made in time(launches, *passes, target=target).launches)


def test_prologue_and_epilogue_are_paid_once_a_program() -> None:
    assert clocks([launch(loop([64] * 132))], passed(PASS)) == pytest.approx(OUTSIDE + 64 * PASS)


def test_a_wave_and_a_bit_takes_two_waves() -> None:
    assert clocks([launch(loop([64] * 133))], passed(PASS)) == pytest.approx(2 * (OUTSIDE + 64 * PASS))


def test_those_of_a_last_wave_that_does_not_fill_its_slots_run_at_the_pace_of_fewer() -> None:
    pair = replace(BINARY, registers=128)  # two CTAs on each SM
    alone, together = PlayedKernel(1, AROUND, (passed(PASS),)), PlayedKernel(2, AROUND, (passed(1.5 * PASS),))

    def spent(programs: int) -> float:
        work = replace(launch(loop([64] * programs)), binary=pair)
        played = {made.resident: made for made in (alone, together)}
        (made,) = time_case(
            [work], 0, H100, WARM, measured=lambda _, __, resident, ___, ____=None: placed(played[resident])
        ).launches
        return made.compute * made.clock_hz

    wave = OUTSIDE + 64 * 1.5 * PASS
    assert spent(264) == pytest.approx(wave)
    assert spent(264 + 132) == pytest.approx(wave + OUTSIDE + 64 * PASS)  # one more on each SM
    assert spent(264 + 133) == pytest.approx(2 * wave)  # two more on one
    assert spent(2 * 264 + 1) == pytest.approx(2 * wave + OUTSIDE + 64 * PASS)


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
    work = (2 * OUTSIDE + 96 * PASS) / clock_hz(H100, TABLE, 0.7)
    assert made.seconds == pytest.approx(work + 1e-6 * (2 * TABLE.launch_us + TABLE.event_us))
    assert made.longest is made.launches[0]
    replayed = time([one, other], passed(PASS), timing=Timing(graph=True))
    assert replayed.seconds == pytest.approx(work + 1e-6 * 2 * TABLE.graph_us)
    assert replayed.seconds < made.seconds


def test_the_clock_falls_with_what_the_arithmetic_units_do_while_programs_run() -> None:
    half = loop([16] * 66)  # on half of the SMs; outside loops, nothing computes
    idle = Pass(8 * PASS, 0, {"issue": 1.0, "shared": 1.0})
    busy = Pass(PASS, 1000, {"tensor": 0.6, "fma": 0.1, "exp": 0.1})
    (made,) = time([launch(half)], busy, outside=idle).launches
    load = 0.5 * (16 / 24) * (0.6 + TABLE.arithmetic_power * 0.2)
    slow, free = H100.sustained_clock_ratio, TABLE.free_clock
    assert made.clock_hz == pytest.approx(H100.clock_ghz * 1e9 * (free - (free - slow) * load))
    (made,) = time([launch(loop([10**6] * 132))], Pass(PASS, 1000, {"tensor": 1.0, "exp": 1.0})).launches
    assert made.clock_hz == pytest.approx(H100.clock_ghz * 1e9 * slow, rel=1e-3)
    assert clock_hz(H100, TABLE, 0.0) == pytest.approx(H100.clock_ghz * 1e9 * free)


def test_a_branch_around_the_products_is_charged_as_often_as_it_is_taken() -> None:
    body = replace(PRODUCT, dot_flops=250.0, entered=0.25)  # a quarter of the passes multiply
    made = clocks([launch(loop([64] * 132, body))], passed(PASS, light=light(200, 0)))
    assert made == pytest.approx(OUTSIDE + 64 * (0.25 * PASS + 0.75 * 200))
    # products that are never made do not lower the price of other work that always is
    softmax = replace(PRODUCT, dot_flops=0.0, entered=1.0)
    assert clocks([launch(loop([64] * 132, softmax))], passed(PASS, light=light(200, 0))) == OUTSIDE + 64 * PASS


def test_a_branch_around_other_work_is_charged_for_the_passes_that_enter_it() -> None:
    # the epilogue of a persistent loop: products in every pass, what is around the branch in one of eight
    body = replace(PRODUCT, entered=1 / 8)
    made = clocks([launch(loop([64] * 132, body))], passed(PASS, light=light(600)))
    assert made == pytest.approx(OUTSIDE + 64 * (600 + (PASS - 600) / 8))
    always = clocks([launch(loop([64] * 132))], passed(PASS, light=light(600)))
    assert always == pytest.approx(OUTSIDE + 64 * PASS)


def test_a_lighter_pass_that_is_never_taken_is_not_played() -> None:
    def played() -> float:
        pytest.fail("played")

    always = clocks([launch(loop([64] * 132))], passed(PASS, light=LightPass(0, played)))
    assert always == pytest.approx(OUTSIDE + 64 * PASS)


def test_products_that_are_fewer_without_a_branch_are_charged_in_full() -> None:
    body = replace(PRODUCT, dot_flops=250.0)
    assert clocks([launch(loop([64] * 132, body))], passed(PASS)) == pytest.approx(OUTSIDE + 64 * PASS)


def test_a_loop_unrolled_by_two_takes_half_the_passes() -> None:
    body = replace(PRODUCT, dot_flops=2000.0)
    assert clocks([launch(loop([64] * 132, body))], passed(PASS)) == pytest.approx(OUTSIDE + 64 * 2 * PASS)


def test_a_loop_that_ptxas_unrolled_is_charged_by_the_passes_of_the_ir() -> None:
    four = passed(4 * PASS, 4 * 1000, copies=4.0)
    assert clocks([launch(loop([64] * 132))], four) == pytest.approx(OUTSIDE + 64 * PASS)
    scalar = passed(4 * PASS, 0, copies=4.0)
    assert clocks([launch(loop([64] * 132, NOTHING))], scalar) == pytest.approx(OUTSIDE + 64 * PASS)
    branch = passed(4 * PASS, 4 * 1000, light(4 * 200, 0), copies=4.0)  # around the products, in three of four passes
    quarter = replace(PRODUCT, dot_flops=250.0, entered=0.25)
    expected = OUTSIDE + 64 * (0.25 * PASS + 0.75 * 200)
    assert clocks([launch(loop([64] * 132, quarter))], branch) == pytest.approx(expected)


def test_more_ctas_than_the_grid_has_programs_are_not_resident() -> None:
    small = replace(BINARY, registers=64, shared_bytes=1000)
    half = replace(launch(loop([64] * 66)), binary=small)
    assert time([half], passed(PASS)).launches[0].kernel.resident == 1
    twice = replace(launch(loop([64] * 264)), binary=small)
    assert time([twice], passed(PASS)).launches[0].kernel.resident == 2


def test_bytes_take_what_l2_and_hbm_give() -> None:
    body = replace(PRODUCT, load_bytes=1e6)
    made = time([launch(loop([64] * 132, body))], passed(PASS)).launches[0]
    assert made.l2 == pytest.approx(64 * 1e6 / TABLE.l2_bytes / made.clock_hz)
    assert made.hbm == 0
    few = time([launch(loop([64] * 13, body))], passed(PASS)).launches[0]  # a tenth of the SMs: L2 has enough for them
    assert few.l2 == pytest.approx(64 * 1e6 / TABLE.l2_most_bytes / few.clock_hz)
    assert TABLE.l2_bytes < TABLE.l2_most_bytes < 10 * TABLE.l2_bytes


def test_bytes_that_must_pass_hbm_take_their_time_unless_l2_holds_them() -> None:
    work, big = launch(loop([1] * 132)), 2 * H100.l2_bytes
    for timing in (WARM, Timing(cold=True)):
        assert time([work], passed(PASS), least_bytes=big, timing=timing).hbm == pytest.approx(
            big / (TABLE.hbm_share * H100.hbm_bytes_per_s)
        )
    assert time([work], passed(PASS), least_bytes=big // 4).hbm == 0
    made = time([work], passed(PASS), least_bytes=big // 4, timing=Timing(cold=True))
    assert made.seconds == pytest.approx(big / 4 / (TABLE.hbm_share * H100.hbm_bytes_per_s) + made.overhead)
    assert made.limiter == "hbm"


def test_fills_cost_their_bytes_and_their_start() -> None:
    work = launch(loop([64] * 132))
    filled = time([replace(work, fills=(10**9, 10**6))], passed(PASS))
    more = (10**9 + 10**6) / (TABLE.hbm_share * H100.hbm_bytes_per_s) + 2e-6 * TABLE.launch_us
    assert filled.seconds == pytest.approx(time([work], passed(PASS)).seconds + more)


def test_nothing_is_charged_less_than_its_exponentials_arithmetic_and_shared_memory_take() -> None:
    cheap = passed(1, 0)
    for body, least in (
        (replace(NOTHING, exponentials=16 * 5000.0), 5000),
        (replace(NOTHING, arithmetic=4 * 128 * 7000.0), 7000),
        (replace(NOTHING, shared_bytes=128 * 9000.0), 9000),
    ):
        made = clocks([launch(loop([640] * 132, body))], cheap)
        assert made == pytest.approx(640 * least)


def test_the_remainder_of_an_unrolled_loop_is_charged_for_the_passes_it_makes() -> None:
    four, one = passed(4 * 300, 0, copies=4.0), passed(500, 0)
    short = loop([3] * 132, NOTHING)  # never gets to the code that does four passes at once
    made = [
        clocks([replace(launch(work), loops=(replace(work, lines=range(1, 3)),))], four, one)
        for work in (short, loop([64] * 132, NOTHING), loop([66] * 132, NOTHING))
    ]
    assert made == pytest.approx([OUTSIDE + 3 * 500, OUTSIDE + 64 * 300, OUTSIDE + 64 * 300 + 2 * 500])


def test_times_that_overlap_take_a_little_longer_than_the_longest() -> None:
    alone = time([launch(loop([640] * 132))], Pass(PASS, 1000, {"tensor": 1.0})).launches[0]
    assert alone.seconds == pytest.approx(alone.compute)
    both = replace(alone, hbm=alone.compute)
    assert both.seconds == pytest.approx(2 ** (1 / TABLE.overlap) * alone.compute)


def test_what_waits_for_latency_waits_longer_while_hbm_is_busy() -> None:
    work = [launch(loop([640] * 132))]
    waiting, working = (time(work, Pass(PASS, 1000, {"alu": busy})).launches[0] for busy in (0.25, 1.0))
    assert waiting.compute == working.compute
    assert waiting.seconds == working.seconds
    loaded, late = (replace(made, hbm=made.compute) for made in (working, waiting))
    busy = 2 ** (-1 / TABLE.overlap)  # of HBM, while both take as long
    longer = 1 + TABLE.loaded_latency * 0.75 * busy**3
    assert late.seconds == pytest.approx((longer**TABLE.overlap + 1) ** (1 / TABLE.overlap) * late.compute)
    assert late.seconds > 1.05 * loaded.seconds
    idle = replace(waiting, hbm=0.1 * waiting.compute)
    assert idle.seconds == pytest.approx(waiting.compute, rel=0.002)


def test_waiting_for_l2_is_not_charged_twice() -> None:
    body = replace(PRODUCT, load_bytes=PASS * TABLE.l2_bytes)  # L2 is busy for as long as the SMs, but for the prologue
    made = time([launch(loop([640] * 132, body))], passed(PASS)).launches[0]
    assert made.l2 == pytest.approx(made.compute, rel=0.01)
    # the SMs were played at the rate that L2 has for them
    assert made.seconds == pytest.approx(max(made.compute, made.l2))


def test_a_launch_says_what_is_not_known_of_it() -> None:
    (known,) = time([launch(loop([64] * 132))], passed(PASS)).launches
    assert known.doubts == ()
    (doubt,) = time([launch(loop([64] * 132))], passed(PASS), untied=True).launches[0].doubts
    assert "roles" in doubt.reason
    assert doubt.slower > 1
