"""The move that splits off tiles without masks: of causal kernels, windows, packed sequences and backward passes."""

from pathlib import Path

import pytest

from avo.agents.moves import MOVES
from avo.evaluator.catalogue import get_problem
from avo.evaluator.targets import get_target
from avo.seeds import seed_source
from bench.orders import module_of
from tests.corpus import sample
from tests.evaluator.problems.offline_kernel import fault_of

H100 = get_target("h100")
(SPLIT,) = (move for move in MOVES if move.name == "split")
WINDOW = seed_source("gqa-w128")


def loops(source: str, index: str = "start_n") -> list[str]:
    """Return the loops of a source that are over ``index``, each with what comes up to the next."""
    return source.split(f"for {index} in range")[1:]


def split(source: str) -> str:
    (variant,) = SPLIT.variants(source, H100)
    return variant.source


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("gqa-d64-packed", "uneven-causal"),
        pytest.param("gqa-d64-w128-sinks", "fewer-queries", marks=pytest.mark.corpus),
        pytest.param("mha_backward-d64", "edge-1-causal", marks=pytest.mark.corpus),
        pytest.param("gqa_backward-d64-w128-packed", "more-keys-causal", marks=pytest.mark.corpus),
        pytest.param("decode-d64-w128", "eight-queries", marks=pytest.mark.corpus),
    ],
)
def test_what_is_split_off_needs_no_masks(
    name: str, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    problem = get_problem(name)
    (small,) = (each for each in problem.correctness_cases if each.name == case)
    variants = SPLIT.variants(seed_source(name), H100)
    assert len(variants) == (2 if "backward" in name else 1)
    for variant in variants:
        assert fault_of(problem, small, module_of(variant.source, tmp_path)) is None, variant.label


@pytest.mark.parametrize("move", sample(["late-scale", "exp2", "skew"], 3))
def test_moves_behind_it_keep_a_kernel_with_a_window_right(
    move: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    problem = get_problem("gqa-d64-w128-sinks")
    (small,) = (each for each in problem.correctness_cases if each.name == "fewer-queries")
    (behind,) = (each for each in MOVES if each.name == move)
    (variant, *_) = behind.variants(split(WINDOW), H100)
    assert fault_of(problem, small, module_of(variant.source, tmp_path)) is None, variant.label


def test_full_tiles_of_a_window_lie_between_those_at_its_ends() -> None:
    before, full, behind = loops(split(WINDOW))
    assert before.startswith("(start, first_full_n, BLOCK_N)")
    assert full.startswith("(first_full_n, full_n, BLOCK_N)")
    assert behind.startswith("(full_n, stop, BLOCK_N)")
    assert "tl.where" in before
    assert "tl.where" in behind
    assert "tl.where" not in full


def test_a_bound_counts_where_its_mask_is_switched_on_alone() -> None:
    lines = [line.strip() for line in split(WINDOW).splitlines()]

    def above(line: str) -> str:
        return lines[lines.index(line) - 1]

    assert above("full_n = tl.minimum(full_n, start_m + shift + 1)") == "if CAUSAL:"
    assert above("first_full_n = tl.maximum(first_full_n, start_m + BLOCK_M + shift - window)") == "if WINDOWED:"
    assert above("for start_n in range(start, first_full_n, BLOCK_N):") == "if WINDOWED:"


def test_of_keys_that_end_within_a_tile_no_tile_of_queries_is_full() -> None:
    of_keys, _ = SPLIT.variants(seed_source("mha_backward"), H100)
    assert of_keys.label.endswith(" of keys_kernel")
    condition = "tl.program_id(0) * BLOCK_N + BLOCK_N - kv_len <= 0"
    assert f"full_m = tl.where({condition}, full_m, first)" in of_keys.source
    masked, full, rest = loops(of_keys.source, "start_m")
    assert ("tl.where" in masked, "tl.where" in full, "tl.where" in rest) == (True, False, True)


@pytest.mark.parametrize(
    ("old", "new"),
    sample(
        [
            # What hides every other key, or what is no plain sum of numbers, cannot be bounded.
            ("visible = offs_n[None, :] < end_k", "visible = (offs_n[None, :] < end_k) & (offs_n[None, :] % 2 == 0)"),
            ("offs_n[None, :] < end_k", "offs_n[None, :] * 2 < end_k"),
            ("offs_n[None, :] < end_k", "offs_n[None, :] < tl.load(StartsK + offs_n)[None, :]"),
            ("offs_n[None, :] < end_k", "offs_n[None, :] < tl.load(StartsK)"),
            # A true comparison is folded as part of conjunctions and selects only.
            ("visible = offs_n[None, :] < end_k", "visible = ~(offs_n[None, :] >= end_k)"),
            # What a loop changes is no bound of it.
            ("        row_max = new_max\n", "        row_max = new_max\n        shift = shift + 0\n"),
            # Rows that were counted from something else than what the name holds now.
            ("    shift = end_k - end_q\n", "    shift = end_k - end_q\n    start_m = start_m + 0\n"),
        ],
        3,
    ),
)
def test_a_loop_with_masks_of_another_kind_stays_whole(old: str, new: str) -> None:
    changed = WINDOW.replace(old, new, 1)
    assert changed != WINDOW
    assert SPLIT.variants(changed, H100) == ()
