"""Problems in other settings: their cases and their references."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from avo.evaluator.candidate import Candidate
from avo.evaluator.catalogue import get_problem
from avo.evaluator.evaluation import Status
from avo.evaluator.judging.judge import Judge
from avo.evaluator.problem import HELD_OUT
from avo.evaluator.problems.mha.wrong import WRONG
from avo.evaluator.sandbox.jobs import ForkServer
from avo.evaluator.targets import get_target
from avo.seeds import fitting, seed_source, seeds_of
from bench.orders import module_of
from tests import forward
from tests.corpus import sample
from tests.evaluator.problems.offline_kernel import fault_of, first_fault, tried

DIMS = "mha-d192x128"
NAMES = ("mha-d64", DIMS, "gqa-d96-fp16", "mha_backward-d64-fp16", "decode-d64-fp16", "fsa-d64-fp16")
MORE = (
    "mha-d256", "mha-fp16", "mha-d192x128-fp16", "gqa-d64", "gqa-d192-fp16", "mha_backward-d192",
    "mha_backward-d256", "gqa_backward-d96-fp16", "decode-d96", "decode-d192", "decode-d256-fp16", "gqa-d512",
    "decode-d512-fp16", "mha-c50-sinks", "gqa-d256-w64-c50", "decode-c50", "fsa-d96", "fsa-d192",
    "fsa_backward-d64-fp16", "fsa_backward-d96", "fsa_backward-d192",
)  # fmt: skip
JUDGED = (
    "mha-d96-fp16", "mha-d192x128", "gqa-d256", "gqa-h64x8-d64-4096x2", "gqa-h64x8-d64-w128-global-sinks-4096x2",
    "gqa-h64x8-d64-packed-4096x2", "mha_backward-d64", "gqa_backward-h64x8-d64-w128-global-sinks-packed-4096x2",
    "gqa-h8x4-d256-w4096-global-c50-4096x2", "mha-d512", "decode-d512",
    "decode-d64-fp16", "decode-h64x8-d64-w128-global-sinks-32768x1", "fsa-d64-fp16", "fsa-sinks-packed",
    "fsa_backward-d64-sinks-packed",
)  # fmt: skip


def test_a_setting_changes_dims_and_type_of_each_case_and_nothing_else() -> None:
    base, found = get_problem("gqa"), get_problem("gqa-d96-fp16")
    for suite in ("quick", "paper", HELD_OUT):
        expected = tuple(replace(case, head_dim=96, dtype="float16") for case in base.suites[suite])
        assert found.suites[suite] == expected
    assert {(case.head_dim, case.dtype) for case in found.correctness_cases} == {(96, "float16")}
    assert [case.name for case in found.correctness_cases] == [case.name for case in base.correctness_cases]
    assert (found.entry, found.outputs, found.baselines) == (base.entry, base.outputs, ())


def test_values_may_have_other_dims_than_keys() -> None:
    problem = get_problem(DIMS)
    case = next(case for case in problem.correctness_cases if case.name == "odd-causal")
    shapes = {spec.name: spec.shape[3:] for spec in problem.call(case).tensors}
    assert shapes == {"q": (192,), "k": (192,), "v": (128,), "out": (128,), "lse": ()}
    storages = problem.make_inputs(case, 1)
    q, k, v = (
        storages[spec.name].as_strided(spec.shape, spec.held.strides).double()
        for spec in problem.call(case).tensors[:3]
    )
    logits = q[1, 2] @ k[1, 2].T / math.sqrt(192)
    logits = logits.masked_fill(torch.ones_like(logits).triu(case.kv_len - case.q_len + 1).bool(), -math.inf)
    out, lse, _ = forward.reference(problem, case, storages, 1, 2, torch.arange(case.q_len))
    torch.testing.assert_close(out, logits.softmax(1) @ v[1, 2])
    torch.testing.assert_close(lse, logits.logsumexp(1))
    quick = problem.suites["quick"][-1]
    assert problem.flops(quick) == 2 * 4 * 16 * 8192**2 * (192 + 128)
    assert problem.least_bytes(quick) == 4 * 16 * 8192 * (2 * (2 * 192 + 2 * 128) + 4)


def test_scores_are_capped_after_they_are_scaled() -> None:
    problem = get_problem("mha-c50")
    case = replace(next(case for case in problem.correctness_cases if case.name == "odd-full"), softcap=6.0)
    assert dict(problem.call(case).scalars)["softcap"] == 6.0
    storages = problem.make_inputs(case, 1)
    q, k, v = (
        storages[spec.name].as_strided(spec.shape, spec.held.strides).double()
        for spec in problem.call(case).tensors[:3]
    )
    logits = 6.0 * torch.tanh(q[1, 0] @ k[1, 0].T / math.sqrt(128) / 6.0)
    out, lse, _ = forward.reference(problem, case, storages, 1, 0, torch.arange(case.q_len))
    torch.testing.assert_close(out, logits.softmax(1) @ v[1, 0])
    torch.testing.assert_close(lse, logits.logsumexp(1))


def test_a_decoders_scores_are_capped() -> None:
    problem = get_problem("decode-c50")
    case = replace(problem.correctness_cases[1], softcap=6.0)
    storages, rows = problem.make_inputs(case, 1), torch.arange(case.q_len)
    _, capped, _ = forward.reference(problem, case, storages, 0, 0, rows)
    _, free, _ = forward.reference(get_problem("decode"), replace(case, softcap=0.0), storages, 0, 0, rows)
    assert (free > capped + 1.0).any()


@pytest.mark.parametrize("name", ["mha-c50", "gqa-w4096-c50", "mha-c50-packed", "decode-c50"])
def test_exponentials_of_capped_scores_overflow_without_a_maximum(name: str) -> None:
    problem = get_problem(name)
    case = next(case for case in problem.correctness_cases if case.inputs == "step")
    _, lse, _ = forward.reference(problem, case, problem.make_inputs(case, 1), 0, 0, torch.arange(case.q_len))
    assert lse.max() > 89.0


def test_a_published_figure_is_shown_at_its_own_shape_alone() -> None:
    forward, backward = get_problem(DIMS), get_problem("mha_backward-d192x128")
    (fa4,) = forward.baselines
    assert (fa4.name, fa4.target) == ("FlashAttention-4", "b200")
    as_published = {"8k-full": 1555.7, "8k-causal": 1494.1}
    assert fa4.tflops == pytest.approx(as_published, rel=3e-4)
    assert [set(each.tflops) for each in backward.baselines] == [{"8k-full", "8k-causal"}] * 2
    # There 2.5 times the FLOPs of the forward pass are counted, which are fewer: values are shorter than keys.
    assert backward.baselines[0].tflops["8k-full"] * 2.5 * 320 / 832 == pytest.approx(1072.8, rel=3e-4)
    (window, _) = get_problem("gqa_backward-h8x4-d256-w1024-65536x1").baselines
    assert (window.target, set(window.tflops)) == ("b300", {"65536x1"})
    assert [each.target for each in get_problem("mha-h32x32-d64-8192x4-8192x1").baselines] == ["b200"]
    # Heads of all sequences together: eight sequences of 16 heads are four of 32, as published.
    by_name = {each.name: each.tflops for each in get_problem("mha-d64").baselines}
    assert by_name["FlashAttention-3"] == {
        "4k-full": 476, "8k-full": 496, "16k-full": 497, "4k-causal": 420, "8k-causal": 460, "16k-causal": 473,
    }  # fmt: skip
    assert get_problem("mha-d64-fp16").baselines == get_problem("mha-d64").baselines
    for name in ("mha-d96", "mha-d192x128-fp16", "gqa_backward-d192x128", "mha-d192x128-packed", "decode-d64"):
        assert get_problem(name).baselines == (), name


def test_a_models_suites_have_its_heads_and_shapes() -> None:
    problem = get_problem("gqa-h64x8-d64-8192x1-4096x2")
    sizes = [(case.batch, case.heads, case.kv_heads, case.q_len, case.kv_len) for case in problem.suites["quick"]]
    assert sizes == [(1, 64, 8, 8192, 8192), (2, 64, 8, 4096, 4096)]
    cases = [case for suite in problem.suites.values() for case in suite]
    assert all(case.causal and case.head_dim == 64 for case in cases)
    assert len({replace(case, name="") for case in cases}) == 5
    assert any(case.kv_len % 16 for case in problem.suites[HELD_OUT])
    assert all(case.heads == 8 * case.kv_heads for case in cases)


def test_a_held_out_case_with_half_of_the_heads_has_no_name_of_a_models_own_case() -> None:
    suites = get_problem("gqa-h32x8-8192x4-6144x4").suites
    (own,) = (case for case in suites["quick"] if case.kv_len == 6144)
    (half,) = (case for case in suites[HELD_OUT] if case.kv_len == 6144)
    assert (own.name, half.name, half.heads) == ("6144x4", "h16x4-6144x4", 16)


@pytest.mark.parametrize(
    ("heads", "of_one_device"),
    [("15x5", (3, 1)), ("27x9", (9, 3)), ("8x1", (4, 1)), ("71x1", (1, 1)), ("32x2", (16, 1))],
)
def test_a_held_out_case_has_the_heads_of_one_of_several_devices(heads: str, of_one_device: tuple[int, int]) -> None:
    suites = get_problem(f"gqa-h{heads}-8192x1").suites
    shapes = [(case.heads, case.kv_heads) for case in suites[HELD_OUT]]
    own = tuple(map(int, heads.split("x")))
    assert shapes == [of_one_device, own, own]


def test_a_model_decodes_one_query_a_sequence() -> None:
    (case,) = get_problem("decode-h64x8-d64-32768x4").suites["quick"]
    assert (case.batch, case.heads, case.kv_heads, case.q_len, case.kv_len) == (4, 64, 8, 1, 32768)


@pytest.mark.parametrize("length", [128, 65536])
def test_the_shapes_that_are_held_out_of_a_model_are_others(length: int) -> None:
    suites = get_problem(f"gqa-h32x8-{length}x1").suites
    assert len({replace(case, name="") for cases in suites.values() for case in cases}) == 4


def test_a_setting_starts_from_the_seeds_that_serve_it() -> None:
    assert list(seeds_of("mha")) == ["plain", "tuned", "hopper", "blackwell"]
    assert list(seeds_of("mha-d64-fp16")) == ["plain", "tuned"]
    assert list(seeds_of("gqa-d96")) == list(seeds_of("mha-d192")) == ["plain", "general"]
    assert list(seeds_of(DIMS)) == list(seeds_of("mha-sinks")) == list(seeds_of("gqa-w64")) == ["general"]
    assert list(seeds_of("gqa-h64x8-8192x1")) == ["plain", "tuned", "hopper", "blackwell"]
    assert list(seeds_of("mha_backward-d64")) == ["plain"]
    assert list(seeds_of("mha_backward-d96")) == list(seeds_of("gqa_backward-d192")) == ["general"]
    assert list(seeds_of("mha_backward-packed")) == list(seeds_of("gqa_backward-d192x128")) == ["general"]
    assert list(seeds_of("mha-c50")) == list(seeds_of("decode-c50")) == ["capped"]
    assert list(seeds_of("mha-d512")) == ["plain", "wide"]
    assert fitting("decode-d64", get_target("h100")) == ["split"]


@pytest.mark.parametrize("name", sample([*NAMES, *MORE], 16))
def test_a_seed_gives_the_references_numbers_in_a_setting(name: str, tmp_path: Path) -> None:
    problem = get_problem(name)
    for case in tried(problem):
        for seed in seeds_of(name):
            fault = fault_of(problem, case, module_of(seed_source(name, seed), tmp_path))
            assert fault is None, (seed, fault.message)


@pytest.mark.corpus
@pytest.mark.parametrize("name", JUDGED)
def test_a_seed_is_judged_correct_in_a_setting(fork_server: ForkServer, name: str) -> None:
    with Judge(get_target("h100"), "quick", server=fork_server) as judge:
        for seed in fitting(name, get_target("h100")):
            evaluation = judge.evaluate(Candidate(name, seed_source(name, seed)))
            assert evaluation.status is Status.CORRECT, evaluation.message


@pytest.mark.corpus
@pytest.mark.parametrize("wrong", ["probabilities in bfloat16", "the result by way of bfloat16"])
def test_rounding_to_bfloat16_is_right_where_inputs_are(wrong: str, tmp_path: Path) -> None:
    assert first_fault(get_problem("mha"), module_of(WRONG[wrong].of(seed_source("mha")), tmp_path)) is None
