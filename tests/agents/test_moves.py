"""Every move keeps a correct kernel correct, has the effect it claims, and leaves alone what it does not know."""

import ast
import os
import random
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from avo.agents.moves import MOVES, Move
from avo.agents.moves.far import FAR_MOVES
from avo.agents.moves.move import EVERYTHING
from avo.agents.moves.union import UNION_MOVES
from avo.evaluator.candidate import Candidate
from avo.evaluator.catalogue import get_problem
from avo.evaluator.performance.pipes import Pipe
from avo.evaluator.problem import Problem
from avo.evaluator.problems.decode import DECODE
from avo.evaluator.problems.fsa_backward import FSA_BACKWARD
from avo.evaluator.problems.mha_backward import MHA_BACKWARD
from avo.evaluator.target import Target
from avo.evaluator.targets import get_target
from avo.knowledge_base.library import Library
from avo.seeds import seed_source
from bench.orders import module_of
from tests.corpus import sample, soaked
from tests.evaluator.problems.offline_kernel import fault_of

SEED = seed_source("mha")
H100, B200 = get_target("h100"), get_target("b200")
BY_NAME = {move.name: move for move in MOVES}
Opcodes = Callable[[str, Target], "Counter[str]"]


def apply(source: str, *names: str, target: Target = H100) -> str:
    """Apply the first variant of each move in turn."""
    for name in names:
        source = BY_NAME[name].variants(source, target)[0].source
    return source


def test_every_move_has_a_note_under_its_name() -> None:
    notes = Library.load()
    assert [notes.note(move.name).id for move in MOVES] == [move.name for move in MOVES]


@pytest.mark.long
def test_names_and_labels_can_be_read_back_from_a_change() -> None:
    prepared = apply(SEED, "exp2", "descriptors")
    labels = [variant.label for move in MOVES for variant in move.variants(prepared, B200)]
    assert not any(mark in text for text in [move.name for move in MOVES] + labels for mark in ";")
    assert not any(":" in move.name for move in MOVES)


def test_moves_relieve_resources_that_the_model_knows() -> None:
    pipes = {pipe.name.lower().removesuffix("_sm") for pipe in Pipe if pipe}
    assert pipes | {"issue", "latency", "cta_barrier", "l2", "hbm"} == EVERYTHING
    assert all(move.relieves <= EVERYTHING for move in MOVES)


BEFORE = {"merge": ("split",)}
"""What a move needs to be done first."""
LAUNCH_OPTIONS = ("warps", "stages", "registers")
"""Mean nothing to the executor."""


OF_OTHERS = (
    "share",
    "forced",
    "given-exp2",
    "programs",
    "ahead",
    *(move.name for move in MOVES if move in (*FAR_MOVES, *UNION_MOVES) or move.gluon),
)
"""Moves of selected attention, of backward passes or of decoding alone, and of kernels in Gluon."""


@pytest.mark.parametrize(
    "move", sample((move for move in MOVES if move.name not in OF_OTHERS), 28), ids=lambda move: move.name
)
def test_a_move_makes_distinct_correct_candidates_of_the_seed(move: Move, complaint: Callable[..., str]) -> None:
    source = apply(SEED, *BEFORE.get(move.name, ()))
    variants = move.variants(source, B200)
    assert variants
    digests = {Candidate("mha", code).digest for code in [source, *(variant.source for variant in variants)]}
    assert len(digests) == len(variants) + 1
    assert variants == move.variants(source, B200)
    if move.name not in LAUNCH_OPTIONS:
        assert {variant.label: complaint(variant.source) for variant in variants} == {v.label: "" for v in variants}


SELECTED = {
    "query_outer": (
        "exp2",
        "late-scale",
        "polynomial",
        "lazy",
        "reciprocal",
        "stages",
        "warps",
        "registers",
        "swap",
        "persistent",
    ),
    "kv_outer": (
        "exp2",
        "late-scale",
        "polynomial",
        "stages",
        "tile",
        "share",
        "warps",
        "registers",
        "swap",
        "persistent",
        "forced",
        "ahead",
    ),
    "query_union": ("lazy", "reciprocal", "stages", "tile", "warps", "registers", "reorder"),
}
"""What can be done to the seeds of ``fsa``, besides ``ORDERS``."""
TOGETHER = {
    "query_outer": ("exp2", "lazy", "persistent"),
    "kv_outer": ("exp2", "share", "forced", "persistent"),
    "query_union": ("union-roles", "lazy", "tile"),
}
ORDERS = {
    "query_outer": {"kv-outer", "far", "query-union"},
    "kv_outer": {"far", "lots", "query-union"},
    "query_union": {"union-roles"},
}
"""Moves between orders, tested in ``tests/agents/moves/test_far.py`` and ``test_union.py``."""


