"""Windows and sinks: the reference is the definition, and kernels in many styles are right."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from avo.evaluator.catalogue import get_problem
from avo.evaluator.problem import Problem, Wrong, signature
from avo.evaluator.problems.attention import Attention
from avo.evaluator.problems.visible import DenseCase
from avo.seeds import seed_source
from bench.orders import module_of
from tests import forward
from tests.evaluator.problems.offline_kernel import first_fault
from tests.kernels import edited

WINDOW, SINKS, BOTH = "mha-w1024", "mha-sinks", "gqa-d64-w128-global-sinks"
GENERAL = seed_source(BOTH)


def small(problem: Problem, name: str) -> DenseCase:
    case = next(case for case in problem.correctness_cases if case.name == name)
    assert isinstance(case, DenseCase)
    return case


@pytest.mark.parametrize("name", ["edge-126", "fewer-queries", "all-keys", "one-key"])
def test_the_reference_is_the_definition(name: str) -> None:
    problem = get_problem(BOTH)
    case = small(problem, name)
    storages = problem.make_inputs(case, 1)
    q, k, v = (
        storages[spec.name].as_strided(spec.shape, spec.held.strides).double()
        for spec in problem.call(case).tensors[:3]
    )
    scale, window = (dict(problem.call(case).scalars)[name] for name in ("scale", "window"))
    for head in range(case.heads):
        kv_head, sink = head // (case.heads // case.kv_heads), storages["sinks"][head].double().exp()
        out, lse, _ = forward.reference(problem, case, storages, 1, head, torch.arange(case.q_len))
        for row in (0, case.q_len // 2, case.q_len - 1):
            last = row + case.kv_len - case.q_len
            seen = slice(max(last - window + 1, 0), last + 1)
            weights = (k[1, kv_head, seen] @ q[1, head, row] * scale).exp()
            torch.testing.assert_close(out[row], weights @ v[1, kv_head, seen] / (weights.sum() + sink))
            torch.testing.assert_close(lse[row], (weights.sum() + sink).log())


def test_the_problem_hands_over_windows_and_sinks_only_where_it_has_them() -> None:
    assert signature(get_problem("mha")) == signature(get_problem("gqa-d64"))
    assert signature(get_problem(WINDOW))[1:] == (("q", "k", "v", "out", "lse"), ("causal", "scale", "window"))
    assert signature(get_problem(SINKS))[1:] == (("q", "k", "v", "sinks", "out", "lse"), ("causal", "scale"))
    assert signature(get_problem(BOTH))[2] == ("causal", "scale", "window")


def test_suites_have_the_window_and_global_layers_beside_it() -> None:
    quick = get_problem("gqa-h64x8-d64-w128-global-sinks-4096x2").suites["quick"]
    assert [(case.name, dict(get_problem(BOTH).call(case).scalars)["window"]) for case in quick] == [
        ("4096x2", 128), ("4096x2-global", 4096),
    ]  # fmt: skip
    for cases in get_problem(WINDOW).suites.values():
        assert {(case.causal, case.window) for case in cases if isinstance(case, DenseCase)} == {(True, 1024)}
    assert {case.causal for case in get_problem(SINKS).suites["paper"]} == {True, False}


@pytest.mark.parametrize(
    ("q_len", "kv_len", "window"), [(50, 50, 7), (50, 90, 60), (50, 90, 20), (5, 9, 100), (3, 3, 1)]
)
def test_flops_count_the_keys_that_queries_see(q_len: int, kv_len: int, window: int) -> None:
    case = replace(small(get_problem(WINDOW), "long"), q_len=q_len, kv_len=kv_len, window=window)
    seen = sum(min(row + kv_len - q_len + 1, window) for row in range(q_len))
    assert get_problem(WINDOW).flops(case) == 4 * 128 * case.batch * case.heads * seen


def test_global_layers_and_sinks_alone_count_as_dense_attention_does() -> None:
    (_, case) = get_problem("gqa-w128-global-sinks").suites["quick"][::2]
    assert case.name.endswith("-global")
    assert get_problem("gqa-w128-global-sinks").flops(case) == get_problem("gqa").flops(case)


def test_edges_are_keys_on_both_sides_of_both_ends_of_the_window() -> None:
    problem = get_problem(WINDOW)
    case = small(problem, "edge-126")
    storages = problem.make_inputs(case, 1)
    q, k = (
        storages[spec.name].as_strided(spec.shape, spec.held.strides).float() for spec in problem.call(case).tensors[:2]
    )
    aligned = (q @ k.transpose(2, 3)).argmax(-1)
    last = torch.arange(case.q_len) + case.kv_len - case.q_len
    assert case.window
    ends = {0: 0, 1: 1, 2: 1 - case.window, 3: -case.window}
    inside = (aligned > 0) & (aligned < case.kv_len - 1)
    for batch in range(case.batch):
        for head in range(case.heads):
            for row in inside[batch, head].nonzero()[:, 0].tolist():
                turn = (row + head + 2 * batch) % 4
                assert int(aligned[batch, head, row]) == int(last[row]) + ends[turn]


def test_sinks_have_shares_of_all_sizes() -> None:
    problem = get_problem(BOTH)
    case = small(problem, "long")
    storages = problem.make_inputs(case, 1)
    shares = []
    for head in range(case.heads):
        _, lse, _ = forward.reference(problem, case, storages, 0, head, torch.arange(300, case.q_len))
        shares.append(float((storages["sinks"][head].double() - lse).exp().median()))
    assert min(shares) > 0.03
    assert min(shares) < 0.3
    assert max(shares) > 0.9


@pytest.mark.parametrize("window", [1, 40])
def test_a_planted_key_changes_a_row_within_its_window(window: int) -> None:
    problem = get_problem(WINDOW)
    case = replace(small(problem, "long"), q_len=100, kv_len=150, window=window)
    for seed in range(12):
        inputs = problem.make_inputs(case, 1)
        before = {name: storage.clone() for name, storage in inputs.items()}
        batch, head, row = problem.plant(case, inputs, random.Random(seed))["queries"]
        out, was = (forward.reference(problem, case, i, batch, head, torch.tensor([row]))[0] for i in (inputs, before))
        assert (out - was).norm() > 0.5 * was.norm()


def diagnosis(problem: str, case: DenseCase, row: int, factor: float) -> str:
    """What is said of one row that is the right one times a factor."""
    of, rows = get_problem(problem), torch.tensor([row])
    assert isinstance(of, Attention)
    inputs = of.make_inputs(case, 1)
    out, lse, _ = forward.reference(of, case, inputs, 0, 0, rows)
    return of.diagnose(case, inputs, Wrong("queries", 0, 0, rows, {"out": out * factor, "lse": lse}))


def test_a_wrong_row_where_all_keys_are_seen_is_not_put_down_to_the_window() -> None:
    assert not diagnosis(WINDOW, small(get_problem(WINDOW), "all-keys"), 100, 2.0)


@pytest.mark.parametrize("problem", [WINDOW, BOTH])
def test_a_mistake_that_changes_nothing_explains_no_small_error(problem: str) -> None:
    assert not diagnosis(problem, small(get_problem(problem), "longer-than-all"), 70, 1.003)


WINDOWED = "WINDOWED=0 < window < kv_len"


LOOP = "    for start_n in range(start, stop, BLOCK_N):\n"
HONEST = {
    "the seed": GENERAL,
    "the sink first": edited(
        ("    row_max = tl.full([BLOCK_M], -1.0e30, tl.float32)\n", ""),
        (
            "    row_sum = tl.zeros([BLOCK_M], tl.float32)\n",
            "    if SINKS:\n"
            "        row_max = tl.zeros([BLOCK_M], tl.float32) + tl.load(Sinks + head)\n"
            "        row_sum = tl.full([BLOCK_M], 1.0, tl.float32)\n"
            "    else:\n"
            "        row_max = tl.full([BLOCK_M], -1.0e30, tl.float32)\n"
            "        row_sum = tl.zeros([BLOCK_M], tl.float32)\n",
        ),
        ("    if SINKS:\n        sink = tl.load", "    if SINKS and False:\n        sink = tl.load"),
        source=GENERAL,
    ),
    "large tiles, the window a constant": edited(
        ("block_m, block_n = 64, 64", "block_m, block_n = 128, 32"),
        ("q_len, kv_len, window,\n    CAUSAL", "q_len, kv_len, window: tl.constexpr,\n    CAUSAL"),
        source=GENERAL,
    ),
    "the keys of a window from the last to the first": edited(
        (
            LOOP,
            "    for back in range(start, stop, BLOCK_N):\n"
            "        start_n = start + (stop - 1 - back) // BLOCK_N * BLOCK_N\n",
        ),
        source=GENERAL,
    ),
    "a mask also where all keys are seen": edited((WINDOWED, "WINDOWED=window > 0"), source=GENERAL),
    "powers of two": edited(
        ("of_rest) * scale", "of_rest) * (scale * 1.4426950408889634)"),
        (
            "rescale = tl.exp(row_max - new_max)\n        p = tl.exp(scores",
            "rescale = tl.exp2(row_max - new_max)\n        p = tl.exp2(scores",
        ),
        ("sink = tl.load(Sinks + head)", "sink = tl.load(Sinks + head) * 1.4426950408889634"),
        (
            "rescale = tl.exp(row_max - new_max)\n        row_sum = row_sum * rescale + tl.exp(sink",
            "rescale = tl.exp2(row_max - new_max)\n        row_sum = row_sum * rescale + tl.exp2(sink",
        ),
        ("lse = row_max + tl.log(row_sum)", "lse = (row_max + tl.log2(row_sum)) * 0.6931471805599453"),
        source=GENERAL,
    ),
}


@pytest.mark.corpus
@pytest.mark.parametrize("name", HONEST)
def test_an_honest_kernel_is_right_in_every_small_case(name: str, tmp_path: Path) -> None:
    module = module_of(HONEST[name], tmp_path)
    for problem in (WINDOW, SINKS, BOTH, "gqa-fp16-w512-sinks"):
        assert first_fault(get_problem(problem), module) is None
