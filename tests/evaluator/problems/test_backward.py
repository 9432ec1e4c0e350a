"""The gradients of ``mha_backward`` and ``gqa_backward`` are those of attention, and wrong ones are told apart."""

import math
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
import torch

from avo.evaluator.catalogue import get_problem
from avo.evaluator.evaluation import Fault
from avo.evaluator.executor import Allocation
from avo.evaluator.judging.compare import compare
from avo.evaluator.problem import Case, Problem, TensorSpec
from avo.evaluator.problems.backward import AttentionBackward
from avo.evaluator.problems.gqa_backward import GQA_BACKWARD
from avo.evaluator.problems.mha_backward import MHA_BACKWARD

CASES = {case.name: case for problem in (GQA_BACKWARD, MHA_BACKWARD) for case in problem.correctness_cases}
Tensors = dict[str, torch.Tensor]


def forward(case: Case, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """out and lse of ``case``, by the definition."""
    group = case.heads // case.kv_heads
    scores = q @ k.repeat_interleave(group, 1).mT * (case.scale or case.head_dim**-0.5)
    if case.causal:
        hidden = torch.ones(case.q_len, k.shape[2], dtype=torch.bool).triu(case.kv_len - case.q_len + 1)
        scores = scores.masked_fill(hidden, -math.inf)
    return scores.softmax(-1) @ v.repeat_interleave(group, 1), scores.logsumexp(-1)


def in_float64(problem: Problem, case: Case) -> Tensors:
    """Inputs of ``case``, whose layout is contiguous, in float64, with exact out and lse of the keys at hand."""
    call = problem.call(case)
    view = {n: s.double().view(spec_of(call.tensors, n).shape) for n, s in problem.make_inputs(case, 1).items()}
    view["out"], view["lse"] = forward(case, view["q"], view["k"], view["v"])
    return view


def spec_of(specs: tuple[TensorSpec, ...], name: str) -> TensorSpec:
    return next(spec for spec in specs if spec.name == name)


def gradients(problem: Problem, case: Case, view: Tensors) -> Tensors:
    """The reference's dq, dk and dv, all of them."""
    inputs = {name: tensor.flatten() for name, tensor in view.items()}
    found = {}
    for of, names, heads, length in (
        ("queries", ("dq",), case.heads, case.q_len),
        ("keys", ("dk", "dv"), case.kv_heads, case.kv_len),
    ):
        rows = [
            [problem.reference(case, inputs, of, batch, head, torch.arange(length)) for head in range(heads)]
            for batch in range(case.batch)
        ]
        for name in names:
            found[name] = torch.stack([torch.stack([each[name].value for each in row]) for row in rows])
    return found


@pytest.mark.parametrize("name", ["square-full", "edge-126-causal", "one-query", "group-3-causal", "negative-full"])
def test_the_gradients_are_those_that_autograd_finds(name: str) -> None:
    case = CASES[name]
    view = in_float64(MHA_BACKWARD, case)
    leaves = [view[name].requires_grad_() for name in "qkv"]
    expected = torch.autograd.grad(forward(case, *leaves)[0], leaves, view["dout"])
    found = gradients(MHA_BACKWARD, case, {name: tensor.detach() for name, tensor in view.items()})
    for name, right in zip(("dq", "dk", "dv"), expected, strict=True):
        torch.testing.assert_close(found[name], right, rtol=1e-9, atol=1e-9)


def test_gradients_of_parts_of_the_keys_are_parts_of_the_gradients() -> None:
    """As under ring attention: out and lse are of all keys, and each device has some of them."""
    case = CASES["group-4-full"]
    case = replace(case, layout="contiguous", kv_len=2 * case.kv_len)
    view = in_float64(GQA_BACKWARD, case)
    whole = gradients(GQA_BACKWARD, case, view)
    half = replace(case, kv_len=case.kv_len // 2)
    parts = [
        gradients(GQA_BACKWARD, half, {**view, "k": k.contiguous(), "v": v.contiguous()})
        for k, v in zip(view["k"].chunk(2, 2), view["v"].chunk(2, 2), strict=True)
    ]
    torch.testing.assert_close(parts[0]["dq"] + parts[1]["dq"], whole["dq"])
    for name in ("dk", "dv"):
        torch.testing.assert_close(torch.cat([part[name] for part in parts], 2), whole[name])


@pytest.mark.parametrize("case", [CASES["square-full"], CASES["odd-full"]], ids=lambda case: case.name)
def test_statistics_are_those_of_the_keys_and_maybe_of_others(case: Case) -> None:
    call, inputs = MHA_BACKWARD.call(case), MHA_BACKWARD.make_inputs(case, 1)
    view = {name: inputs[name].view(spec_of(call.tensors, name).shape) for name in inputs}
    more = view["lse"] - forward(case, *(view[name].double() for name in "qkv"))[1]
    assert float(more.min()) > -1e-5
    assert (float(more.max()) > 0.9) == (case.name == "odd-full")


def test_at_benchmark_shapes_the_attention_of_a_query_is_about_what_its_keys_may_have_of_it() -> None:
    case = replace(MHA_BACKWARD.suites["quick"][-1], batch=1, heads=2, kv_heads=2, q_len=700, kv_len=700)
    inputs = MHA_BACKWARD.make_inputs(case, 1)
    q, k = (inputs[name].view(1, 2, 700, 128).double() for name in "qk")
    share = (q @ k.mT * 128**-0.5 - inputs["lse"].view(1, 2, 700, 1)).exp().sum(-1)
    assert 0.3 < float(share.min()) < 0.45
    assert 0.85 < float(share.max()) < 1.3


@pytest.mark.parametrize("problem", [MHA_BACKWARD, GQA_BACKWARD], ids=lambda problem: problem.name)
def test_what_is_planted_changes_its_rows(problem: AttentionBackward) -> None:
    case = next(case for case in problem.correctness_cases if case.name == "edge-1-causal")
    inputs = problem.make_inputs(case, 1)
    before = {name: storage.clone() for name, storage in inputs.items()}
    planted = problem.plant(case, inputs, Random(3))
    for of, (batch, head, row) in planted.items():
        rows = torch.tensor([row])
        pairs = zip(
            *(problem.reference(case, each, of, batch, head, rows).values() for each in (before, inputs)), strict=True
        )
        for old, new in pairs:
            assert float((old.value - new.value).norm()) > 0.5 * float(old.value.norm())


def test_five_products_are_counted_and_every_tensor_once() -> None:
    for case in (MHA_BACKWARD.suites["quick"][0], GQA_BACKWARD.suites["quick"][1]):
        forward_problem = get_problem("mha")
        assert 2 * MHA_BACKWARD.flops(case) == 5 * forward_problem.flops(case)
        rows = case.batch * case.q_len * case.head_dim * 2
        assert MHA_BACKWARD.least_bytes(case) == rows * (4 * case.heads + 4 * case.kv_heads) + rows * case.heads // 64


def test_published_figures_are_of_cases_that_exist_and_each_work_has_one_column() -> None:
    names = {case.name for case in MHA_BACKWARD.suites["paper"]}
    columns = [(baseline.name, baseline.target) for baseline in MHA_BACKWARD.baselines]
    assert len(set(columns)) == len(columns)
    assert all(baseline.tflops.keys() <= names and baseline.source for baseline in MHA_BACKWARD.baselines)


# Wrong gradients


def right(p: torch.Tensor, dp: torch.Tensor, delta: torch.Tensor, view: Tensors, scale: float) -> Tensors:
    ds = p * (dp - delta) * scale
    return {"dq": ds @ view["k"], "dk": ds.mT @ view["q"], "dv": p.mT @ view["dout"]}


Mistake = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Tensors, float], Tensors]
MISTAKES: dict[str, tuple[str, str, Mistake]] = {
    "without the row sums": ("square-full", "dq", lambda p, dp, _, view, scale: right(p, dp, 0 * dp, view, scale)),
    "dk accumulated twice": ("square-causal", "dk", lambda *all_: right(*all_) | {"dk": 2 * right(*all_)["dk"]}),
    "dk without the scale": (
        "square-causal",
        "dk",
        lambda p, dp, delta, view, scale: (
            right(p, dp, delta, view, scale) | {"dk": right(p, dp, delta, view, scale)["dk"] / scale}
        ),
    ),
    "dv of probabilities of the keys at hand": (
        "odd-full",
        "dv",
        lambda p, *others: right(p, *others) | {"dv": right(p / p.sum(-1, keepdim=True), *others)["dv"]},
    ),
    "row sums of the keys at hand": (
        "odd-full",
        "dq",
        lambda p, dp, _, view, scale: right(
            p, dp, (p * dp).sum(-1, keepdim=True) / p.sum(-1, keepdim=True), view, scale
        ),
    ),
    "lse in bfloat16": (
        "large-causal",
        "dq",
        lambda p, dp, delta, view, scale: right(
            p * (view["lse"] - view["lse"].bfloat16().double()).exp()[..., None], dp, delta, view, scale
        ),
    ),
    "the last key left out": (
        "edge-full",
        "dq",
        lambda p, *others: right(p * (torch.arange(p.shape[-1]) < p.shape[-1] - 1), *others),
    ),
    "one key too few in every causal row": (
        "edge-126-causal",
        "dq",
        lambda p, *others: right(p * torch.ones(p.shape[-2:]).tril(p.shape[-1] - p.shape[-2] - 1), *others),
    ),
}


