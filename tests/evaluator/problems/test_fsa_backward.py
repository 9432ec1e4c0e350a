"""The gradients of ``fsa_backward`` are those of attention to the blocks that each query selects."""

import math
from dataclasses import replace
from random import Random

import pytest
import torch

from avo.evaluator.catalogue import get_problem, get_suite
from avo.evaluator.problem import Case
from avo.evaluator.problems.fsa_backward import FSA_BACKWARD, SelectedBackwardCase, seeing
from avo.evaluator.problems.selection import selected_pairs
from tests.evaluator.problems.test_backward import gradients, spec_of
from tests.evaluator.problems.test_fsa import selected

Tensors = dict[str, torch.Tensor]
CASES = {case.name: case for case in FSA_BACKWARD.correctness_cases}


def contiguous(name: str) -> SelectedBackwardCase:
    return replace(CASES[name], layout="contiguous")


def viewed(case: Case) -> Tensors:
    call = FSA_BACKWARD.call(case)
    made = FSA_BACKWARD.make_inputs(case, 1)
    return {name: storage.view(spec_of(call.tensors, name).shape) for name, storage in made.items()}


def forward(case: SelectedBackwardCase, view: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
    """out and lse of the keys that each query selects, by the definition."""
    group = case.heads // case.kv_heads
    seen = selected(view["block_indices"], case.block_size).repeat_interleave(group, 1)
    scores = view["q"] @ view["k"].repeat_interleave(group, 1).mT * (case.scale or case.head_dim**-0.5)
    scores = scores.masked_fill(~seen, -math.inf)
    return scores.softmax(-1) @ view["v"].repeat_interleave(group, 1), scores.logsumexp(-1)


@pytest.mark.parametrize(
    "name", ["group-1", "group-2", "uneven", "nearly-dense", "fewer-blocks-than-slots", "one-token"]
)
def test_the_gradients_are_those_that_autograd_finds(name: str) -> None:
    case = contiguous(name)
    view = {name: each.double() if each.is_floating_point() else each for name, each in viewed(case).items()}
    leaves = [view[name].requires_grad_() for name in "qkv"]
    out, lse = forward(case, view)
    expected = torch.autograd.grad(out, leaves, view["dout"])
    detached = {name: each.detach() for name, each in {**view, "out": out, "lse": lse}.items()}
    found = gradients(FSA_BACKWARD, case, detached)
    for name, right in zip(("dq", "dk", "dv"), expected, strict=True):
        torch.testing.assert_close(found[name], right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["less-than-a-block", "uneven"])
def test_statistics_are_those_of_the_selected_keys_and_maybe_of_others(name: str) -> None:
    case = contiguous(name)
    view = viewed(case)
    doubles = {name: view[name].double() for name in "qkv"}
    more = view["lse"] - forward(case, {**doubles, "block_indices": view["block_indices"]})[1]
    assert float(more.min()) > -1e-5
    assert (float(more.max()) > 0.9) == (name == "uneven")


def test_at_benchmark_shapes_selected_keys_have_about_the_attention_of_a_query_that_they_may_have() -> None:
    case = replace(get_suite(FSA_BACKWARD, "quick")[0], q_len=2000, kv_len=2000, heads=2, kv_heads=2)
    view = viewed(case)
    late = slice(1100, None)  # they select as many blocks as they may
    seen = selected(view["block_indices"], case.block_size)[:, :, late]
    scores = view["q"][:, :, late].double() @ view["k"].double().mT * 128**-0.5
    share = (scores - view["lse"][:, :, late, None]).masked_fill(~seen, -math.inf).exp().sum(-1)
    assert 0.3 < float(share.min()) < 0.45
    assert 0.85 < float(share.max()) < 1.3


def test_queries_that_see_a_key_are_those_that_select_its_block_and_do_not_precede_it() -> None:
    case = CASES["group-1"]
    chosen = viewed(contiguous("group-1"))["block_indices"][1, 2]
    keys = torch.tensor([0, 31, 32, 200, 320])
    queries, visible = seeing(case, chosen, keys)
    everything = torch.zeros(len(keys), case.q_len, dtype=torch.bool)
    everything[:, queries] = visible
    assert torch.equal(everything, selected(chosen, case.block_size).T[keys])
    assert bool(visible.any(0).all())


def test_what_is_planted_changes_its_rows() -> None:
    case = CASES["skewed"]
    inputs = FSA_BACKWARD.make_inputs(case, 1)
    before = {name: storage.clone() for name, storage in inputs.items()}
    planted = FSA_BACKWARD.plant(case, inputs, Random(3))
    for of, (batch, head, row) in planted.items():
        rows = torch.tensor([row])
        old, new = (FSA_BACKWARD.reference(case, each, of, batch, head, rows) for each in (before, inputs))
        for name in old:
            assert float((old[name].value - new[name].value).norm()) > 0.5 * float(old[name].value.norm())


def test_five_products_are_counted_and_every_tensor_once() -> None:
    case = get_suite(FSA_BACKWARD, "quick")[0]
    assert FSA_BACKWARD.flops(case) == 10 * 128 * case.heads * selected_pairs(case)
    assert 2 * FSA_BACKWARD.flops(case) == 5 * get_problem("fsa").flops(case)
    tokens = 8192
    assert FSA_BACKWARD.least_bytes(case) == 2 * 128 * tokens * (4 * 8 + 4 * 4) + 4 * tokens * (4 * 16 + 8)


def test_the_published_time_is_shown_as_the_throughput_of_a_case_that_exists() -> None:
    case = get_suite(FSA_BACKWARD, "script")[-1]
    (published,) = (baseline for baseline in FSA_BACKWARD.baselines if baseline.tflops)
    assert FSA_BACKWARD.flops(case) / 1e9 / published.tflops[case.name] == pytest.approx(5.53, rel=1e-3)