@pytest.mark.long
@pytest.mark.parametrize("seed", SELECTED)
def test_moves_apply_to_the_orders_of_selected_attention_and_keep_them_correct(
    seed: str, complaint: Callable[..., str]
) -> None:
    source = seed_source("fsa", seed)
    made = {move.name: move.variants(source, H100) for move in MOVES}
    assert {name for name, variants in made.items() if variants} == {*SELECTED[seed], *ORDERS[seed]}
    checked = [made[name][0] for name in SELECTED[seed] if name not in LAUNCH_OPTIONS]
    wrong = {variant.label: complaint(variant.source, "selected_attention") for variant in checked}
    assert wrong == dict.fromkeys(wrong, "")
    assert complaint(apply(source, *TOGETHER[seed]), "selected_attention") == ""


@pytest.mark.long
def test_forced_blocks_are_left_out_of_the_lists_once(complaint: Callable[..., str]) -> None:
    source = seed_source("fsa", "kv_outer")
    variants = BY_NAME["forced"].variants(source, H100)
    assert [complaint(variant.source, "selected_attention") for variant in variants] == ["", "", ""]
    assert all(BY_NAME["forced"].variants(variant.source, H100) == () for variant in variants)
    assert BY_NAME["exp2"].variants(variants[0].source, H100)
    for old, new in ((">= 0\n        part_lse", "> 0\n        part_lse"), ("other=-1)\n\n\n", "other=0)\n\n\n")):
        assert BY_NAME["forced"].variants(source.replace(old, new, 1), H100) == ()


@pytest.mark.corpus
@pytest.mark.parametrize(
    "names",
    [
        ("split", "skip", "exp2", "descriptors"),
        ("descriptors", "skip", "split", "late-scale", "exp2"),
        ("descriptors", "skip", "specialise", "reverse", "swap", "polynomial", "reorder"),
        ("split", "side", "even", "relative", "merge", "device-descriptors", "lazy"),
        ("persistent", "relative", "split", "specialise", "polynomial", "store"),
        ("swap", "reverse", "split", "reciprocal", "tile"),
        ("group", "skip", "split", "lazy", "persistent", "reverse", "descriptors"),
        ("persistent", "store", "split", "skip", "descriptors", "reverse", "exp2", "lazy"),
        ("skip", "split", "exp2", "split-kv", "descriptors", "skew", "store"),
        ("descriptors", "skip", "split", "lazy", "pingpong", "skew", "swap"),
        ("skew", "group", "split", "pingpong", "persistent"),
    ],
    ids="+".join,
)
def test_moves_compose_in_any_order(names: tuple[str, ...], complaint: Callable[[str], str]) -> None:
    assert complaint(apply(SEED, *names)) == ""


@pytest.mark.long
def test_two_tiles_follow_two_skewed_loops(complaint: Callable[[str], str]) -> None:
    skewed = BY_NAME["skew"].variants(apply(SEED, "split"), H100)[1]
    assert "every loop" in skewed.label
    assert complaint(apply(skewed.source, "pingpong")) == ""


def composed(seed: int, depth: int, target: str, source: str = SEED) -> tuple[str, list[str]]:
    """Return a kernel after moves drawn at random, and their labels."""
    rng, made = random.Random(seed), list[str]()
    for move in rng.sample(MOVES, len(MOVES)):
        variants = move.variants(source, get_target(target)) if len(made) < depth else ()
        if variants:
            variant = rng.choice(variants)
            source = variant.source
            made.append(variant.label)
    return source, made


@pytest.mark.long
@settings(
    max_examples=12,
    phases=[Phase.generate],  # minutes of making a failure smaller tell no more than the moves it names
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**32), depth=st.integers(3, 6), target=st.sampled_from(["a100", "h100", "b200"]))
def test_random_compositions_stay_correct(seed: int, depth: int, target: str, complaint: Callable[[str], str]) -> None:
    source, made = composed(seed, depth, target)
    assert complaint(source) == "", made


