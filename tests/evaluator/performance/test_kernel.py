"""Clocks per pass, apart from the whole: nested loops and the roles of warp-specialised kernels."""

import importlib
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest
import torch
import triton
import triton.language as tl

from avo.evaluator.offline import offline
from avo.evaluator.performance.kernel import measure, play_kernel, read, spilled_bytes
from avo.evaluator.performance.model import time_case
from avo.evaluator.performance.parts import play_parts
from avo.evaluator.performance.pipes import Costs
from avo.evaluator.performance.sass import Instruction, ModelError
from avo.evaluator.performance.structure import Loop, Structure
from avo.evaluator.targets import get_target
from avo.evaluator.work import Pace
from bench.variants import Variant, compile_variant
from tests.evaluator.performance.handmade import launched, loop, nominal, nops, sass
from tests.kernels import stored

H100 = get_target("h100")


@pytest.mark.parametrize(
    "text", ["WARPGROUP.DEPBAR.LE gsb0, 0x8000000000000000", "DEPBAR.LE SB0, 0x8000000000000000", "DEPBAR.LE SB0, -0x1"]
)
def test_a_wait_for_impossible_counts_waits_for_nothing(text: str) -> None:
    listing = f".text.k:\n /*0000*/ {text} ; /* 0x0000000000000000 */\n /* 0x0000000000000000 */\n"
    listing += listing.replace(text, "EXIT").replace(".text.k:\n", "")
    binary = replace(compile_variant(Variant(128, 64, 8, 3), 90), listing=listing)
    assert measure(binary, H100, 1, nominal()).outside.clocks < 100


@pytest.mark.parametrize("text", ["S2R R0", "DEPBAR.LE SBx, 0x0", "DEPBAR.LE SB9, 0x0", "HGMMA.64x128x16.F32 R24"])
def test_a_listing_that_no_disassembler_wrote_is_refused_in_one_line(text: str) -> None:
    listing = f".text.k:\n /*0000*/ {text} ; /* 0x0000000000000000 */\n /* 0x0000000000000000 */\n"
    listing += listing.replace(text, "EXIT").replace(".text.k:\n", "")
    binary = replace(compile_variant(Variant(128, 64, 8, 3), 90), listing=listing)
    with pytest.raises(ModelError, match="makes no sense") as refusal:
        measure(binary, H100, 1, nominal())
    assert "\n" not in str(refusal.value)


MEET = Instruction(0, 0, "", "BAR.SYNC.DEFER_BLOCKING", "0x1", 1, 7, 7, 0)
Counts = list[dict[Loop, int]]


def at(line: int, *items: Instruction | Loop) -> Loop:
    return Loop(line, items or nops(200), False, lines=(line,))


def dispatching(*role: Instruction | Loop) -> Loop:
    return Loop(99, (*nops(9), *role), True, roles=(role,))


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    """How often each loop was passed, play by play; the code outside the loops is played after them."""
    found: Counts = []

    def noted(*args: Any) -> Any:
        played = play_parts(*args)
        found.append(played[2])
        return played

    monkeypatch.setattr("avo.evaluator.performance.kernel.play_parts", noted)
    return found


def test_loops_beside_more_loops_of_the_leading_role_are_passed_in_the_time_of_all(counts: Counts) -> None:
    lead, others = tuple(map(at, (1, 2, 3))), tuple(map(at, (4, 5)))
    paces = tuple((range(line, line + 1), Pace(0.5, 0.5)) for line in (4, 5))
    play_kernel(Structure((*lead, dispatching(*others)), (), paces), Costs((), H100), 8, 1)
    assert [counts[0][loop] for loop in (*lead, *others)] == [24, 24, 24, 36, 36]


@pytest.mark.parametrize(
    ("pace", "passes"),
    [(Pace(), 24), (Pace(0.9, 1.0, -1.0), 23), (Pace(2.1, 2.0, 1.0), 49), (Pace(0.5, 0.5), 12), (Pace(0.0, 0.0), 1)],
)
def test_a_role_that_is_started_in_a_loop_passes_its_own_as_was_counted_in_each_start(
    pace: Pace, passes: int, counts: Counts
) -> None:
    own, role = at(1), at(2)
    structure = Structure((at(3, MEET, own, MEET), dispatching(MEET, role, MEET)), (), ((range(2, 3), pace),))
    play_kernel(structure, Costs((), H100), 8, 1)
    starts = 2
    assert (counts[0][own], counts[0][role]) == (starts * 24, starts * passes)


