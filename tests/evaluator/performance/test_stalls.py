"""What a warp's time is charged to, on hand-made loops and a real one."""

from itertools import pairwise

import pytest

from avo.evaluator.performance.replay import Replay
from avo.evaluator.performance.sass import Instruction
from avo.evaluator.performance.stalls import Charge, Reason, Recorder, account, charge
from avo.evaluator.targets import get_target
from bench.variants import Variant, compile_variant
from tests.evaluator.performance.handmade import loop, nominal, sass


def charges(replay: Replay) -> tuple[Charge, ...]:
    recorder = Recorder()
    kernel = replay.play(player=recorder)
    (part,) = charge([recorder], kernel.loops[0])
    return part


def dearest(*body: Instruction, warps: int = 4) -> Charge:
    return charges(loop(*body, warps=warps))[0]


def test_a_wait_for_a_load_is_charged_to_who_waits_and_names_the_load() -> None:
    cost = dearest(sass("LDG.E.128", sets=0), sass("NOP"), sass("FFMA", waits=[0]))
    assert (cost.index, cost.reason, cost.setter) == (3, Reason.SCOREBOARD, 1)
    assert cost.share > 0.9


def test_a_store_that_keeps_its_operands_is_what_the_next_write_to_them_waits_for() -> None:
    cost = dearest(sass("NOP"), sass("STG.E.128", reads=3), sass("FFMA", waits=[3]), warps=1)
    assert (cost.index, cost.reason, cost.setter) == (3, Reason.SCOREBOARD, 2)


def test_a_busy_pipe_is_charged_to_what_waits_for_it() -> None:
    cost = dearest(*[sass("MUFU.EX2")] * 8)
    assert cost.reason is Reason.PIPE
    assert 1 <= cost.index <= 8


def test_a_scheduler_with_many_warps_is_charged_as_issue_slots() -> None:
    # of four warps, one runs at once, one waits for 32 clocks, one for 64, one for 96; then the barrier takes 20
    found = charges(loop(*[sass("NOP")] * 32, sass("BAR.SYNC.DEFER_BLOCKING", "0x0"), warps=16))
    waited = sum(cost.share for cost in found if cost.reason is Reason.ISSUE)
    assert waited == pytest.approx((32 + 64 + 96) / 4 / (4 * 32 + 20), rel=0.1)


def test_a_stall_count_is_a_fixed_latency_of_its_own_instruction() -> None:
    cost = dearest(sass("NOP"), sass("FFMA", stall=13))
    assert (cost.index, cost.reason) == (2, Reason.FIXED)


def test_waiting_for_the_slowest_warp_is_charged_to_the_barrier() -> None:
    # eight warps take turns on four exponential pipes, and the first ones wait for the second
    found = charges(loop(*[sass("MUFU.EX2")] * 16, sass("BAR.SYNC.DEFER_BLOCKING", "0x0"), warps=8))
    assert max(c.share for c in found if (c.index, c.reason) == (17, Reason.CTA_BARRIER)) > 0.05


def test_a_wait_for_products_names_the_first_of_the_group() -> None:
    product = "R24, gdesc[UR8], R24"
    cost = dearest(
        sass("HGMMA.64x128x16.F32.BF16", product),
        sass("HGMMA.64x128x16.F32.BF16", product + ", gsb0"),
        sass("WARPGROUP.DEPBAR.LE", "gsb0, 0x0"),
    )
    assert (cost.index, cost.reason, cost.setter) == (3, Reason.PRODUCT, 1)


def test_a_wait_at_an_mbarrier_for_a_bulk_copy_is_a_wait_for_copies() -> None:
    cost = dearest(
        sass("MOV", "R7, 0x4000"),
        sass("SYNCS.ARRIVE.TRANS64", "RZ, [UR6+0xc000], R7"),
        sass("UTMALDG.4D", "[UR8], [UR22]"),
        sass("SYNCS.PHASECHK.TRANS64.TRYWAIT", "P0, [UR6+0xc000], R8", sets=0),
        sass("FFMA", waits=[0]),
        warps=1,
    )
    assert cost.reason is Reason.COPIES
    assert cost.share > 0.8


def test_every_clock_of_a_warp_is_charged_once_and_all_charges_are_the_whole() -> None:
    h100 = get_target("h100")
    recorder = Recorder()
    kernel = Replay.of(compile_variant(Variant(128, 64, 8, 3), 90), h100, 1, nominal()).play(player=recorder)
    (play,) = recorder.plays
    for team, _, issues in play.by_warp():
        spans = list(account(play.teams[team].stream, issues))
        assert all(before.stop == pytest.approx(after.start) for before, after in pairwise(spans))
        assert sum(span.stop - span.start for span in spans) == pytest.approx(issues[-1].issued - issues[0].due)
    (part,) = charge([recorder], kernel.loops[0])
    assert sum(cost.share for cost in part) == pytest.approx(1)
    own = {i.index for i in kernel.loops[0].parts[0][0]}
    assert {cost.index for cost in part} <= own


def test_a_recorded_play_is_the_same_play() -> None:
    replay = loop(sass("LDG.E.128", sets=0), *[sass("MUFU.EX2")] * 4, sass("FFMA", waits=[0]), resident=2)
    assert replay.play(player=Recorder()) == replay.play()
