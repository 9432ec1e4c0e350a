"""Where the examination before acceptance looks: spoiled regions of any structure are met, and changes are located."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from avo.evaluator.catalogue import get_problem
from avo.evaluator.judging import places
from avo.evaluator.problem import CROWDED, MOST_HEADS, Case
from avo.evaluator.problems import PROBLEMS
from avo.evaluator.problems.gqa import GQA
from avo.evaluator.problems.mha import MHA
from tests.corpus import sample

REGIONS: dict[str, tuple[float, Callable[[Case], bool]]] = {
    "lengths from 1,100 to 4,900": (0.99, lambda case: 1100 <= case.kv_len <= 4900),
    "lengths above 33,000": (0.99, lambda case: case.kv_len > 33_000),
    "strides, from 2,048 keys on": (0.99, lambda case: case.layout != "contiguous" and case.kv_len >= 2048),
    "a scale of its own, from 2,048 keys on": (0.99, lambda case: case.scale != 0.0 and case.kv_len >= 2048),
    "a causal mask that is shifted by more than 512": (
        0.99,
        lambda case: case.causal and case.kv_len - case.q_len > 512,
    ),
    "few queries, on 1,024 keys or more": (0.99, lambda case: case.q_len <= 128 and case.kv_len >= 1024),
    "one sequence, from 2,048 keys on": (0.99, lambda case: case.batch == 1 and case.kv_len >= 2048),
    "several sequences, from 2,048 keys on": (0.99, lambda case: case.batch > 1 and case.kv_len >= 2048),
    "many heads, from 1,100 to 5,000 keys": (
        0.88,
        lambda case: case.batch * case.heads > 16 and 1100 <= case.kv_len <= 5000,
    ),
    "as many queries as keys, from 2,048 keys on": (0.65, lambda case: case.q_len == case.kv_len >= 2048),
    "lengths that fill tiles of 128, from 1,100 keys on": (
        0.99,
        lambda case: case.kv_len % 128 == 0 and case.kv_len >= 1100,
    ),
    "lengths that fill an odd number of tiles of 128, from 1,100 keys on": (
        0.5,
        lambda case: case.kv_len % 256 == 128 and case.kv_len >= 1100,
    ),
    "lengths that fill no tile of 16, from 2,048 keys on": (
        0.99,
        lambda case: case.kv_len % 16 > 0 and case.kv_len >= 2048,
    ),
    "one head, from 2,048 keys on": (0.94, lambda case: case.heads == 1 and case.kv_len >= 2048),
}
"""The least share of the examinations that must meet a region, and which cases lie in it."""


@pytest.mark.parametrize("region", sample(REGIONS, 4))
def test_a_region_is_met_by_nearly_every_examination(region: str) -> None:
    least, spoiled = REGIONS[region]
    met = sum(any(map(spoiled, places.drawn(MHA, random.Random(i)))) for i in range(300))
    assert met >= least * 300


@pytest.mark.parametrize("name", [*PROBLEMS, "gqa-packed", "gqa_backward-packed", "fsa-packed", "fsa_backward-packed"])
def test_nearly_every_examination_meets_rows_of_a_larger_tensor_that_need_more_than_31_bits(name: str) -> None:
    """Strides fit in 32 bits, so that a row times a stride is made in 32 bits where nobody sees to it."""
    problem, met = get_problem(name), {"fused": 0, "interleaved": 0}
    axis = 0 if name == "decode" else 2  # pages are what is many there
    for i in range(100):
        cases = places.drawn(problem, random.Random(i))
        far = {
            case.layout
            for case in cases
            for shape, strides in ((s.shape, s.strides) for s in problem.call(case).tensors if s.name in "kv")
            if strides[axis] < 2**31 <= (shape[axis] - 1) * strides[axis]
        }
        for layout in met:
            met[layout] += layout in far
    assert met["fused"] >= 75, met
    assert name == "decode" or met["interleaved"] >= 80, met


@pytest.mark.parametrize("name", [*PROBLEMS, "mha-d96", "gqa-packed"])
def test_every_examination_meets_nearly_as_many_heads_as_a_grid_takes(name: str) -> None:
    """Fewer where memory or time allow no more: of selected attention, and with odd head dims."""
    problem = get_problem(name)
    least = {"fsa": 7_000, "fsa_backward": 7_000, "mha-d96": 1_800, "gqa-packed": 1}.get(name, 59_000)
    crowds = []
    for i in range(50):
        drawn = places.drawn(problem, random.Random(i))
        assert max(case.batch * case.heads for case in drawn) <= MOST_HEADS
        crowds += [case for case in drawn if case.kv_len <= CROWDED and case.batch * case.heads >= least]
    assert len(crowds) == 50
    assert name == "gqa-packed" or any(case.batch == 1 for case in crowds)
    assert name == "gqa-packed" or any(case.batch > 1 for case in crowds)


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_lengths_are_from_everywhere_and_no_two_examinations_look_at_the_same(problem) -> None:
    lengths = [{case.kv_len for case in places.drawn(problem, random.Random(i))} for i in range(50)]
    longest = max(case.kv_len for suite in problem.suites.values() for case in suite)
    assert all(min(some) < 256 and max(some) > longest for some in lengths)
    assert len(set().union(*lengths)) > 300
    names = [case.name for case in places.drawn(problem, random.Random(1))]
    assert len(set(names)) == places.LENGTHS + 1


def host(branches: Callable[[Case], object], asked: list[int]) -> places.Kinds:
    """A candidate whose plans are of the kinds that ``branches`` tells apart."""

    def kinds(cases: Sequence[Case]) -> list[str]:
        asked.append(len(cases))
        return [str(branches(case)) for case in cases]

    return kinds


def test_both_sides_of_a_length_where_host_code_branches_are_looked_at() -> None:
    asked: list[int] = []
    cases = places.changes(MHA, host(lambda case: case.kv_len < 4900, asked), random.Random(3))
    assert {case.kv_len < 4900 for case in cases} == {True, False}
    assert all(abs(case.kv_len - 4900) < 48 for case in cases)
    assert len(asked) <= 6
    assert max(asked) <= 40


def test_a_problem_may_have_a_single_benchmark_case() -> None:
    single = replace(MHA, suites={"quick": MHA.suites["quick"][:1]})
    cases = places.changes(single, host(lambda case: case.kv_len < 4900, []), random.Random(3))
    assert {case.kv_len < 4900 for case in cases} == {True, False}


def test_a_problem_may_have_short_benchmark_cases_only() -> None:
    short = replace(MHA, suites={"short": (replace(MHA.suites["quick"][0], q_len=16, kv_len=16),)})
    *cases, _ = places.drawn(short, random.Random(0))
    assert {case.kv_len for case in cases} <= set(range(32, places.SHORTEST + 1))
    assert len(cases) == places.LENGTHS


def test_a_branch_on_the_number_of_queries_is_located_along_a_share_of_the_keys() -> None:
    found = [places.changes(GQA, host(lambda case: case.q_len <= 1000, []), random.Random(i)) for i in range(10)]
    assert any(900 < case.q_len <= 1000 for cases in found for case in cases)
    assert any(1000 < case.q_len < 1100 for cases in found for case in cases)


def test_host_code_that_never_branches_is_asked_once() -> None:
    asked: list[int] = []
    assert places.changes(MHA, host(lambda case: 0, asked), random.Random(3)) == []
    assert len(asked) == 1


def test_host_code_that_branches_everywhere_or_by_chance_is_asked_a_bounded_number_of_times() -> None:
    chance = random.Random(5)
    for branches in (lambda case: case.kv_len, lambda case: chance.random()):
        asked: list[int] = []
        cases = places.changes(MHA, host(branches, asked), random.Random(3))
        assert len(cases) <= 6
        assert sum(asked) <= 200


@pytest.mark.parametrize(
    "branches",
    [
        lambda case: case.batch * case.heads == 1 and case.layout == "padded",
        lambda case: case.layout == "mixed" and case.kv_len in range(2048, 4096),
    ],
    ids=["one head in padded rows", "mixed strides from a length to its double"],
)
def test_what_host_code_launches_for_few_structures_is_looked_at(branches: Callable[[Case], object]) -> None:
    met = 0
    for i in range(60):
        common = places.drawn(MHA, random.Random(i))
        asked: list[int] = []
        cases = places.rare(MHA, host(branches, asked), common, random.Random(i))
        assert len(asked) == 1
        met += any(map(branches, [*common, *cases]))
    assert met >= 33  # without this look it would be 19


def test_no_case_is_rare_where_host_code_never_branches_and_few_are_taken_where_it_branches_everywhere() -> None:
    common = places.drawn(MHA, random.Random(1))
    assert places.rare(MHA, host(lambda case: 0, []), common, random.Random(1)) == []
    assert len(places.rare(MHA, host(lambda case: case.kv_len, []), common, random.Random(1))) == 3


def test_what_a_candidate_is_called_for_tells_nothing_that_its_shape_does_not() -> None:
    """The name is told to the candidate's process with the shapes."""
    case = places.drawn(MHA, random.Random(3))[4]
    assert case.name == places._named(replace(case, name="")).name
