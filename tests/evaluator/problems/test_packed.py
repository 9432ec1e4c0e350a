"""Packed sequences: the reference is the definition, and kernels in many styles are right."""

import random
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch

from avo.evaluator.catalogue import get_problem
from avo.evaluator.problem import Wrong, signature
from avo.evaluator.problems.attention import Attention
from avo.evaluator.problems.visible import DenseCase
from avo.seeds import seed_source, seeds_of
from bench.orders import module_of
from tests import forward
from tests.evaluator.problems.offline_kernel import fault_of, first_fault
from tests.kernels import edited

PACKED, GQA = get_problem("mha-packed"), get_problem("gqa-d192x128-fp16-packed")
SOURCE = seed_source("mha-packed")
CASES = {case.name: case for case in PACKED.correctness_cases}


@pytest.mark.parametrize("name", ["uneven-full", "more-keys-causal", "empty-causal", "one-causal"])
def test_each_sequence_is_attention_to_its_own_keys(name: str) -> None:
    case = CASES[name]
    storages = PACKED.make_inputs(case, 1)
    q, k, v = (
        storages[spec.name].as_strided(spec.shape, spec.held.strides).double() for spec in PACKED.call(case).tensors[:3]
    )
    queries, keys = (storages[f"cu_seqlens_{name}"].tolist() for name in "qk")
    assert (queries[0], queries[-1], keys[0], keys[-1]) == (0, case.q_len, 0, case.kv_len)
    scale = dict(PACKED.call(case).scalars)["scale"]
    head = case.heads - 1
    out, lse, _ = forward.reference(PACKED, case, storages, 0, head, torch.arange(case.q_len))
    for i in range(len(queries) - 1):
        (a, b), (c, d) = queries[i : i + 2], keys[i : i + 2]
        assert d - c >= b - a
        logits = q[0, head, a:b] @ k[0, head, c:d].T * scale
        if case.causal:
            logits = logits.masked_fill(torch.ones_like(logits).triu(d - c - (b - a) + 1).bool(), -torch.inf)
        torch.testing.assert_close(out[a:b], logits.softmax(1) @ v[0, head, c:d])
        torch.testing.assert_close(lse[a:b], logits.logsumexp(1))


def test_cases_have_sequences_of_all_kinds() -> None:
    lengths = {}
    for case in CASES.values():
        queries = PACKED.make_inputs(case, 1)["cu_seqlens_q"].diff().tolist()
        lengths[case.name] = queries
        assert dict(PACKED.call(case).scalars)["max_seqlen_q"] == max(queries)
    assert 0 in lengths["empty-causal"]
    assert len(set(lengths["uneven-causal"])) == 4
    assert set(lengths["tiles-causal"]) == {64}
    assert {len(queries) for queries in lengths.values()} >= {1, 2, 3, 4, 9}


def test_suites_have_the_tokens_of_the_problems_own_in_twice_as_many_sequences() -> None:
    for own, case in zip(get_problem("mha").suites["paper"], PACKED.suites["paper"], strict=True):
        assert isinstance(case, DenseCase)
        assert (case.batch, case.q_len, case.sequences) == (1, own.batch * own.q_len, 2 * own.batch)


def test_flops_are_those_of_pairs_in_the_same_sequence() -> None:
    full, causal = CASES["uneven-full"], CASES["uneven-causal"]
    for case in (full, causal):
        inputs = PACKED.make_inputs(case, 1)
        pairs = int((inputs["cu_seqlens_q"].long().diff() * inputs["cu_seqlens_k"].long().diff()).sum())
        assert PACKED.flops(case) == 4 * 128 * case.heads * pairs // (2 if case.causal else 1)


def test_a_packed_call_has_cumulative_and_longest_lengths() -> None:
    entry, tensors, scalars = signature(PACKED)
    assert (entry, tensors[3:5]) == ("attention", ("cu_seqlens_q", "cu_seqlens_k"))
    assert scalars == ("causal", "scale", "max_seqlen_q", "max_seqlen_k")
    assert list(seeds_of("gqa-d192x128-fp16-packed")) == ["general"]


def test_a_planted_key_changes_a_row_of_its_own_sequence() -> None:
    case = CASES["more-keys-causal"]
    for seed in range(12):
        inputs = PACKED.make_inputs(case, 1)
        before = {name: storage.clone() for name, storage in inputs.items()}
        batch, head, row = PACKED.plant(case, inputs, random.Random(seed))["queries"]
        out, was = (forward.reference(PACKED, case, i, batch, head, torch.tensor([row]))[0] for i in (inputs, before))
        assert (out - was).norm() > 0.5 * was.norm()


def test_keys_of_sequences_before_explain_no_small_error_in_the_first_sequence() -> None:
    case, rows = CASES["tiles-causal"], torch.arange(10, 60)
    assert isinstance(PACKED, Attention)
    inputs = PACKED.make_inputs(case, 1)
    out, lse, _ = forward.reference(PACKED, case, inputs, 0, 0, rows)
    assert not PACKED.diagnose(case, inputs, Wrong("queries", 0, 0, rows, {"out": out * 1.003, "lse": lse}))


def test_the_seed_launches_what_a_card_takes_for_the_most_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    case = get_problem("gqa-h64x8-d64-packed-128x512").suites["quick"][0]
    call, grids = get_problem("gqa-packed").call(case), []

    class Kernel:
        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            grids.append(grid)
            return lambda *_, **__: None

    seed = import_module("avo.seeds.mha.general")
    monkeypatch.setattr(seed, "attention_kernel", Kernel())
    seed.attention(*(torch.empty(spec.shape, device="meta") for spec in call.tensors), **dict(call.scalars))
    ((_, *others),) = grids
    assert max(others) < 2**16


HONEST = {
    "the seed": SOURCE,
    "the keys of a sequence from the last to the first": edited(
        (
            "    for start_n in range(start, stop, BLOCK_N):\n",
            "    for back in range(start, stop, BLOCK_N):\n"
            "        start_n = start + (stop - 1 - back) // BLOCK_N * BLOCK_N\n",
        ),
        source=SOURCE,
    ),
    "other tiles": edited(("block_m, block_n = 64, 64", "block_m, block_n = 32, 128"), source=SOURCE),
    "the last sequence first": edited(
        ("sequence = tl.program_id(2)", "sequence = tl.num_programs(2) - 1 - tl.program_id(2)"), source=SOURCE
    ),
    "a grid of all queries": edited(
        ("triton.cdiv(max_seqlen_q or q_len, block_m)", "triton.cdiv(q_len, block_m)"), source=SOURCE
    ),
}


def test_the_seed_is_right_where_keys_are_longer_than_values(tmp_path: Path) -> None:
    module = module_of(SOURCE, tmp_path)
    for case in GQA.correctness_cases:
        if case.name in ("uneven-causal", "empty-causal"):
            assert fault_of(GQA, case, module) is None


@pytest.mark.corpus
@pytest.mark.parametrize("name", HONEST)
def test_an_honest_kernel_is_right_in_every_small_case(name: str, tmp_path: Path) -> None:
    assert first_fault(PACKED, module_of(HONEST[name], tmp_path)) is None