def judged(name: str, mistake: Mistake) -> Fault | None:
    """What is found of gradients that are computed so, and rounded."""
    case = replace(CASES[name], layout="contiguous")
    call, inputs = MHA_BACKWARD.call(case), MHA_BACKWARD.make_inputs(case, 1)
    view = {name: inputs[name].double().view(spec_of(call.tensors, name).shape) for name in inputs}
    scale = float(dict(call.scalars)["scale"])
    scores = view["q"] @ view["k"].mT * scale
    p = (scores - view["lse"][..., None]).exp()
    if case.causal:
        p = p * torch.ones(case.q_len, case.kv_len).tril(case.kv_len - case.q_len)
    delta = (view["dout"] * view["out"]).sum(-1, keepdim=True)
    found = mistake(p, view["dout"] @ view["v"].mT, delta, view, scale)
    outputs = {
        name: Allocation(name, tensor.bfloat16().flatten(), written=torch.ones(tensor.numel(), dtype=torch.bool))
        for name, tensor in found.items()
    }
    return compare(MHA_BACKWARD, case, inputs, outputs, whole=True).fault


@pytest.mark.parametrize("name", MISTAKES)
def test_a_wrong_gradient_is_named(name: str) -> None:
    case, output, mistake = MISTAKES[name]
    fault = judged(case, mistake)
    assert fault is not None
    assert f" of {output}, batch" in fault.message
    assert judged(case, right) is None