@pytest.mark.long
@pytest.mark.parametrize("seeds", soaked([range(24), range(24, 300)], [range(24, 300)]), ids=str)
def test_many_random_compositions_stay_correct(complaint: Callable[[str], str], seeds: range) -> None:
    first = int(os.environ.get("AVO_SOAK_SEED", "0"))
    wrong = {}
    for seed in range(first + seeds.start, first + seeds.stop):
        depth = 3 + seed % 6
        if depth < 6:  # the test above draws such
            continue
        source, made = composed(seed, depth, ("a100", "h100", "b200")[seed % 3])
        if found := complaint(source):
            wrong[seed] = (made, found)
    assert wrong == {}


SMALL = (
    ("gqa-d64-w128-sinks", "fewer-queries"),
    ("gqa-d64-packed", "uneven-causal"),
    ("mha-d192x128", "odd-causal"),
    ("mha_backward-d64", "edge-1-causal"),
    ("decode-d64-w128", "eight-queries"),
)
COMPOSED = [(*small, seed) for small in SMALL for seed in range(3)]


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "case", "seed"), soaked(COMPOSED, [each for each in COMPOSED if (SMALL.index(each[:2]) + each[2]) % 3])
)
def test_random_compositions_on_other_seeds_stay_correct(
    name: str, case: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    problem = get_problem(name)
    (small,) = (each for each in problem.correctness_cases if each.name == case)
    source, made = composed(seed, 5, ("h100", "b200", "a100")[seed], seed_source(name))
    assert fault_of(problem, small, module_of(source, tmp_path)) is None, made


def test_keys_are_not_put_in_parts_where_scores_are_computed_a_tile_ahead() -> None:
    """The tile before the loop is that of the first key of all: parts came out wrong."""
    assert BY_NAME["split-kv"].variants(apply(SEED, "skew"), H100) == ()


@pytest.mark.long
def test_moves_apply_once() -> None:
    once = (
        "skip", "split", "exp2", "late-scale", "lazy", "reciprocal", "reverse", "persistent", "descriptors", "store",
    )  # fmt: skip
    plans = ("polynomial", "device-descriptors", "specialise", "side", "even", "relative")
    for name in (*once, *plans, "group", "skew", "pingpong", "split-kv"):
        assert BY_NAME[name].variants(apply(SEED, name), H100) == ()


@pytest.mark.long
def test_ampere_gets_no_descriptors_and_no_specialised_warps() -> None:
    for name in ("descriptors", "device-descriptors", "store", "specialise"):
        assert BY_NAME[name].variants(SEED, get_target("a100")) == ()


def test_consumer_blackwell_gets_descriptors_but_no_specialised_warps() -> None:
    assert BY_NAME["descriptors"].variants(SEED, get_target("rtx5090"))
    assert BY_NAME["specialise"].variants(SEED, get_target("rtx5090")) == ()


@pytest.mark.parametrize(
    ("change", "names"),
    sample(
        [
            (
                ("scores = tl.where(visible", "scores = tl.where(visible & (offs_n[None, :] % 2 == 0)"),
                ("skip", "split"),
            ),
            (
                ("visible = offs_n[None, :] < kv_len", "visible = offs_n[None, :] < kv_len - 1"),
                ("skip", "even", "relative", "side", "specialise"),
            ),
            (("<= offs_m[:, None] + (kv_len - q_len)", "< offs_m[:, None] + (kv_len - q_len)"), ("skip",)),
            (("tl.dot(q, k) * scale", "tl.dot(q, k) * scale + 1.0"), ("exp2", "late-scale")),
            (('float("-inf"))\n', "-1000.0)\n"), ("exp2", "late-scale")),
            (("tl.exp(scores - new_max[:, None])", "tl.exp(scores)"), ("exp2", "late-scale")),
            (("tl.max(scores, 1))", "tl.max(scores, 1) + 0.0 * tl.sum(scores, 1))"), ("exp2", "late-scale")),
            (("row_max + tl.log(row_sum)", "row_max + tl.log(row_sum) * 1.0"), ("exp2",)),
            (("range(0, kv_len, BLOCK_N)", "range(0, kv_len, 2 * BLOCK_N)"), ("skip",)),
            (("*k.stride()", "*v.stride()"), ("descriptors", "device-descriptors", "specialise")),
            (
                ("(offs_n < kv_len)[None, :] & in_d[:, None]", "(offs_n > 0)[None, :] & in_d[:, None]"),
                ("descriptors", "device-descriptors", "specialise"),
            ),
            (("block_m, block_n = 64, 64", "block_m, block_n = sizes()"), ("tile", "shape")),
            (("num_warps=4", "num_warps=warps()"), ("warps", "shape")),
            (("attention_kernel[grid](", "kernel = attention_kernel\n    kernel[grid]("), tuple(BY_NAME)),
            (
                ("grid = (triton.cdiv(q_len, block_m), batch * heads)", "grid = lambda meta: (1, 2)"),
                ("swap", "persistent", "side"),
            ),
            (("    out = acc /", "    if q_len == 0:\n        return\n    out = acc /"), ("persistent",)),
            (("acc = acc * rescale[:, None]", "acc = acc * rescale[:, None] * 1.0"), ("lazy",)),
            (("row_max = new_max\n", "row_max = tl.maximum(new_max, row_max)\n"), ("lazy",)),
            (
                ("mask=(offs_m < q_len)[:, None] & in_d[None, :],\n    )", "mask=(offs_m > 0)[:, None],\n    )"),
                ("store",),
            ),
            (("offs_d = tl.arange(0, BLOCK_D)\n", "offs_d = tl.arange(0, BLOCK_D) + 0 * head\n"), ("group",)),
            (("offs_d = tl.arange(0, BLOCK_D)\n", "offs_d = tl.arange(0, BLOCK_D) + 0 * block_m\n"), ("group",)),
            (("        heads // kv_heads,\n", "        group(heads),\n"), ("group",)),
            (("tl.dot(q, k) * scale", "tl.dot(q, k + row_max.to(k.dtype)) * scale"), ("skew",)),
            (
                (
                    "k_base + offs_n[None, :].to(tl.int64) * stride_kn",
                    "k_base + (offs_n * 1)[None, :].to(tl.int64) * stride_kn",
                ),
                ("skew",),
            ),
            (
                ("    out = acc /", "    tl.static_assert(BLOCK_M + row_max.shape[0] > 0)\n    out = acc /"),
                ("pingpong",),
            ),
            (("tl.arange(0, BLOCK_M)\n", "tl.arange(0, BLOCK_M) * 1\n"), ("pingpong",)),
            (("batch * stride_kb", "(batch + 0) * stride_kb"), ("split-kv",)),
            (("range(0, kv_len, BLOCK_N)", "range(BLOCK_N, kv_len, BLOCK_N)"), ("split-kv",)),
            (("Lse + batch_head", "Q + batch_head"), ("split-kv",)),
        ],
        4,
    ),
)
def test_an_unknown_shape_is_left_alone(change: tuple[str, str], names: tuple[str, ...]) -> None:
    foreign = SEED.replace(*change)
    assert foreign != SEED
    ast.parse(foreign)
    assert [name for name in names if BY_NAME[name].variants(foreign, H100)] == []


@pytest.mark.parametrize("source", ["", "not python (", "x = 1\n", "import triton\n@triton.jit\ndef f(): pass\n"])
def test_what_is_no_attention_kernel_gives_nothing(source: str) -> None:
    assert [move.variants(source, H100) for move in MOVES] == [()] * len(MOVES)


def test_the_loop_without_masks_has_none() -> None:
    full, rest = (part.partition("for start_n")[0] for part in apply(SEED, "split").split("for start_n in ")[1:])
    assert "where" not in full
    assert "kv_len)" not in full
    assert "where" in rest


@pytest.mark.long
def test_exp2_leaves_one_multiply_add_a_score_and_no_range_checks(opcodes: Opcodes) -> None:
    plain, late = opcodes(SEED, H100), opcodes(apply(SEED, "exp2"), H100)
    early = opcodes(BY_NAME["exp2"].variants(SEED, H100)[1].source, H100)
    assert late["FSETP"] < plain["FSETP"] / 4
    assert late["FFMA"] > early["FFMA"]
    assert late["all"] < early["all"] < plain["all"]


@pytest.mark.long
def test_splitting_makes_two_loops_and_masks_only_one(opcodes: Opcodes) -> None:
    plain, split = opcodes(SEED, H100), opcodes(apply(SEED, "split"), H100)
    assert split["HGMMA"] == 2 * plain["HGMMA"]
    assert split["FSEL"] == plain["FSEL"]


@pytest.mark.long
def test_a_reciprocal_shortens_the_epilogue(opcodes: Opcodes) -> None:
    assert opcodes(apply(SEED, "reciprocal"), H100)["all"] < opcodes(SEED, H100)["all"]


@pytest.mark.long
def test_stages_make_loads_asynchronous(opcodes: Opcodes) -> None:
    assert opcodes(SEED, H100)["LDGSTS"] == 0 < opcodes(apply(SEED, "stages"), H100)["LDGSTS"]


@pytest.mark.long
def test_descriptors_leave_loads_to_the_tensor_memory_accelerator(opcodes: Opcodes) -> None:
    found = opcodes(apply(SEED, "stages", "descriptors"), H100)
    assert (found["UTMALDG"] > 0, found["LDGSTS"], found["LDG"]) == (True, 0, 0)


@pytest.mark.long
def test_a_skewed_loop_multiplies_once_more_ahead_of_it(opcodes: Opcodes) -> None:
    assert opcodes(apply(SEED, "skew"), H100)["HGMMA"] > opcodes(SEED, H100)["HGMMA"]


@pytest.mark.long
def test_two_tiles_share_the_loads_of_keys_and_values(opcodes: Opcodes) -> None:
    """The same tile twice: as many loads of keys and values, twice as many of queries, twice the products."""
    one, two = opcodes(SEED, H100), opcodes(apply(SEED, "pingpong"), H100)
    assert two["HGMMA"] == 2 * one["HGMMA"]
    assert one["LDG"] < two["LDG"] < 2 * one["LDG"]


@pytest.mark.long
def test_a_stored_output_takes_one_instruction(opcodes: Opcodes) -> None:
    found = opcodes(apply(SEED, "store"), H100)
    assert (found["UTMASTG"], found["STG"]) == (1, 1)  # the other stores lse


@pytest.mark.long
def test_a_polynomial_takes_half_of_the_exponentials_off_the_special_function_unit(opcodes: Opcodes) -> None:
    exp2 = apply(SEED, "exp2")
    assert opcodes(apply(exp2, "polynomial", target=B200), B200)["MUFU"] < 0.7 * opcodes(exp2, B200)["MUFU"]


@pytest.mark.long
@pytest.mark.parametrize("name", ["h100", "b200"])
def test_specialised_kernels_have_more_warps_than_asked(name: str, opcodes: Opcodes) -> None:
    target = get_target(name)
    found = opcodes(apply(SEED, "specialise", target=target), target)
    assert found["USETMAXREG"] > 0
    assert found["threads"] > 8 * 32


@pytest.mark.long
def test_of_several_kernels_that_multiply_each_is_tuned_alone_and_edited_no_further() -> None:
    source = seed_source("mha_backward")
    constants = {"shape", "stages", "tile", "share", "warps", "registers"}
    alone = constants | {"given-exp2", "split", "reverse", "swap", "persistent", "relative", "skew", "reorder"}
    assert {move.name for move in MOVES if move.each} == alone
    names = ("tile", "warps", "exp2", "shape", "given-exp2")
    found = {name: [variant.label for variant in BY_NAME[name].variants(source, H100)] for name in names}
    assert found["exp2"] == []
    assert "num_warps 4 -> 8 of keys_kernel" in found["warps"]
    changed = apply(source, "warps")
    assert (source.count("num_warps=8"), changed.count("num_warps=8")) == (0, 1)
    assert "BLOCK_N 64 -> 128 of queries_kernel" in found["tile"]
    assert "BLOCK_N 64 -> 128, num_warps 4 -> 8 of keys_kernel" in found["shape"]
    assert "BLOCK_M 64 -> 128, num_warps 4 -> 8 of queries_kernel" in found["shape"]
    assert [label.rpartition(" of ")[2] for label in found["given-exp2"]] == ["keys_kernel", "queries_kernel"]


@pytest.mark.long
def test_programs_of_a_backward_kernel_start_in_another_order() -> None:
    source = seed_source("mha_backward")
    found = {name: BY_NAME[name].variants(source, H100) for name in ("swap", "persistent", "reverse")}
    of = {name: [variant.label.rpartition(" of ")[2] for variant in those] for name, those in found.items()}
    assert of["swap"] == ["keys_kernel", "queries_kernel"]
    assert of["persistent"] == ["keys_kernel"] * 4 + ["queries_kernel"] * 4
    assert of["reverse"] == ["queries_kernel"], "the first keys are those that most queries see, and come first"
    reversed_again = found["reverse"][0].source
    assert reversed_again.count("(tl.num_programs(0) - 1 - tl.program_id(0))") == 2
    assert BY_NAME["reverse"].variants(reversed_again, H100) == ()


@pytest.mark.long
def test_of_a_kernel_with_two_launches_the_grid_stays() -> None:
    source = seed_source("mha_backward")
    launch = source[source.index("    queries_kernel[") :]
    for name in ("swap", "persistent"):
        labels = [variant.label for variant in BY_NAME[name].variants(f"{source}{launch}", H100)]
        assert labels
        assert all("keys_kernel" in label for label in labels)


@pytest.mark.parametrize("move", sample(["reverse", "swap", "persistent", "relative", "skew", "reorder"], 3))
def test_what_is_made_of_a_backward_kernel_stays_correct(
    move: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    (case,) = (case for case in MHA_BACKWARD.correctness_cases if case.name == "edge-1-causal")
    variants = BY_NAME[move].variants(seed_source("mha_backward"), H100)
    assert variants
    wrong = {v.label: fault_of(MHA_BACKWARD, case, module_of(v.source, tmp_path)) for v in variants}
    assert wrong == dict.fromkeys(wrong)


def test_a_sink_is_no_score_and_gets_base_two_where_it_is_loaded(complaint: Callable[..., str]) -> None:
    source = seed_source("mha-sinks")
    changed = apply(source, "exp2")
    assert "tl.load(Sinks + head) * 1.4426950408889634" in changed
    first = source.replace("row_max = tl.full([BLOCK_M], -1.0e30", "row_max = tl.load(Sinks) + tl.full([BLOCK_M], 0.0")
    assert first != source
    assert BY_NAME["exp2"].variants(first, H100) == ()


def test_decoding_aims_for_as_many_programs_as_suit_the_card() -> None:
    source = seed_source("decode")
    labels = {target.name: [v.label for v in BY_NAME["programs"].variants(source, target)] for target in (H100, B200)}
    assert labels["h100"] == ["PROGRAMS 264 -> 528", "PROGRAMS 264 -> 132", "PROGRAMS 264 -> 1056"]
    assert labels["b200"][0] == "PROGRAMS 264 -> 296"
    changed = apply(source, "programs")
    assert changed == source.replace("PROGRAMS = 264", "PROGRAMS = 528")
    for used in ("    most, block_n = block_table.shape[1], PROGRAMS", "    most, block_n = PROGRAMS // 4, 64"):
        other = source.replace("    most, block_n = block_table.shape[1], 64", used)
        assert other != source
        assert BY_NAME["programs"].variants(other, H100) == ()


def test_shares_of_lists_are_tuned_where_another_kernel_multiplies_too() -> None:
    labels = [variant.label for variant in BY_NAME["share"].variants(seed_source("fsa_backward", "query_outer"), H100)]
    assert "SHARE 1024 -> 512 of keys_kernel" in labels


@pytest.mark.corpus
@pytest.mark.parametrize("further", soaked([False, True], [True]), ids=["first", "further"])
@pytest.mark.parametrize(
    ("problem", "cases"),
    [
        (MHA_BACKWARD, ("odd-causal", "odd-full")),
        (FSA_BACKWARD, ("uneven", "group-4")),
        (DECODE, ("eight-queries", "group-4-of-2")),
        (get_problem("decode-d192x128-w128-global-sinks"), ("eight-queries", "group-8")),
        (get_problem("gqa-d192x128-w128-global-sinks"), ("edge-1", "fewer-queries")),
        (get_problem("gqa-d64-w128-global-sinks-packed"), ("uneven-causal", "more-keys-causal")),
        (get_problem("gqa_backward-d64-w128-global-sinks-packed"), ("one-causal", "empty-causal")),
    ],
    ids=lambda part: getattr(part, "name", ""),
)
def test_moves_keep_other_seeds_correct(
    problem: Problem, cases: tuple[str, ...], further: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    variants = [move.variants(seed_source(problem.name), H100) for move in MOVES]
    assert sum(map(len, variants)) >= 20
    for variant in chain.from_iterable(each[1:] if further else each[:1] for each in variants):
        module = module_of(variant.source, tmp_path)
        faults = [fault_of(problem, case, module) for case in problem.correctness_cases if case.name in cases]
        assert faults == [None, None], variant.label
