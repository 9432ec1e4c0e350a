"""Moves on kernels in Gluon: each makes correct candidates of the seeds, and what it does not know it leaves alone."""

import re
from pathlib import Path

import pytest
import torch

from avo.agents.moves import MOVES
from avo.agents.moves.in_gluon import GLUON_MOVES
from avo.agents.moves.move import Variant
from avo.evaluator.offline import offline
from avo.evaluator.targets import get_target
from avo.seeds import seed_source
from tests.agents.moves.fragments import sections, stand_in
from tests.evaluator.executor.chip.test_chip_execution import attention, module
from tests.evaluator.executor.chip.test_chip_notes import example

TARGETS = {"hopper": "h100", "blackwell": "b200"}
SEEDS = {name: seed_source("mha", name) for name in TARGETS}
BY_NAME = {move.name: move for move in GLUON_MOVES}

ORDERS = ["swap the axes of the grid", *(f"{heads} heads side by side along one axis" for heads in (8, 16, 4))]
TURNS = [f"turns end {steps}" for steps in ("1 statement earlier", "1 statement later")]
TURNS += [f"turns end {steps} statements later" for steps in (3, 4, 6, 7)]


def variants(move: str, seed: str) -> tuple[Variant, ...]:
    return BY_NAME[move].variants(SEEDS[seed], get_target(TARGETS[seed]))


@pytest.mark.parametrize(
    ("move", "seed", "labels"),
    [
        ("gluon-ring", "hopper", ["STAGES 2 -> 3", "STAGES 2 -> 4"]),
        ("gluon-ring", "blackwell", ["STAGES 2 -> 3", "STAGES 2 -> 4"]),
        ("gluon-keys", "hopper", ["block_n 128 -> 64", "block_n 128 -> 32"]),
        ("gluon-registers", "hopper", [f"registers of roles 240 -> {n}" for n in (232, 224, 216, 208)]),
        ("gluon-registers", "blackwell", [f"registers of roles 192 -> {n}" for n in (200, 184, 208, 168)]),
        ("gluon-groups", "hopper", ["groups 2 -> 3, block_n 128 -> 64", "groups 2 -> 3", "groups 2 -> 1"]),
        ("gluon-groups", "blackwell", []),
        ("gluon-turns", "hopper", TURNS),
        ("gluon-turns", "blackwell", []),
        ("gluon-order", "hopper", ORDERS),
        ("gluon-order", "blackwell", ORDERS),
        ("gluon-persistent", "hopper", ["persistent grid of 132 programs"]),
        ("gluon-persistent", "blackwell", ["persistent grid of 148 programs"]),
        ("gluon-polynomial", "hopper", []),
        ("gluon-packed", "hopper", []),
        ("gluon-packed", "blackwell", ["scale by pairs"]),
        ("gluon-lazy", "hopper", ["rescale only beyond 8.0"]),
        ("gluon-lazy", "blackwell", ["rescale only beyond 8.0"]),
        ("gluon-polynomial", "blackwell", ["2 of 4 parts by a polynomial", "0 of 4 parts by a polynomial"]),
    ],
)
def test_a_move_says_what_it_changes(move: str, seed: str, labels: list[str]) -> None:
    assert [variant.label for variant in variants(move, seed)] == labels


@pytest.mark.parametrize("move", BY_NAME)
def test_the_example_of_a_moves_note_is_what_the_move_does(move: str) -> None:
    (_, before), *made = sections(example(move)).items()
    seeds = [seed for seed in SEEDS if stand_in(before, SEEDS[seed])]
    sources = [variant.source for seed in seeds for variant in variants(move, seed)]
    for heading, after in made:
        assert any(stand_in(after, source) for source in sources), heading
        assert not any(stand_in(after, source) for source in SEEDS.values()), heading
    assert made


@pytest.mark.parametrize(
    ("note", "section", "source"),
    [
        ("pingpong", "in Gluon", SEEDS["hopper"]),
        ("correction-overlap", "after", SEEDS["blackwell"]),
        ("register-rebalancing", "before", SEEDS["blackwell"]),
        ("register-rebalancing", "after", variants("gluon-registers", "blackwell")[1].source),
    ],
)
def test_other_notes_show_code_of_kernels_that_are_executed(note: str, section: str, source: str) -> None:
    (code,) = (code for heading, code in sections(example(note)).items() if heading.startswith(section))
    assert stand_in(code, source)


@pytest.mark.long
@pytest.mark.parametrize("seed", SEEDS)
def test_after_any_other_moves_only_the_rows_of_keys_change_with_the_keys(seed: str) -> None:
    """Not those of queries, which the launch may mention as often as those of keys: where it counts blocks."""
    card = get_target(TARGETS[seed])
    once = {move: variants(move, seed) for move in BY_NAME if move != "gluon-keys"}
    orders = [once[move][-1].source for move in ("gluon-persistent", "gluon-order")]
    twice = [BY_NAME[move].variants(source, card)[:1] for source in orders for move in once]
    sources = [made.source for found in (*once.values(), *twice) for made in found]
    assert len(sources) > 20
    for source in sources:
        changes = [made.label.split() for made in BY_NAME["gluon-keys"].variants(source, card)]
        assert [name for name, *_ in changes] == ["block_n"] * 2