def test_a_role_with_one_loop_is_started_as_often_as_one_with_two(counts: Counts) -> None:
    own, role = (at(1), at(2)), at(3)
    play_kernel(Structure((at(4, MEET, *own, MEET), dispatching(MEET, role, MEET)), ()), Costs((), H100), 8, 1)
    assert [counts[0][loop] for loop in (*own, role)] == [48, 48, 96]


@pytest.mark.parametrize(("length", "passes"), [(200, 24), (6000, 20), (11000, 12)])
def test_roles_are_played_until_what_their_rings_hold_at_the_start_does_not_count(
    length: int, passes: int, counts: Counts
) -> None:
    lead, other = at(1, *nops(length)), at(2, *nops(length))
    play_kernel(Structure((lead, dispatching(other)), ()), Costs((), H100), 8, 1)
    assert counts[0][lead] == passes


FOUR_TILES_A_PASS = """\
    for first in range(0, tiles, 4):
        for each in gl.static_range(4):
            tile = first + each
"""
NESTED = """\
    for first in range(0, tiles, 16):
        for tile in range(first, first + 16):
"""


@pytest.mark.long
@pytest.mark.parametrize("loops", ["four tiles a pass", "two loops", "nested loops"])
@pytest.mark.parametrize("role", ["load_keys_and_values", "multiply", "attend"])
def test_a_role_with_other_loops_for_the_same_work_is_predicted_little_faster(
    role: str, loops: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    source = stored("gluon/blackwell_attention")
    before, after = source.split(f"def {role}(")
    start = "    for tile in range(tiles):\n"
    head, body = after.split(start, 1)
    deep = "".join(takewhile(lambda line: line.startswith("        "), body.splitlines(keepends=True)))
    made = {
        "four tiles a pass": f"{FOUR_TILES_A_PASS}{indent(deep, '    ')}",
        "two loops": "".join(start.replace("tiles", part) + deep for part in ("0, tiles // 2", "tiles // 2, tiles")),
        "nested loops": f"{NESTED}{indent(deep, '    ')}",
    }
    changed = f"{before}def {role}({head}{made[loops]}{body.removeprefix(deep)}"

    def microseconds(name: str, text: str) -> float:
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        q, k, v, out = (torch.empty(1, 16, 8192, 128, dtype=torch.bfloat16) for _ in range(4))
        with offline(target="b200", execute=False) as session:
            attention = importlib.import_module(name).attention
            attention(q, k, v, out, torch.empty(1, 16, 8192), causal=False, scale=0.1)
        return session.launches[0].predict().us

    name = f"{role}_{loops.replace(' ', '_')}"
    assert microseconds(name, changed) > 0.85 * microseconds(f"before_{name}", source)


@pytest.mark.parametrize(
    ("target", "variant", "products"),
    [
        # both consumers together do one 128x64 step
        ("h100", Variant(128, 64, 4, 3, descriptors=True, specialised=True), 4 * 128 * 64 * 128),
        pytest.param(
            "b200",
            Variant(128, 128, 4, 3, descriptors=True, specialised=True),
            4 * 128 * 128 * 128,
            marks=pytest.mark.corpus,
        ),
    ],
)
def test_the_roles_of_a_specialised_kernel_make_one_loop(target: str, variant: Variant, products: int) -> None:
    chosen = get_target(target)
    kernel = measure(compile_variant(variant, chosen.arch), chosen, 1, nominal(target))
    (loop,) = kernel.loops
    assert not kernel.untied
    assert loop.flops == products
    assert loop.clocks >= products / chosen.tensor_flop
    assert loop.usage["exp"] * loop.clocks == pytest.approx(variant.block_m * variant.block_n / 16, rel=0.1)


@pytest.mark.parametrize("target", ["a100", "h100", "b200"])
def test_a_loop_holds_the_products_and_exponentials_of_its_source(target: str) -> None:
    chosen = get_target(target)
    kernel = measure(compile_variant(Variant(128, 64, 8, 3), chosen.arch), chosen, 1, nominal(target))
    (loop,) = kernel.loops
    assert loop.flops == 4 * 128 * 64 * 128
    assert loop.usage["exp"] * loop.clocks == pytest.approx(128 * 64 / 16, rel=0.1)


def test_a_branch_around_products_makes_a_lighter_pass() -> None:
    product = Instruction(1, 16, "", "HMMA.16816.F32.BF16", "", 1, 7, 7, 0)
    branching = Loop(0, (*nops(9), product), False, nops(5))
    kernel = play_kernel(Structure((branching,), ()), Costs((product,), H100), 4, 1)
    (heavy,) = kernel.loops
    assert heavy.light is not None
    assert (heavy.clocks, heavy.light.clocks) == (pytest.approx(10, abs=4), 5)
    assert (heavy.flops > 0, heavy.light.flops) == (True, 0)
    assert play_kernel(Structure((Loop(0, nops(10), False, nops(8)),), ()), Costs((), H100), 4, 1).loops[
        0
    ].skipped == pytest.approx(0.2)


def test_a_loop_that_ptxas_unrolled_holds_several_copies_of_what_ptx_states_once() -> None:
    once, more = (replace(sass("LDG.E"), ptx_line=line) for line in (10, 11))
    sums = [replace(sass("FFMA"), ptx_line=line) for line in range(12, 17)]  # one of PTX need not be one of SASS
    assert loop(once, more, *sums * 7).play().loops[0].copies == 1
    assert loop(*[once, more] * 4, *sums).play().loops[0].copies == 4
    # less than half of the loads are repeated: registers that did not last, not a loop that was unrolled
    assert loop(once, once, more, replace(more, ptx_line=13)).play().loops[0].copies == 1
    assert loop(sass("LDG.E"), sass("LDG.E")).play().loops[0].copies == 1  # of unknown lines


@triton.jit
def sums(X, Out, n, N: tl.constexpr):
    i = tl.arange(0, N)
    total = tl.zeros((N,), tl.float32)
    for step in range(n):
        total += tl.load(X + step * N + i)
    tl.store(Out + i, total)


@pytest.mark.long
def test_a_compiled_loop_that_was_unrolled_is_charged_by_the_passes_of_the_ir() -> None:
    values = {"X": torch.empty(64 * 512), "Out": torch.empty(512), "n": 64}
    launch = launched(sums, values, (1, 1, 1), stages=1, N=512)
    (made,) = time_case([launch], 0, H100).launches
    code = read(launch.binary).code.instructions
    passed = max(made.kernel.loops, key=lambda passed: passed.copies)
    assert passed.copies == 4
    assert sum(i.base == "LDG" for instructions, _ in passed.parts for i in instructions) == 4
    assert len(launch.loops) == 1 < sum(i.base == "LDG" for i in code)
    assert made.program_clocks[1, 0] == pytest.approx(64 / 4 * passed.clocks)


def spills(*texts: str) -> tuple[Instruction, ...]:
    return tuple(Instruction(0, 0, "", *text.split(" ", 1), 1, 7, 7, 0) for text in texts)


def test_spilled_registers_of_a_pass_are_the_places_that_its_warps_touch() -> None:
    few = at(1, *spills("LDL R4, [R1]", "LDL.64 R4, [R1]", "STL [R1+0x4], R4"))
    many = at(2, *spills("LDL.LU R4, [R1+0x8]", "STL.128 [R1+0x10], R8"))
    assert spilled_bytes(Structure((few,), ()), 8) == 8 * 32 * 8
    assert spilled_bytes(Structure((few, many), ()), 8) == 8 * 32 * (4 + 16)  # one loop after the other
    assert spilled_bytes(Structure((*spills("STL [R1], R4"), at(3)), ()), 8) == 0  # not in a loop
    beside = Structure((few, dispatching(many)), ())
    assert spilled_bytes(beside, 4) == 32 * (8 + 4 + 16)  # roles of one warp each, side by side
