"""Buffers lie where nobody can foresee, and at benchmark shapes where a GPU's allocator might put them."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from avo.evaluator.catalogue import get_problem
from avo.evaluator.judging.buffers import InputCache, apart, as_allocated

SIZES = (2**27, 2**27, 2**19, 300, 2**27)
DRAWS = [(apart(SIZES, random.Random(i)), as_allocated(SIZES, random.Random(i))) for i in range(40)]


def gaps(addresses: list[int]) -> list[int]:
    """Bytes between each buffer and the next one."""
    placed = sorted(zip(addresses, SIZES, strict=True))
    return [start - (first + size) for (first, size), (start, _) in pairwise(placed)]


def test_addresses_differ_from_draw_to_draw() -> None:
    for which in (0, 1):
        assert len({draw[which][0] for draw in DRAWS}) > 30


def test_addresses_are_aligned_as_an_allocator_aligns_them() -> None:
    for spread, packed in DRAWS:
        assert all(address % 512 == 0 for address in (*spread, *packed))
        assert all(address % 2**21 == 0 for address, size in zip(packed, SIZES, strict=True) if size >= 2**20)


def test_buffers_of_small_cases_are_terabytes_apart_in_any_order() -> None:
    assert all(gap > 2**43 for spread, _ in DRAWS for gap in gaps(spread))
    assert len({tuple(sorted(range(len(SIZES)), key=spread.__getitem__)) for spread, _ in DRAWS}) > 10


def test_buffers_at_benchmark_shapes_lie_as_on_a_gpu_one_behind_the_other_or_not() -> None:
    assert all(0 <= gap < 2**28 for _, packed in DRAWS for gap in gaps(packed))
    assert any(packed[1] - packed[0] == SIZES[0] for _, packed in DRAWS)
    assert any(packed[1] < packed[0] for _, packed in DRAWS)
    assert {packed[0] >> 44 for _, packed in DRAWS} == {0, 7}


@pytest.mark.parametrize("name", ["mha", "fsa"])
def test_cases_share_inputs_unless_their_integers_follow_from_more_than_their_size(name: str) -> None:
    problem = get_problem(name)
    case = problem.correctness_cases[0]
    cache = InputCache(1)
    assert cache.get(problem, replace(case, name="another")) is cache.get(problem, case)
    louder = replace(case, scale=0.5)
    assert (cache.get(problem, louder) is cache.get(problem, case)) == (name == "mha")


def test_cases_of_another_memory_order_have_inputs_of_their_own() -> None:
    """Storages of the same size have their rows elsewhere, with NaN between them."""
    problem, cache = get_problem("mha"), InputCache(1)
    padded, contiguous = (
        replace(problem.suites["quick"][0], batch=1, heads=1, kv_heads=1, layout=layout, q_len=length, kv_len=length)
        for layout, length in (("padded", 128), ("contiguous", 152))
    )
    assert cache.get(problem, padded)["q"].isnan().any()
    assert cache.get(problem, contiguous)["q"].numel() == cache.get(problem, padded)["q"].numel()
    assert not cache.get(problem, contiguous)["q"].isnan().any()
