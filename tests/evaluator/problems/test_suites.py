"""What holds for the suites of every problem."""

import math
import random
from dataclasses import replace

import pytest
import torch

from avo.evaluator.catalogue import get_problem, get_suite
from avo.evaluator.problem import LAYOUTS, Case, rows_of
from avo.evaluator.problems import PROBLEMS
from tests.corpus import sample

SETTINGS = (
    "mha-d192x128-fp16", "gqa-h64x8-d64-8192x1", "mha_backward-d96", "decode-d64", "gqa-d64-w128-sinks", "gqa-packed",
    "gqa_backward-d64-w128-global-sinks-packed", "mha_backward-d192x128-sinks", "decode-d192x128-w128-global-sinks",
    "fsa-d64-fp16", "fsa-h64x4-d192x128-8192x1", "fsa_backward-d192x128-packed",
)  # fmt: skip


def shapes(problem: str, *suites: str) -> set[Case]:
    cases = [case for suite in suites for case in get_suite(get_problem(problem), suite)]
    return {replace(case, name="") for case in cases}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_no_shape_that_is_held_out_is_in_another_suite(problem: str) -> None:
    assert len(shapes(problem, "held_out")) == 3
    assert shapes(problem, "held_out").isdisjoint(shapes(problem, "quick", "paper"))


@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_quick_suite_is_a_small_part_of_the_papers(problem: str) -> None:
    assert len(shapes(problem, "quick")) == 2
    assert shapes(problem, "quick") < shapes(problem, "paper")


@pytest.mark.parametrize("problem", PROBLEMS)
def test_names_of_cases_are_their_own(problem: str) -> None:
    found = get_problem(problem)
    for cases in (found.correctness_cases, *found.suites.values()):
        assert len({case.name for case in cases}) == len(cases)


@pytest.mark.parametrize("problem", sample([*PROBLEMS, *SETTINGS], 4))
def test_cases_exist_at_other_lengths(problem: str) -> None:
    """The inputs have the shapes that ``call`` names, and ``reference`` takes them."""
    found, chance = get_problem(problem), random.Random(1)
    for case in found.correctness_cases:
        drawn = found.at_other_lengths(case, chance)
        assert replace(drawn, batch=case.batch, q_len=case.q_len, kv_len=case.kv_len) == case
        assert drawn.q_len > case.q_len or problem.startswith("decode")
        assert drawn.kv_len > case.kv_len
        assert drawn.kv_len - drawn.q_len >= case.kv_len - case.q_len >= 0
        assert 1 <= drawn.batch <= case.batch
        inputs = found.make_inputs(drawn, 3)
        sizes = {spec.name: spec.held.size for spec in found.call(drawn).tensors}
        assert {name: storage.numel() for name, storage in inputs.items()}.items() <= sizes.items()
        specs = {spec.name: spec for spec in found.call(drawn).tensors}
        for of, outputs in rows_of(found.outputs).items():
            batch, heads, length = specs[outputs[0].name].shape[:3]
            expected = found.reference(drawn, inputs, of, batch - 1, heads - 1, torch.arange(length))
            assert expected.keys() == {output.name for output in outputs}
            assert all(bool(each.value.isfinite().all()) for each in expected.values())


@pytest.mark.parametrize("problem", [*PROBLEMS, *SETTINGS])
def test_cases_exist_at_any_length_with_a_structure_of_their_own(problem: str) -> None:
    found = get_problem(problem)
    case = found.suites["quick"][-1]
    drawn = [found.at_length(case, 1000, random.Random(i)) for i in range(60)]
    assert all(found.at_length(case, 1000, random.Random(i)) == each for i, each in enumerate(drawn))
    for i, each in enumerate(drawn):
        longer = found.at_length(case, 3000, random.Random(i))
        assert (longer.layout, longer.scale, longer.causal) == (each.layout, each.scale, each.causal)
        assert longer.batch * longer.heads <= each.batch * each.heads
        assert (each.kv_len, longer.kv_len) == (1000, 3000)
        assert 1 <= each.q_len <= 1000
        assert each.heads % each.kv_heads == 0
    assert {each.layout for each in drawn} == set(LAYOUTS)
    assert any(each.scale == 0.0 for each in drawn)
    assert any(each.scale != 0.0 for each in drawn)
    if not problem.startswith(("fsa", "decode")):  # which have as many queries as keys, or few
        assert sum(each.q_len <= 128 for each in drawn) >= 15
        assert sum(128 < each.q_len < 900 for each in drawn) >= 5
    inputs = found.make_inputs(drawn[0], 3)
    assert {s.name: s.size for s in found.call(drawn[0]).tensors if s.name in inputs} == {
        name: storage.numel() for name, storage in inputs.items()
    }


@pytest.mark.parametrize("problem", ["mha", "gqa"])
def test_there_is_nan_between_rows_at_any_length(problem: str) -> None:
    found = get_problem(problem)
    case = replace(found.suites["quick"][0], batch=1, q_len=100, kv_len=100, layout="padded")
    inputs = found.make_inputs(case, 3)
    for spec in found.call(case).tensors[:3]:
        storage = inputs[spec.name]
        assert not storage.as_strided(spec.shape, spec.held.strides).isnan().any()
        assert storage.isnan().sum() == spec.size - math.prod(spec.shape)


@pytest.mark.parametrize("name", PROBLEMS)
def test_offsets_along_each_axis_of_each_tensor_need_more_than_32_bits_in_a_small_case(name: str) -> None:
    """Strides fit in 32 bits, so that products of them are made in 32 bits where nobody sees to it."""
    problem = get_problem(name)
    specs = [spec for case in problem.correctness_cases if case.far for spec in problem.call(case).tensors]
    found = {
        (spec.name, axis)
        for spec in specs
        for axis, (extent, stride) in enumerate(zip(spec.shape, spec.strides, strict=True))
        if stride < 2**31 and (extent - 1) * stride >= 2**32
    }
    assert found == {(spec.name, axis) for spec in specs if spec.sparse for axis in range(3)}
    contiguous = {spec.name for spec in specs} - {name for name, _ in found}
    assert contiguous <= {"lse", "block_indices", "block_table", "lengths"}