def test_a_number_that_queries_share_with_keys_is_not_the_rows_of_keys() -> None:
    source = SEEDS["hopper"].replace("descriptor(q, block_m)", "descriptor(q, block_n)")
    assert source != SEEDS["hopper"]
    assert BY_NAME["gluon-keys"].variants(source, get_target("h100")) == ()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_kernel_that_rescales_lazily_gets_another_slack(seed: str) -> None:
    (lazy,) = variants("gluon-lazy", seed)
    others = BY_NAME["gluon-lazy"].variants(lazy.source, get_target(TARGETS[seed]))
    assert [other.label for other in others] == ["rescale only beyond 4.0", "rescale only beyond 12.0"]
    assert others[0].source.replace("+ 4.0", "+ 8.0") == lazy.source


def test_what_is_scaled_by_pairs_is_scaled_everywhere_and_keeps_its_other_moves() -> None:
    (packed,) = variants("gluon-packed", "blackwell")
    assert "import fma2, mul2" in packed.source
    assert (packed.source.count("fma2(s"), packed.source.count("mul2(part.load")) == (4, 1)
    assert "* scale - new_max" not in packed.source
    card = get_target("b200")
    assert BY_NAME["gluon-packed"].variants(packed.source, card) == ()
    shares = [variant.label for variant in BY_NAME["gluon-polynomial"].variants(packed.source, card)]
    assert shares == ["2 of 4 parts by a polynomial", "0 of 4 parts by a polynomial"]


def test_buffers_whose_extents_are_not_written_out_have_no_other_depth() -> None:
    source = re.sub(r"gl\.allocate_shared_memory\(.*", "gl.allocate_shared_memory(*of_a_ring)", SEEDS["hopper"])
    assert "of_a_ring" in source
    assert BY_NAME["gluon-ring"].variants(source, get_target("h100")) == ()


def test_heads_are_put_side_by_side_only_where_it_is_known_which_axis_numbers_blocks() -> None:
    source = SEEDS["hopper"].replace("gl.num_programs(0) - 1 - ", "")
    found = BY_NAME["gluon-order"].variants(source, get_target("h100"))
    assert [variant.label for variant in found] == ["swap the axes of the grid"]


def test_a_program_that_walks_over_tiles_makes_its_barriers_anew_for_each() -> None:
    for seed in SEEDS:
        (persistent,) = variants("gluon-persistent", seed)
        kernel = persistent.source.partition("def attention_kernel")[2]
        once, _, each = kernel.partition("    for tile")
        assert "mbarrier.init" not in once
        assert "gl.allocate_shared_memory" not in each
        inits = SEEDS[seed].count("mbarrier.init(")
        assert (each.count("mbarrier.init("), each.count("mbarrier.invalidate(")) == (inits, inits)
        assert "gl.program_id(1)" not in kernel
        assert BY_NAME["gluon-persistent"].variants(persistent.source, get_target(TARGETS[seed])) == ()


def test_of_three_groups_each_passes_the_turn_to_the_next() -> None:
    three = variants("gluon-groups", "hopper")[0].source
    assert "turns.index((GROUP + 1) % 3)" in three
    back = BY_NAME["gluon-groups"].variants(three, get_target("h100"))
    assert [variant.label for variant in back] == ["groups 3 -> 2"]
    assert back[0].source.count("attend,") == 2
    assert "turns.index((GROUP + 1) % 2)" in back[0].source
    ends = [variant.label for variant in BY_NAME["gluon-turns"].variants(three, get_target("h100"))]
    assert ends == TURNS


@pytest.mark.long
@pytest.mark.parametrize(
    ("move", "seed"),
    [
        ("gluon-ring", "hopper"),
        ("gluon-keys", "hopper"),
        ("gluon-order", "hopper"),
        ("gluon-lazy", "hopper"),
        ("gluon-groups", "hopper"),
        ("gluon-turns", "hopper"),
        ("gluon-persistent", "hopper"),
        ("gluon-registers", "hopper"),
        *((move, "blackwell") for move in BY_NAME if move not in ("gluon-groups", "gluon-turns")),
    ],
)
def test_what_a_move_makes_of_a_seed_attends(
    move: str, seed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, heads, 200, 128).bfloat16() for heads in (8, 4, 4))
    for number, variant in enumerate(variants(move, seed)):
        path = tmp_path / f"variant_{number}.py"
        two_programs = re.sub(r", (132|148)\),\)", ", 2),)", variant.source)
        assert (two_programs != variant.source) == (move == "gluon-persistent")
        path.write_text(two_programs, encoding="utf-8")
        out, lse = torch.empty_like(q), torch.empty(q.shape[:3])
        with offline(target=TARGETS[seed]) as session:
            module(path).attention(q, k, v, out, lse, causal=True, scale=0.1)
        assert not session.report().faults, variant.label
        assert torch.allclose(out.double(), attention(q, k, v, True, 0.1), atol=0.02), variant.label


def test_moves_of_triton_and_of_gluon_leave_each_others_kernels_alone() -> None:
    card = get_target("h100")
    others = [move for move in MOVES if not move.gluon]
    assert not any(move.variants(SEEDS["hopper"], card) for move in others)
    assert not any(move.variants(seed_source("mha", "tuned"), card) for move in GLUON_MOVES)
