"""Moves between the orders of selected attention: from each seed to the best kernels known, and correct on the way."""

from collections.abc import Callable
from functools import cache

import pytest

from avo.agents.moves import MOVES
from avo.evaluator.targets import get_target
from avo.seeds import seed_source
from bench.claims import made
from bench.known import TRITON

H100 = get_target("h100")
BY_NAME = {move.name: move for move in MOVES}
QUERY_OUTER, KV_OUTER = seed_source("fsa", "query_outer"), seed_source("fsa", "kv_outer")


@cache
def far() -> str:
    """Far blocks by lists, which take a second to make."""
    (made,) = BY_NAME["far"].variants(KV_OUTER, H100)
    return made.source


def moved(source: str, name: str, label: str) -> str:
    return next(v.source for v in BY_NAME[name].variants(source, H100) if v.label.endswith(label))


@pytest.mark.long
@pytest.mark.parametrize("target", ["h100", "b200"])
def test_moves_lead_from_each_seed_to_the_best_kernel_known(target: str) -> None:
    steps = TRITON["fsa", target]
    assert made(steps, target) == made(("fsa/query_outer", *steps[1:]), target)


@pytest.mark.long
def test_far_blocks_by_lists_are_correct(complaint: Callable[..., str]) -> None:
    lots = far().replace("PARTIAL_BYTES = 2**28", "PARTIAL_BYTES = 2**17")
    assert lots != far()
    assert [complaint(made, "fsa") for made in (far(), moved(lots, "early", "EARLY 0 -> 2"))] == ["", ""]


def test_what_has_far_blocks_by_lists_is_left_alone() -> None:
    assert BY_NAME["far"].variants(far(), H100) == ()


def test_the_order_of_queries_becomes_that_of_blocks() -> None:
    (gathered,) = BY_NAME["kv-outer"].variants(QUERY_OUTER, H100)
    assert gathered.source == KV_OUTER
    assert BY_NAME["kv-outer"].variants(KV_OUTER, H100) == ()


def test_an_entry_function_keeps_its_name() -> None:
    (first,) = BY_NAME["far"].variants(KV_OUTER.replace("def selected_attention(", "def attend("), H100)
    assert "def attend(q, k, v, block_indices, out, lse, *" in first.source


def test_lots_grow_and_shrink_by_powers_of_two() -> None:
    labels = [variant.label for variant in BY_NAME["lots"].variants(KV_OUTER, H100)]
    assert labels == [f"PARTIAL_BYTES 2**28 -> 2**{power}" for power in (29, 27, 30, 26)]
    assert BY_NAME["lots"].variants(KV_OUTER.replace("2**28", "3**28"), H100) == ()


@pytest.mark.parametrize("name", ["kv-outer", "far", "early", "rows", "lots"])
def test_dense_attention_is_left_alone(name: str) -> None:
    assert BY_NAME[name].variants(seed_source("mha"), H100) == ()
