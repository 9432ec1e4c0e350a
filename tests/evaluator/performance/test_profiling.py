"""Profiles of compiled kernels: parts that add up, the right lines, and data that tools can rely on."""

import inspect
import json
from dataclasses import replace
from itertools import combinations

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.judges import local_judge
from avo.evaluator.locations import without_locations
from avo.evaluator.performance import explain, predict
from avo.evaluator.performance.timeline import CELLS
from avo.evaluator.profile import Profile, Source
from avo.evaluator.target import ScoreKind
from avo.evaluator.targets import get_target
from avo.seeds import seed_source
from bench import variants
from bench.variants import HEAD_DIM, HEADS, TOKENS, Variant, ir_of, launch_work

H100 = get_target("h100")
SOURCE = Source(inspect.getfile(variants), inspect.getsource(variants))
FLOPS = 4 * TOKENS * 8192 * HEADS * HEAD_DIM
LEAST_BYTES = 4 * TOKENS * HEADS * HEAD_DIM * 2
TUNED = Variant(128, 64, 8, 3)


def explained(*variants: Variant, flops: int = FLOPS, least_bytes: int = LEAST_BYTES) -> Profile:
    works = [launch_work(variant, 90, 8192) for variant in variants]
    return explain("8k", flops, least_bytes, works, H100, SOURCE, [ir_of(variant, 90) for variant in variants])


KERNELS = ["profile", *(pytest.param(name, marks=pytest.mark.long) for name in ("causal", "specialised"))]
"""Profiles, by fixture."""


@pytest.fixture(scope="module")
def profile() -> Profile:
    return explained(TUNED)


