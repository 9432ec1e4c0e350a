"""Moves on masks: what one takes apart another puts together, and masks that are counted otherwise stay readable."""

from collections.abc import Callable

import pytest

from avo.agents.moves import MOVES
from avo.evaluator.targets import get_target
from avo.seeds import seed_source

SEED = seed_source("mha")
H100 = get_target("h100")
BY_NAME = {move.name: move for move in MOVES}


def apply(source: str, *names: str) -> str:
    for name in names:
        source = BY_NAME[name].variants(source, H100)[0].source
    return source


def test_merging_undoes_a_split() -> None:
    assert apply(SEED, "split", "merge") == SEED


def test_loops_that_differ_in_more_than_masks_are_not_merged() -> None:
    split = apply(SEED, "split")
    other = split.replace("tl.dot(q, k) * scale", "tl.dot(q, k) * (2 * scale)", 1)
    assert other != split
    assert BY_NAME["merge"].variants(other, H100) == ()
    assert BY_NAME["merge"].variants(apply(split, "skew"), H100) == ()


@pytest.mark.long
def test_masks_counted_from_the_block_are_still_known(complaint: Callable[..., str]) -> None:
    source = apply(SEED, "relative", "even", "skip", "split", "reverse", "shape", "side")
    assert source.count("- start_n") == 2
    assert complaint(source) == ""


def test_a_comparison_with_one_side_counted_from_the_block_is_unknown() -> None:
    """It hides other keys."""
    source = SEED.replace("<= offs_m[:, None]", "<= (offs_m - start_n)[:, None]")
    assert source != SEED
    assert [name for name in ("skip", "split", "even", "relative") if BY_NAME[name].variants(source, H100)] == []


def test_lengths_are_compared_where_something_may_be_beyond_them() -> None:
    assert "RAGGED=not causal and kv_len % block_n != 0" in apply(SEED, "even")
    shifted = SEED.replace("+ (kv_len - q_len)", "+ (kv_len - heads)")
    assert shifted != SEED
    assert BY_NAME["even"].variants(shifted, H100) == ()


def test_a_split_drops_the_choice_of_a_mask_by_length() -> None:
    full, rest = apply(SEED, "even", "split").split("for start_n in ")[1:]
    assert "RAGGED" not in full
    assert "RAGGED" in rest
