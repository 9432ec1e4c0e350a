"""Decoding over a paged cache: the reference is the definition, and kernels in many styles are right."""

import math
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch

from avo.evaluator.judging import places
from avo.evaluator.problems.decode import DECODE, DecodeCase, lengths
from avo.seeds import seed_source
from bench.orders import module_of
from tests import forward
from tests.evaluator.problems.offline_kernel import fault_of
from tests.kernels import edited

SEED = seed_source("decode")
CASES = {case.name: case for case in DECODE.correctness_cases}


def tensors(case: DecodeCase, seed: int = 1) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The storages of a case's inputs, and their views."""
    inputs = DECODE.make_inputs(case, seed)
    specs = [spec for spec in DECODE.call(case).tensors if spec.name in inputs]
    return inputs, {spec.name: inputs[spec.name].as_strided(spec.shape, spec.held.strides) for spec in specs}


@pytest.mark.parametrize("name", ["one-query", "group-4-of-2", "eight-queries", "as-many-queries-as-keys", "rising"])
def test_the_reference_is_attention_to_the_keys_that_the_table_names(name: str) -> None:
    case = CASES[name]
    inputs, view = tensors(case)
    for batch in range(case.batch):
        length = int(view["lengths"][batch])
        at = [(int(view["block_table"][batch, j // case.page_size]), j % case.page_size) for j in range(length)]
        head = case.heads - 1
        k, v = (torch.stack([view[n][page, case.kv_heads - 1, row] for page, row in at]).double() for n in "kv")
        scores = view["q"][batch, head].double() @ k.T * (case.scale or 128**-0.5)
        for query in range(case.q_len):
            scores[query, query + length - case.q_len + 1 :] = -math.inf
        out, lse, _ = forward.reference(DECODE, case, inputs, batch, head, torch.arange(case.q_len))
        torch.testing.assert_close(out, scores.softmax(-1) @ v)
        torch.testing.assert_close(lse, scores.logsumexp(-1))


@pytest.mark.parametrize("case", [*CASES.values(), DECODE.suites["paper"][1]], ids=lambda case: case.name)
def test_no_page_is_in_the_table_twice_and_none_behind_the_end(case: DecodeCase) -> None:
    case = replace(case, kv_heads=1, heads=1)
    _, view = tensors(case)
    table = view["block_table"]
    named = table[table >= 0]
    assert len(set(named.tolist())) == len(named) < view["k"].shape[0]
    assert view["lengths"].tolist() == lengths(case)
    assert [int((row >= 0).sum()) for row in table] == [math.ceil(n / case.page_size) for n in lengths(case)]
    assert all(bool((row.diff()[row[1:] < 0] <= 0).all()) for row in table), "-1 stands at the end"


@pytest.mark.parametrize("name", ["four-queries", "group-8", "eight-queries"])
def test_flops_are_counted_for_each_pair_of_a_query_and_a_key_that_it_sees(name: str) -> None:
    case = CASES[name]
    pairs = sum(n - case.q_len + i + 1 for n in lengths(case) for i in range(case.q_len))
    assert DECODE.flops(case) == 4 * 128 * case.heads * pairs


def test_what_is_planted_changes_its_row() -> None:
    case = CASES["four-queries"]
    inputs, _ = tensors(case)
    before = {name: storage.clone() for name, storage in inputs.items()}
    batch, head, row = DECODE.plant(case, inputs, Random(4))["queries"]
    old, new = (forward.reference(DECODE, case, each, batch, head, torch.tensor([row]))[0] for each in (before, inputs))
    assert float((old - new).norm()) > 0.5 * float(old.norm())


def test_lengths_that_are_drawn_leave_at_most_eight_queries() -> None:
    drawn = [DECODE.at_length(DECODE.suites["quick"][0], 3000, Random(i)) for i in range(40)]
    assert {case.q_len for case in drawn} == set(range(1, 9))


def test_nearly_every_examination_meets_long_sequences_of_several_lengths() -> None:
    drawn = [[case for case in places.drawn(DECODE, Random(i)) if case.kv_len > 12288] for i in range(60)]
    assert sum(any(case.ragged and case.batch > 1 for case in cases) for cases in drawn) > 50


HONEST_KERNELS: dict[str, str] = {
    "all keys in one part": SEED.replace("PROGRAMS = 264", "PROGRAMS = 1"),
    "a tile a part": SEED.replace("PROGRAMS = 264", "PROGRAMS = 10**6"),
    "small tiles": SEED.replace("block_n = block_table.shape[1], 64", "block_n = block_table.shape[1], 16"),
    "large tiles": SEED.replace("block_n = block_table.shape[1], 64", "block_n = block_table.shape[1], 128"),
    "heads of a query side by side": SEED.replace("rows // q_len, rows % q_len", "rows % group, rows // group"),
    "powers of two": edited(
        ("rescale, p = tl.exp(row_max - base), tl.exp(scores - base[:, None])",
         "rescale, p = tl.exp2((row_max - base) * 1.44269504), tl.exp2((scores - base[:, None]) * 1.44269504)"),
        source=SEED,
    ),
}  # fmt: skip


@pytest.mark.corpus
@pytest.mark.parametrize("name", HONEST_KERNELS)
def test_an_honest_kernel_is_right_in_every_small_case(name: str, tmp_path: Path) -> None:
    assert HONEST_KERNELS[name] != SEED
    module = module_of(HONEST_KERNELS[name], tmp_path)
    assert [fault_of(DECODE, case, module) for case in DECODE.correctness_cases] == [None] * len(CASES)