@pytest.fixture(scope="module")
def causal() -> Profile:
    return explained(replace(TUNED, schedule="split"), flops=FLOPS // 2)


@pytest.fixture(scope="module")
def specialised() -> Profile:
    return explained(Variant(128, 64, 4, 3, descriptors=True, specialised=True))


def test_what_is_explained_is_the_prediction(profile: Profile) -> None:
    assert profile.score == predict("8k", FLOPS, LEAST_BYTES, [launch_work(TUNED, 90, 8192)], H100)
    assert profile.kind is ScoreKind.PREDICTED


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_parts_of_the_time_add_up_to_it(kernel: str, request: pytest.FixtureRequest) -> None:
    made: Profile = request.getfixturevalue(kernel)
    assert sum(part.time_us for part in made.parts) == pytest.approx(made.score.time_us)
    assert sum(part.share for part in made.parts) == pytest.approx(1)
    assert all(part.time_us > 0 for part in made.parts)


def test_launches_one_after_the_other_have_parts_of_their_own(profile: Profile) -> None:
    twice = explained(TUNED, TUNED)
    assert sum(part.time_us for part in twice.parts) == pytest.approx(twice.score.time_us)
    # the second is not timed by events of its own, and finds in L2 what the first left there
    assert 0 < 2 * profile.score.time_us - twice.score.time_us < 20
    assert [part.name for part in twice.parts if part.launch == 0] == [part.name for part in profile.parts]
    assert [part.name for part in twice.parts if part.launch == 1] == [part.name for part in profile.parts]


def test_a_time_that_memory_takes_says_so() -> None:
    made = explained(TUNED, least_bytes=2**42)
    waiting = [part for part in made.parts if part.name == "waiting for hbm"]
    assert waiting
    assert sum(part.time_us for part in made.parts) == pytest.approx(made.score.time_us)


def test_the_loop_is_named_by_its_line_and_its_costs_by_theirs(profile: Profile) -> None:
    outside, loop = profile.launches[0].sections
    assert outside.name == "outside loops"
    assert SOURCE.line(loop.line) == "for start_n in range(lo, hi, BLOCK_N):"
    assert loop.name == f"loop at line {loop.line}"
    assert loop.passes_per_program == 8192 / 64
    (role,) = loop.roles
    assert {"s = tl.dot(q, k)", "acc = tl.dot(p.to(v.dtype), v, acc)", "p = tl.exp2(s * scale - m_new[:, None])"} <= {
        cost.source for cost in role.lines
    }
    assert all(cost.source == SOURCE.line(cost.line) for cost in role.lines)
    assert all(cost.source == SOURCE.line(cost.line) for cost in role.instructions)


def test_waits_for_products_count_for_the_lines_of_the_products(profile: Profile) -> None:
    (role,) = profile.launches[0].sections[1].roles
    waiting = {cost.source for cost in role.lines if "matrix product" in cost.reasons}
    assert waiting
    assert all("tl.dot" in source for source in waiting)


@pytest.mark.parametrize("kernel", KERNELS)
def test_reasons_of_each_role_are_all_its_time(kernel: str, request: pytest.FixtureRequest) -> None:
    made: Profile = request.getfixturevalue(kernel)
    for section in made.launches[0].sections:
        for role in section.roles:
            assert sum(role.reasons.values()) == pytest.approx(1)
            shares = [cost.share for cost in role.instructions]
            assert shares == sorted(shares, reverse=True)
            for cost in role.instructions:
                assert cost.clocks_per_pass == pytest.approx(cost.share * section.clocks_per_pass)


def test_ir_without_locations_leads_to_no_line() -> None:
    ir = without_locations(ir_of(TUNED, 90))
    made = explain("8k", FLOPS, LEAST_BYTES, [launch_work(TUNED, 90, 8192)], H100, SOURCE, [ir])
    loop = made.launches[0].sections[1]
    assert loop.name.startswith("loop at 0x")
    assert {cost.line for cost in loop.roles[0].lines} == {None}


@pytest.mark.long
def test_two_loops_of_one_line_are_told_apart(causal: Profile) -> None:
    line = causal.launches[0].sections[1].line
    names = [section.name for section in causal.launches[0].sections]
    assert names == ["outside loops", f"loop at line {line} #1", f"loop at line {line} #2"]


@pytest.mark.long
def test_every_role_of_a_specialised_kernel_is_explained(specialised: Profile) -> None:
    loop = specialised.launches[0].sections[-1]
    assert len(loop.roles) == 3
    assert sum("matrix product" in role.reasons for role in loop.roles) == 2


def test_the_critical_resource_is_the_one_whose_relief_shortens_the_loop_most(profile: Profile) -> None:
    loop = profile.launches[0].sections[1]
    assert loop.relief_percent[loop.critical] == max(loop.relief_percent.values()) >= 1
    assert loop.relief_percent[loop.critical] > loop.relief_spread[loop.critical] > 0


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_score_names_the_critical_resource_that_its_profile_names(
    kernel: str, request: pytest.FixtureRequest
) -> None:
    made: Profile = request.getfixturevalue(kernel)
    longest = max(made.launches, key=lambda launch: launch.time_us)
    assert made.score.critical == max(longest.sections, key=lambda section: section.time_us).critical


def test_answers_say_what_each_repair_would_gain(profile: Profile) -> None:
    gains = [answer.gain_percent for answer in profile.what_if]
    assert gains == sorted(gains, reverse=True)
    by_name = {answer.name: answer for answer in profile.what_if}
    assert by_name["no_spills"].gain_percent == 0
    assert by_name["no_spills"].note == "has none"
    assert by_name["free_exponentials"].gain_percent > 2
    assert "registers" in by_name["one_more_cta"].note
    for answer in profile.what_if:
        assert answer.tflops == pytest.approx(profile.score.tflops * (1 + answer.gain_percent / 100))


def test_a_gain_that_is_not_larger_than_its_spread_is_not_resolved(profile: Profile) -> None:
    by_name = {answer.name: answer for answer in profile.what_if}
    assert by_name["free_exponentials"].resolved
    assert by_name["free_exponentials"].spread_percent > 0
    assert not replace(by_name["free_exponentials"], spread_percent=100.0).resolved


def test_a_full_last_wave_and_free_launches_gain_what_their_parts_of_the_time_take(profile: Profile) -> None:
    gains = {answer.name: answer.gain_percent for answer in profile.what_if}
    for name, part in (("full_last_wave", "wave tail"), ("free_launches", "launch overhead")):
        (share,) = (each.share for each in profile.parts if each.name == part)
        assert gains[name] == pytest.approx(100 * share / (1 - share), rel=0.05)


def test_the_clock_is_what_is_left_under_load(profile: Profile) -> None:
    assert profile.launches[0].clock_ghz == pytest.approx(H100.clock_ghz * H100.sustained_clock_ratio)
    assert H100.sustained_clock_ratio < 0.9


@pytest.mark.parametrize("kernel", KERNELS)
def test_no_clocks_of_a_loop_belong_to_the_head_of_the_function_or_to_no_line(
    kernel: str, request: pytest.FixtureRequest
) -> None:
    made: Profile = request.getfixturevalue(kernel)
    lines = [cost for section in made.launches[0].sections[1:] for role in section.roles for cost in role.lines]
    assert lines
    assert not [cost for cost in lines if cost.line is None or cost.source.startswith(("def ", "@"))]


def test_products_and_waits_are_listed_however_cheap_they_are(profile: Profile) -> None:
    (role,) = profile.launches[0].sections[1].roles
    assert profile.code is not None
    listed = " ".join(cost.instruction for cost in role.products_and_waits)
    assert all(opcode in listed for opcode in ("WARPGROUP.ARRIVE", "WARPGROUP.DEPBAR", "DEPBAR.LE SB0", "BAR.SYNC"))
    products = [cost for cost in role.products_and_waits if "HGMMA" in cost.instruction]
    own = [line for line in profile.code.sass if "HGMMA" in line.instruction]
    assert [cost.instruction.split()[0] for cost in products] == [str(len(own) - 4), "4"]
    assert sum(cost.share for cost in products) == pytest.approx(sum(line.share for line in own))


@pytest.mark.long
def test_kernels_that_differ_outside_of_their_loop_say_the_same_of_its_loads() -> None:
    source = seed_source("mha", "tuned")
    output, store = ("    out = (acc / row_sum[:, None])", "    o_desc.store(")
    edits = [
        source,
        source.replace(output, "    out = (acc * (1.0 / row_sum)[:, None])"),
        source.replace(store, f"    tl.debug_barrier()\n{store}"),
    ]
    assert len(set(edits)) == 3
    with local_judge(H100, "quick") as judge:
        found = [judge.profile(Candidate("mha", edit), "8k-full") for edit in edits]
    gains = [answer for (made,) in found for answer in made.what_if if answer.name == "free_loads"]  # type: ignore[misc]
    assert len(gains) == 3
    for one, other in combinations(gains, 2):
        assert abs(one.gain_percent - other.gain_percent) < 0.2 + one.spread_percent + other.spread_percent < 5


def test_lines_that_do_not_exist_have_no_text() -> None:
    assert [SOURCE.line(number) for number in (None, 0, -1, 10**6)] == [""] * 4


def test_json_has_stable_keys_and_units_in_its_names(profile: Profile) -> None:
    data = json.loads(json.dumps(profile.to_json(), allow_nan=False))
    assert list(data) == ["kind", "target", "score", "parts", "launches", "what_if", "counted"]
    assert {"case", "tflops", "time_us", "limiter", "utilisation"} <= set(data["score"])
    assert list(data["parts"][0]) == ["name", "launch", "time_us", "share"]
    launch = data["launches"][0]
    assert list(launch) == [
        "kernel", "programs", "ctas_per_sm", "limited_by", "waves", "registers", "spill_bytes", "shared_bytes",
        "time_us", "clock_ghz", "sections",
    ]  # fmt: skip
    section = launch["sections"][1]
    assert list(section) == [
        "name", "line", "passes_per_program", "clocks_per_pass", "time_us", "utilisation", "critical",
        "relief_percent", "relief_spread", "roles",
    ]  # fmt: skip
    role = section["roles"][0]
    assert list(role) == ["warps", "reasons", "instructions", "lines", "products_and_waits"]
    assert list(role["instructions"][0]) == [
        "address", "instruction", "line", "source", "reason", "waits_for", "waits_for_line", "clocks_per_pass", "share",
    ]  # fmt: skip
    assert list(role["lines"][0]) == ["line", "source", "clocks_per_pass", "share", "reasons", "waits_for"]
    assert list(data["what_if"][0]) == ["name", "label", "time_us", "tflops", "gain_percent", "spread_percent", "note"]
    assert {answer["name"] for answer in data["what_if"]} == {
        "no_spills", "free_exponentials", "free_loads", "free_integers", "no_bank_conflicts", "free_cta_barriers",
        "hidden_latencies", "one_more_cta", "free_products", "full_last_wave", "free_launches",
    }  # fmt: skip


def test_a_timeline_shows_two_passes_of_the_hot_loop(profile: Profile) -> None:
    drawn = profile.timeline
    assert drawn is not None
    loop = profile.launches[0].sections[1]
    assert drawn.name.startswith("loop at line")
    assert drawn.clocks == pytest.approx(2 * loop.clocks_per_pass, rel=0.1)
    assert len(drawn.passes) == 2
    busy = {lane.name: sum(lane.busy) / CELLS for lane in drawn.pipes}
    for pipe in ("tensor", "exp", "issue"):
        assert busy[pipe] == pytest.approx(loop.utilisation[pipe], abs=0.05)
    assert busy["l2: copies and loads"] == pytest.approx(loop.utilisation["l2"], abs=0.05)
    assert [lane.name for lane in drawn.warps] == ["CTA 0 warps 0-3", "CTA 0 warps 4-7"]
    assert all(len(lane.states) == CELLS for lane in drawn.warps)
    assert {"matrix product", "running"} <= {state for lane in drawn.warps for state in lane.states}


@pytest.mark.long
def test_a_timeline_names_roles(specialised: Profile) -> None:
    drawn = specialised.timeline
    assert drawn is not None
    assert {lane.name for lane in drawn.warps} >= {"CTA 0 role 1 warps 0-3", "CTA 0 role 2 warps 0-3"}


@pytest.mark.long
def test_lanes_of_the_tensor_cores_by_role_are_the_lane_of_all(specialised: Profile) -> None:
    assert specialised.timeline is not None
    lanes = {lane.name: sum(lane.busy) for lane in specialised.timeline.pipes}
    own = [busy for name, busy in lanes.items() if name.startswith("tensor of CTA 0 role")]
    assert len(own) == 2
    assert sum(own) == pytest.approx(lanes["tensor"], rel=0.02)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_code_of_the_hot_loop_is_whole_and_its_ptx_is_a_loop(kernel: str, request: pytest.FixtureRequest) -> None:
    made: Profile = request.getfixturevalue(kernel)
    code = made.code
    assert code is not None
    assert code.section.startswith("loop at line")
    assert any("HGMMA" in line.instruction for line in code.sass)
    hot = max(made.launches[0].sections, key=lambda section: section.time_us)
    assert sum(line.share for line in code.sass) == pytest.approx(len(hot.roles))
    assert any("wgmma.mma_async" in line for line in code.ptx)
    assert code.ptx[0].startswith("$L__BB")
    assert code.ptx[-1].endswith(f"\t{code.ptx[0].partition(':')[0]};")
    assert not [line for line in code.ptx if ".loc" in line]
