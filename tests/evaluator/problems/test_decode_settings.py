"""Decoding with windows, sinks and values of other dims than keys: the reference is the definition, and kernels
in many styles are right.
"""

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch

from avo.evaluator.catalogue import get_problem
from avo.evaluator.problem import signature
from avo.evaluator.problems.decode import DecodeCase, lengths
from avo.seeds import seed_source
from bench.orders import module_of
from tests import forward
from tests.evaluator.problems.offline_kernel import fault_of
from tests.kernels import edited

WINDOW, SINKS, DIMS = "decode-w1024", "decode-sinks", "decode-d192x128-fp16"
ALL = "decode-d192x128-w128-global-sinks"
SEED = seed_source(ALL)


def small(problem: str, name: str) -> DecodeCase:
    case = next(case for case in get_problem(problem).correctness_cases if case.name == name)
    assert isinstance(case, DecodeCase)
    return case


@pytest.mark.parametrize("name", ["group-8", "eight-queries", "group-3", "one-key"])
def test_the_reference_is_the_definition(name: str) -> None:
    problem, case = get_problem(ALL), small(ALL, name)
    call, inputs = problem.call(case), problem.make_inputs(case, 1)
    view = {s.name: inputs[s.name].as_strided(s.shape, s.strides) for s in call.tensors if s.name in inputs}
    scale, window = (float(dict(call.scalars)[name]) for name in ("scale", "window"))
    for batch in range(case.batch):
        for head in range(0, case.heads, 3):
            out, lse, _ = forward.reference(problem, case, inputs, batch, head, torch.arange(case.q_len))
            length, sink = lengths(case)[batch], view["sinks"][head].double().exp()
            for i in range(case.q_len):
                last = i + length - case.q_len
                keys = torch.arange(max(last - int(window) + 1, 0), last + 1)
                page = view["block_table"][batch, keys // case.page_size].long()
                at = page, head // (case.heads // case.kv_heads), keys % case.page_size
                weights = (view["k"][at].double() @ view["q"][batch, head, i].double() * scale).exp()
                torch.testing.assert_close(out[i], weights @ view["v"][at].double() / (weights.sum() + sink))
                torch.testing.assert_close(lse[i], (weights.sum() + sink).log())


def test_a_call_has_sinks_behind_the_lengths_and_the_window_of_global_layers_is_all_keys() -> None:
    assert signature(get_problem(ALL))[1:] == (
        ("q", "k", "v", "block_table", "lengths", "sinks", "out", "lse"), ("scale", "window"),
    )  # fmt: skip
    assert signature(get_problem(DIMS)) == signature(get_problem("decode"))
    local, everywhere = get_problem("decode-h64x8-d64-w128-global-sinks-32768x1").suites["quick"]
    assert [dict(get_problem(ALL).call(case).scalars)["window"] for case in (local, everywhere)] == [128, 32768]


def test_flops_and_bytes_are_of_the_keys_that_queries_see() -> None:
    problem, case = get_problem(ALL), replace(small(ALL, "eight-queries"), window=40, layout="contiguous")
    pairs = sum(min(n - case.q_len + i + 1, 40) for n in lengths(case) for i in range(case.q_len))
    assert problem.flops(case) == 2 * (192 + 128) * case.heads * pairs
    keys = sum(min(n, 40 + case.q_len - 1) for n in lengths(case))
    rows = case.batch * case.heads * case.q_len
    tables = case.batch + sum(-(-min(n, 47) // case.page_size) for n in lengths(case)) + case.heads
    assert problem.least_bytes(case) == (keys * case.kv_heads + rows) * 320 * 2 + 4 * (rows + tables)


@pytest.mark.parametrize("window", [1, 40])
def test_a_planted_key_changes_a_row_within_its_window(window: int) -> None:
    problem, case = get_problem(WINDOW), replace(small(WINDOW, "eight-queries"), window=window)
    for seed in range(8):
        inputs = problem.make_inputs(case, 1)
        before = {name: storage.clone() for name, storage in inputs.items()}
        batch, head, row = problem.plant(case, inputs, Random(seed))["queries"]
        rows = torch.tensor([row])
        old, new = (forward.reference(problem, case, each, batch, head, rows)[0] for each in (before, inputs))
        assert float((old - new).norm()) > 0.5 * float(old.norm())


FIRST = "first = tl.maximum(length - q_len + 1 - window, 0)"
SINK = "sink = tl.load(Sinks + head)"
ADDED = "total += tl.exp(sink - top)"


HONEST = {
    "": SEED,
    "one part": SEED.replace("PROGRAMS = 264", "PROGRAMS = 1"),
    "a tile a part": SEED.replace("PROGRAMS = 264", "PROGRAMS = 10**6"),
    "large tiles": SEED.replace("block_n = block_table.shape[1], 64", "block_n = block_table.shape[1], 128"),
    "parts of all keys, seen or not": edited(
        (FIRST, "first = 0"),
        ("keys = min(most * page, window + q_len - 1) if window else most * page", "keys = most * page"),
        source=SEED,
    ),
    "the sink as a part": edited(
        (f"    if SINKS:\n        {SINK}\n        top = tl.maximum(top, sink)\n", ""),
        (
            "    lse = tl.load(PartLse + row * splits + part, mask=part < splits, other=float(\"-inf\"))\n",
            "    lse = tl.load(PartLse + row * splits + part, mask=part < splits, other=float(\"-inf\"))\n"
            "    if SINKS:\n"
            "        lse = tl.where(part == splits, tl.load(Sinks + head), lse)\n",
        ),
        (f"    if SINKS:\n        {ADDED}\n", ""),
        ("BLOCK_S=triton.next_power_of_2(splits)", "BLOCK_S=triton.next_power_of_2(splits + 1)"),
        source=SEED,
    ),
}  # fmt: skip


@pytest.mark.corpus
@pytest.mark.parametrize("style", HONEST)
def test_an_honest_kernel_is_right(style: str, tmp_path: Path) -> None:
    module = module_of(HONEST[style], tmp_path)
    for name, case in ((ALL, "group-4-of-2"), (WINDOW, "eight-queries"), (SINKS, "rising")):
        fault = fault_of(get_problem(name), small(name, case), module)
        assert fault is None, fault.message
