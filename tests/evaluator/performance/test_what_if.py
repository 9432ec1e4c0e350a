"""Reliefs find what holds a loop back, and repairs move predictions the right way."""

from dataclasses import replace

import pytest

from avo.evaluator.compiling.residency import ctas_per_sm
from avo.evaluator.performance.model import time_case
from avo.evaluator.performance.reliefs import relief_percent, reliefs
from avo.evaluator.performance.replay import Replay
from avo.evaluator.performance.sass import Instruction
from avo.evaluator.performance.what_if import REPAIRS, gain_of, times, times_after, with_one_more_cta
from avo.evaluator.targets import get_target
from avo.evaluator.work import LaunchWork
from bench.variants import Variant, compile_variant, launch_work, predict_variant
from tests.evaluator.performance.handmade import loop, nominal, sass

H100 = get_target("h100")
TUNED = Variant(128, 64, 8, 3)
BY_NAME = {repair.name: repair for repair in REPAIRS}
BARRIER = sass("BAR.SYNC.DEFER_BLOCKING", "0x0")
PRODUCT = sass("HGMMA.64x128x16.F32.BF16", "R24, gdesc[UR8], R24, gsb0")


def relieved(replay: Replay) -> dict[str, float]:
    pipes = [name for name, busy in replay.play().loops[0].usage.items() if busy and name != "issue"]
    gains = relief_percent(replay.plays(), 0, reliefs(replay, pipes))
    return {name: gain.percent for name, gain in gains.items()}


@pytest.mark.parametrize(
    ("critical", "body", "warps"),
    [
        ("exp", [sass("MUFU.EX2")] * 16, 8),
        ("tensor", [PRODUCT] * 4, 8),
        ("alu", [sass("FFMA"), *[sass("FMNMX")] * 16, BARRIER], 8),
        ("latency", [sass("LDG.E.128", sets=0), *[sass("FMNMX")] * 4, sass("FFMA", waits=[0])], 4),
        ("issue", [sass("FFMA"), *[sass("NOP")] * 64, BARRIER], 16),
        ("l2", [*[sass("LDG.E.128", sets=0)] * 16, sass("FFMA", waits=[0])], 16),
    ],
)
def test_the_resource_that_holds_a_loop_back_is_the_critical_one(
    critical: str, body: list[Instruction], warps: int
) -> None:
    gains = relieved(loop(*body, warps=warps))
    assert next(iter(gains)) == critical
    assert gains[critical] > 5


@pytest.mark.parametrize(
    ("variant", "length", "resource"),
    [
        pytest.param(Variant(128, 128, 8, 3), 16384, "tensor", marks=pytest.mark.corpus),
        pytest.param(Variant(128, 64, 8, 1), 16384, "latency", marks=pytest.mark.corpus),
        pytest.param(Variant(16, 16, 4, 3), 16384, "shared", marks=pytest.mark.corpus),
        pytest.param(Variant(64, 64, 4, 3, descriptors=True), 16384, "shared", marks=pytest.mark.corpus),
        (Variant(128, 64, 8, 3), 16384, "cta_barrier"),
        (Variant(128, 64, 8, 3, descriptors=True), 16384, "cta_barrier"),
    ],
)
def test_a_prediction_names_the_resource_whose_relief_would_shorten_it_most(
    variant: Variant, length: int, resource: str
) -> None:
    assert predict_variant(variant, "h100", length).critical == resource


def test_the_busiest_pipe_need_not_be_the_critical_one() -> None:
    replay = loop(sass("LDG.E.128", sets=0), *[sass("FMNMX")] * 64, sass("FFMA", waits=[0]))
    usage = replay.play().loops[0].usage
    assert max(usage, key=lambda name: usage[name]) == "alu"
    assert next(iter(relieved(replay))) == "latency"


