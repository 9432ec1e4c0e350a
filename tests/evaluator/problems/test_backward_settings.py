"""Backward passes with windows, sinks, packed sequences and values of other dims than keys: the gradients are those
that autograd finds, and kernels in many styles are right.
"""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
import torch

from avo.evaluator.catalogue import get_problem
from avo.evaluator.problem import Problem, rows_of, signature
from avo.evaluator.problems.backward import AttentionBackward, BackwardCase
from avo.evaluator.problems.visible import lengths
from avo.seeds import seed_source
from bench.orders import module_of
from tests.evaluator.problems.offline_kernel import fault_of
from tests.kernels import edited

Tensors = dict[str, torch.Tensor]
WINDOW, SINKS, PACKED, DIMS = (f"mha_backward-{part}" for part in ("w1024", "sinks", "packed", "d192x128"))
ALL = "gqa_backward-d192x128-w128-global-sinks-packed"
GENERAL = seed_source(ALL)


def small(problem: str, name: str) -> BackwardCase:
    case = next(case for case in get_problem(problem).correctness_cases if case.name == name)
    assert isinstance(case, BackwardCase)
    return replace(case, layout="contiguous")


def views(problem: Problem, case: BackwardCase, seed: int = 1) -> Tensors:
    """Inputs of a contiguous case, floating-point ones in float64."""
    specs = {spec.name: spec for spec in problem.call(case).tensors}
    made = {n: s.view(specs[n].shape) for n, s in problem.make_inputs(case, seed).items()}
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in made.items()}


def defined(case: BackwardCase, scalars: dict[str, float], view: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
    """out and lse by the definition, query by query and sequence by sequence."""
    group, window = case.heads // case.kv_heads, int(scalars.get("window", 0))
    cu = [[0, case.q_len], [0, case.kv_len]]
    if case.sequences:
        cu = [view[f"cu_seqlens_{name}"].tolist() for name in "qk"]
    outs, lses = [], []
    for (a, b), (c, d) in zip(*(pairwise(each) for each in cu), strict=True):
        k, v = (view[name][:, :, c:d].repeat_interleave(group, 1) for name in "kv")
        scores = view["q"][:, :, a:b] @ k.mT * scalars["scale"]
        ahead = torch.arange(d - c) - torch.arange(b - a)[:, None] - (d - c - (b - a))
        if case.causal:
            scores = scores.masked_fill(ahead > 0, -math.inf)
        if window:
            scores = scores.masked_fill(ahead <= -window, -math.inf)
        sink = view["sinks"][:, None, None].expand(*scores.shape[:3], 1) if case.sinks else scores[..., :0]
        weights = torch.cat((scores, sink), -1)
        outs.append(weights.softmax(-1)[..., : d - c] @ v)
        lses.append(weights.logsumexp(-1))
    return torch.cat(outs, 2), torch.cat(lses, 2)


def found(problem: Problem, case: BackwardCase, view: Tensors) -> Tensors:
    """The reference's gradients, all of them."""
    inputs, made = {name: tensor.flatten() for name, tensor in view.items()}, {}
    specs = {spec.name: spec.shape for spec in problem.call(case).tensors}
    for of, those in rows_of(problem.outputs).items():
        batch, heads, rows = specs[those[0].name][:3]
        parts = [
            [problem.reference(case, inputs, of, b, h, torch.arange(rows)) for h in range(heads)] for b in range(batch)
        ]
        for each in those:
            made[each.name] = torch.stack([torch.stack([part[each.name].value for part in row]) for row in parts])
    return made


@pytest.mark.parametrize(
    ("name", "case"),
    [
        (WINDOW, "edge-126"),
        (WINDOW, "one-key"),
        (SINKS, "odd-causal"),
        (SINKS, "mixed-full"),
        (PACKED, "uneven-full"),
        (PACKED, "more-keys-causal"),
        (DIMS, "odd-causal"),
        (ALL, "uneven-causal"),
        (ALL, "empty-causal"),
    ],
)
def test_the_gradients_are_those_that_autograd_finds(name: str, case: str) -> None:
    problem, of = get_problem(name), small(name, case)
    view = views(problem, of)
    names = [*"qkv", *(["sinks"] if of.sinks else [])]
    leaves = [view[name].requires_grad_() for name in names]
    out, lse = defined(of, dict(problem.call(of).scalars), view)
    expected = torch.autograd.grad(out, leaves, view["dout"])
    plain = {name: tensor.detach() for name, tensor in {**view, "out": out, "lse": lse}.items()}
    made = found(problem, of, plain)
    assert [f"d{name}" for name in names] == [output.name for output in problem.outputs]
    for name, right in zip(names, expected, strict=True):
        torch.testing.assert_close(made[f"d{name}"].view_as(right), right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "case"), [(SINKS, "square-full"), (ALL, "one-query-each")])