def test_barriers_that_keep_warpgroups_from_taking_turns_cost_something() -> None:
    phases = [PRODUCT, PRODUCT, sass("WARPGROUP.DEPBAR.LE", "gsb0, 0x0"), *[sass("MUFU.EX2")] * 16]
    assert relieved(loop(*phases, BARRIER, warps=8))["cta_barrier"] > 2
    assert "cta_barrier" not in relieved(loop(*phases, warps=8))


def test_playing_again_without_changes_changes_nothing() -> None:
    replay = Replay.of(compile_variant(TUNED, 90), H100, 1, nominal())
    first = replay.play()
    relieved(replay)
    assert replay.play() == replay.without(lambda _: False).play() == first


def gain(name: str, launch: LaunchWork) -> float:
    """How much faster the launch gets by a repair, in percent."""
    return gain_of(times(0, [launch], H100), times_after(BY_NAME[name], 0, [launch], H100)).percent


@pytest.mark.long
def test_a_kernel_that_spills_gains_from_no_spills_and_another_does_not() -> None:
    assert compile_variant(Variant(128, 128, 4, 1), 90).spill_bytes > 0
    assert gain("no_spills", launch_work(Variant(128, 128, 4, 1), 90, 8192)) > 2
    assert gain("no_spills", launch_work(TUNED, 90, 8192)) == 0


def test_an_attention_kernel_gains_from_free_exponentials() -> None:
    assert gain("free_exponentials", launch_work(TUNED, 90, 8192)) > 2


def test_a_kernel_that_does_not_prefetch_gains_more_from_free_loads() -> None:
    waits = gain("free_loads", launch_work(replace(TUNED, stages=1), 90, 8192))
    assert waits > gain("free_loads", launch_work(TUNED, 90, 8192)) >= 0


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("no_spills", [sass("LDL", "R4, [R1]", sets=0), sass("FFMA", waits=[0])]),
        ("free_exponentials", [sass("MUFU.EX2", sets=0), sass("FFMA", waits=[0])]),
        ("free_loads", [sass("LDG.E.128", sets=0), sass("FFMA", waits=[0])]),
        ("free_integers", [*[sass("IMAD")] * 8, sass("FFMA")]),
        ("free_products", [PRODUCT, sass("WARPGROUP.DEPBAR.LE", "gsb0, 0x0")]),
        ("free_cta_barriers", [sass("FFMA"), BARRIER]),
        ("hidden_latencies", [sass("LDS", sets=0), sass("FFMA", waits=[0])]),
    ],
)
def test_each_repair_shortens_a_loop_of_what_it_takes_away(name: str, body: list[Instruction]) -> None:
    replay, repair = loop(*body), BY_NAME[name]
    before = replay.play().loops[0].clocks
    change = repair.change
    if change:
        after = replay.play(lambda i, op: change(i, op) if repair.applies(i) else op)
    else:
        after = replay.without(repair.applies).play()
    assert after.loops[0].clocks < 0.8 * before


def test_moves_between_registers_are_no_integer_work() -> None:
    assert BY_NAME["free_integers"].applies(sass("IMAD.WIDE"))
    assert not BY_NAME["free_integers"].applies(sass("IMAD.MOV.U32"))


def test_one_more_cta_is_a_binary_that_needs_no_less_than_it_must() -> None:
    launch = launch_work(TUNED, 90, 8192)
    slim = with_one_more_cta(launch, H100)
    assert slim is not None
    assert ctas_per_sm(slim, H100) == ctas_per_sm(launch.binary, H100) + 1
    assert slim.registers <= launch.binary.registers
    for more in (replace(slim, registers=slim.registers + 1), replace(slim, shared_bytes=slim.shared_bytes + 128)):
        assert ctas_per_sm(more, H100) == ctas_per_sm(launch.binary, H100)
    assert time_case([replace(launch, binary=slim)], 0, H100).seconds < time_case([launch], 0, H100).seconds


def test_a_grid_that_would_not_fill_another_cta_has_no_use_for_it() -> None:
    launch = launch_work(TUNED, 90, 8192)
    assert with_one_more_cta(replace(launch, programs=H100.sms), H100) is None