def test_out_and_lse_are_those_of_the_keys_that_are_seen_and_of_sinks(name: str, case: str) -> None:
    problem, of = get_problem(name), replace(small(name, case), elsewhere=0.0)
    view = views(problem, of)
    out, lse = defined(of, dict(problem.call(of).scalars), view)
    torch.testing.assert_close(view["lse"], lse, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(view["out"], out, rtol=0.01, atol=0.01)


def test_a_call_has_what_the_forward_pass_has_and_the_gradient_of_sinks() -> None:
    entry, tensors, scalars = signature(get_problem(ALL))
    further = ("cu_seqlens_q", "cu_seqlens_k", "sinks")
    assert (entry, tensors[3:6]) == ("attention_backward", further)
    assert tensors[-4:] == ("dq", "dk", "dv", "dsinks")
    forward = signature(get_problem(ALL.replace("_backward", "")))
    assert (tensors[:6], scalars) == (forward[1][:6], forward[2])
    assert "dsinks" not in signature(get_problem(WINDOW))[1]


@pytest.mark.parametrize("name", [WINDOW, PACKED, DIMS, ALL])
def test_the_flops_are_those_of_five_products(name: str) -> None:
    problem = get_problem(name)
    for case in problem.suites["quick"]:
        keys, values = case.head_dim, case.head_dim_v or case.head_dim
        forward = get_problem(name.replace("_backward", "")).flops(case)
        assert problem.flops(case) * (keys + values) == forward * (3 * keys + 2 * values)


def test_at_benchmark_shapes_the_attention_of_a_query_and_its_sink_is_about_one() -> None:
    problem = get_problem(ALL)
    case = problem.suites["quick"][0]
    assert isinstance(case, BackwardCase)
    case = replace(case, heads=4, kv_heads=4, q_len=900, kv_len=900, sequences=3, window=100)
    view = views(problem, case)
    _, lse = defined(case, dict(problem.call(case).scalars), view)
    usual = (view["q"].norm(dim=-1) * 192**-0.5) < 2
    share = (lse - view["lse"]).exp()[usual]
    assert 0.25 < float(share.quantile(0.05)) < float(share.quantile(0.95)) < 1.4


@pytest.mark.parametrize("name", [WINDOW, ALL])
def test_what_is_planted_changes_its_rows(name: str) -> None:
    problem, case = get_problem(name), small(name, "edge-1" if name == WINDOW else "more-keys-causal")
    assert isinstance(problem, AttentionBackward)
    inputs = problem.make_inputs(case, 1)
    before = {name: storage.clone() for name, storage in inputs.items()}
    planted = problem.plant(case, inputs, Random(3))
    assert planted.keys() == rows_of(problem.outputs).keys()
    for of, (batch, head, row) in planted.items():
        old, new = (problem.reference(case, each, of, batch, head, torch.tensor([row])) for each in (before, inputs))
        for output in old:
            assert float((old[output].value - new[output].value).norm()) > 0.5 * float(old[output].value.norm())


def test_small_cases_have_sequences_windows_and_keys_that_no_query_sees() -> None:
    cases = [small(ALL, case.name) for case in get_problem(ALL).correctness_cases]
    assert {case.window for case in cases} == {0, 1, 20, 64, 65, 127, 130}
    assert any((0, 0) in lengths(case) or any(q == 0 for q, _ in lengths(case)) for case in cases)
    assert any(k - q + 1 > (case.window or k) for case in cases for q, k in lengths(case))


LOOP = "        for start_m in range(start, stop, BLOCK_M):\n"
HONEST = {
    "large tiles": edited(("block_m, block_n = 64, 64", "block_m, block_n = 32, 128"), source=GENERAL),
    "queries from the last to the first": edited(
        (
            LOOP,
            "        for back in range(start, stop, BLOCK_M):\n"
            "            start_m = start + (stop - 1 - back) // BLOCK_M * BLOCK_M\n",
        ),
        source=GENERAL,
    ),
    "powers of two": edited(
        (
            "tl.exp(scores * scale - lse[None, :])",
            "tl.exp2(scores * (scale * 1.4426950408889634) - lse[None, :] * 1.4426950408889634)",
        ),
        ("tl.exp(sink - lse)", "tl.exp2((sink - lse) * 1.4426950408889634)"),
        source=GENERAL,
    ),
    "the gradient of sinks by atomics, with the row sums": edited(
        (
            "    Out, Dout, Delta, heads, q_len,\n",
            "    Out, Dout, Delta, Sinks, Lse, Dsinks, SINKS: tl.constexpr, heads, q_len,\n",
        ),
        (
            "    tl.store(Delta + tl.program_id(1).to(tl.int64) * q_len + rows, delta, mask=rows < q_len)\n",
            "    at = tl.program_id(1).to(tl.int64) * q_len + rows\n"
            "    tl.store(Delta + at, delta, mask=rows < q_len)\n"
            "    if SINKS:\n"
            "        lse = tl.load(Lse + at, mask=rows < q_len, other=float('inf'))\n"
            "        tl.atomic_add(Dsinks + head, -tl.sum(tl.exp(tl.load(Sinks + head) - lse) * delta, 0))\n",
        ),
        (
            "    delta_kernel[",
            "    taken = (lse, lse, lse, False) if sinks is None else (sinks, lse, dsinks.zero_(), True)\n"
            "    delta_kernel[",
        ),
        ("        out, dout, delta, heads, q_len, *out", "        out, dout, delta, *taken, heads, q_len, *out"),
        ("    if sinks is not None:\n        sinks_kernel", "    if False:\n        sinks_kernel"),
        source=GENERAL,
    ),
    "a mask also where all keys are seen": edited(
        ('"WINDOWED": 0 < window < kv_len', '"WINDOWED": window > 0'), source=GENERAL
    ),
}  # fmt: skip
SOME = {WINDOW: ("across-tiles", "one-key"), SINKS: ("odd-causal",), ALL: ("uneven-causal", "empty-causal")}


@pytest.mark.corpus
@pytest.mark.parametrize(("name", "style"), [(name, style) for name in SOME for style in ("", *HONEST)])
def test_an_honest_kernel_is_right(name: str, style: str, tmp_path: Path) -> None:
    """The seed, and others in the corpus: atomics for the sinks, other orders and tiles, powers of two."""
    module = module_of(HONEST[style] if style else GENERAL, tmp_path)
    for case in SOME[name]:
        fault = fault_of(get_problem(name), small(name, case), module)
        assert fault is None, fault.message
