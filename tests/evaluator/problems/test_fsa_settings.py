"""Selected attention with sinks, packed sequences and values of another length than keys, forward and backward: the
references are the definition, and kernels in many styles are right.
"""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from avo.evaluator.catalogue import get_problem
from avo.evaluator.problem import HELD_OUT, Problem, rows_of, signature
from avo.evaluator.problems.fsa import SelectedAttention
from avo.evaluator.problems.fsa_backward import SelectedAttentionBackward
from avo.evaluator.problems.selection import SelectedCase
from avo.evaluator.problems.visible import lengths
from avo.seeds import seed_source, seeds_of
from bench.orders import module_of
from tests import forward
from tests.corpus import sample
from tests.evaluator.problems.offline_kernel import fault_of
from tests.evaluator.problems.test_backward_settings import found, views
from tests.evaluator.problems.test_fsa import selected
from tests.kernels import edited

Tensors = dict[str, torch.Tensor]
SINKS, PACKED, BOTH = (f"fsa-{parts}" for parts in ("sinks", "packed", "sinks-packed"))
BACKWARD = "fsa_backward-sinks-packed"
SHORT, SHORT_BACKWARD = "fsa-d192x128-sinks-packed", "fsa_backward-d192x128-sinks-packed"
"""With values that are shorter than keys."""
GENERAL, GRADIENTS = seed_source(BOTH), seed_source(BACKWARD)


def small(problem: str, name: str) -> Any:
    case = next(case for case in get_problem(problem).correctness_cases if case.name == name)
    assert isinstance(case, SelectedCase)
    return replace(case, layout="contiguous")


def defined(case: SelectedCase, scale: float, view: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
    """out and lse by the definition, sequence by sequence, whose blocks are counted from its own first key."""
    group, outs, lses = case.heads // case.kv_heads, [], []
    starts = view["cu_seqlens_q"].tolist() if case.sequences else [0, case.q_len]
    for a, b in pairwise(starts):
        q, k, v = (view[name][:, :, a:b] for name in "qkv")
        k, v = (each.repeat_interleave(group, 1) for each in (k, v))
        visible = selected(view["block_indices"][:, :, a:b], case.block_size).repeat_interleave(group, 1)
        scores = (q @ k.mT * scale).masked_fill(~visible, -math.inf)
        sink = view["sinks"][:, None, None].expand(*scores.shape[:3], 1) if case.sinks else scores[..., :0]
        weights = torch.cat((scores, sink), -1)
        outs.append(weights.softmax(-1)[..., : b - a] @ v)
        lses.append(weights.logsumexp(-1))
    return torch.cat(outs, 2), torch.cat(lses, 2)


@pytest.mark.parametrize(
    ("name", "case"),
    [
        (SINKS, "group-2"),
        (SINKS, "uneven"),
        (PACKED, "group-1"),
        (PACKED, "one-token"),
        (BOTH, "skewed"),
        (SHORT, "group-2"),
    ],
)
def test_the_reference_is_the_definition(name: str, case: str) -> None:
    problem, of = get_problem(name), small(name, case)
    view = views(problem, of)
    out, lse = defined(of, dict(problem.call(of).scalars)["scale"], view)
    storages = problem.make_inputs(of, 1)
    for head in range(of.heads):
        mine, my_lse, _ = forward.reference(problem, of, storages, 0, head, torch.arange(of.q_len))
        torch.testing.assert_close(mine, out[0, head])
        torch.testing.assert_close(my_lse, lse[0, head])


@pytest.mark.parametrize(
    ("name", "case"),
    [
        *((BACKWARD, case) for case in ("group-2", "uneven", "nearly-dense", "one-token", "less-than-a-block")),
        (SHORT_BACKWARD, "group-2"),
    ],
)
def test_the_gradients_are_those_that_autograd_finds(name: str, case: str) -> None:
    problem, of = get_problem(name), small(name, case)
    view = views(problem, of)
    names = [*"qkv", "sinks"]
    leaves = [view[name].requires_grad_() for name in names]
    out, lse = defined(of, dict(problem.call(of).scalars)["scale"], view)
    expected = torch.autograd.grad(out, leaves, view["dout"])
    made = found(problem, of, {name: each.detach() for name, each in {**view, "out": out, "lse": lse}.items()})
    assert [f"d{name}" for name in names] == [output.name for output in problem.outputs]
    for leaf, right in zip(names, expected, strict=True):
        torch.testing.assert_close(made[f"d{leaf}"].view_as(right), right, rtol=1e-9, atol=1e-9)


def test_out_and_lse_of_a_backward_pass_have_the_sinks_in_them() -> None:
    problem, of = get_problem(BACKWARD), replace(small(BACKWARD, "group-4"), elsewhere=0.0)
    view = views(problem, of)
    out, lse = defined(of, dict(problem.call(of).scalars)["scale"], view)
    torch.testing.assert_close(view["lse"], lse, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(view["out"], out, rtol=0.01, atol=0.01)


def test_a_call_has_what_dense_attention_has_behind_the_indices() -> None:
    further = ("cu_seqlens_q", "cu_seqlens_k", "sinks")
    entry, tensors, scalars = signature(get_problem(BOTH))
    assert (entry, tensors[3:]) == ("selected_attention", ("block_indices", *further, "out", "lse"))
    assert scalars == ("block_size", "scale", "max_seqlen_q", "max_seqlen_k")
    _, of_backward, same = signature(get_problem(BACKWARD))
    assert (of_backward[3:7], of_backward[-4:], same) == (tensors[3:7], ("dq", "dk", "dv", "dsinks"), scalars)
    assert "dsinks" not in signature(get_problem("fsa_backward-packed"))[1]
    assert get_problem(SINKS).baselines == (), "the seed in NSA's order takes no sinks"
    assert list(seeds_of("fsa-d64")) == ["query_outer", "kv_outer", "query_union"]
    assert list(seeds_of(SINKS)) == ["general", "query_union"]
    assert list(seeds_of(BACKWARD)) == ["general", "query_union"]


def test_every_sequence_selects_blocks_of_its_own() -> None:
    problem, of = get_problem(PACKED), small(PACKED, "group-1")
    view = views(problem, of)
    starts = view["cu_seqlens_q"].tolist()
    assert len(starts) == 4
    assert starts == view["cu_seqlens_k"].tolist()
    for a, b in pairwise(starts):
        chosen, own = view["block_indices"][:, :, a:b], (torch.arange(b - a) // of.block_size)[:, None]
        assert bool((chosen == own).any(-1).all())
        assert bool((chosen <= own).all())


@pytest.mark.parametrize(
    ("name", "elements"),
    [(PACKED, 2 * 128), (BACKWARD, 5 * 128), (SHORT, 192 + 128), (SHORT_BACKWARD, 3 * 192 + 2 * 128)],
)
def test_flops_are_those_of_the_pairs_that_are_selected_in_each_sequence(name: str, elements: int) -> None:
    problem = get_problem(name)
    for case in ("uneven", "one-token", "blocks-of-64"):
        of = small(name, case)
        view = views(problem, of)
        parts = (view["block_indices"][:, :, a:b] for a, b in pairwise(view["cu_seqlens_q"].tolist()))
        pairs = sum(int(selected(part, of.block_size).sum()) for part in parts)
        assert problem.flops(of) == 2 * elements * pairs * of.heads // of.kv_heads


def test_a_models_heads_and_shapes_make_the_suite_and_keep_the_blocks() -> None:
    problem = get_problem("fsa-h32x4-d192x128-4096x1-8192x2")
    assert problem.suites.keys() == {"quick", HELD_OUT}
    shapes = [(case.name, case.batch, case.heads, case.kv_heads, case.kv_len) for case in problem.suites["quick"]]
    assert shapes == [("4096x1", 1, 32, 4, 4096), ("8192x2", 2, 32, 4, 8192)]
    cases = [case for suite in problem.suites.values() for case in suite]
    assert all(isinstance(case, SelectedCase) and case.q_len == case.kv_len for case in cases)
    assert {(each.block_size, each.blocks) for each in cases if isinstance(each, SelectedCase)} == {(64, 16)}
    assert [case.heads // case.kv_heads for case in problem.suites[HELD_OUT]] == [8, 8, 8]


def test_a_models_blocks_are_those_of_its_suite_and_small_cases_keep_their_own() -> None:
    problem = get_problem("fsa_backward-h64x4-b128x32-local-4096x1")
    cases = [case for suite in problem.suites.values() for case in suite]
    assert {(each.block_size, each.blocks) for each in cases if isinstance(each, SelectedCase)} == {(128, 32)}
    small = [case for case in problem.correctness_cases if isinstance(case, SelectedCase)]
    assert {case.block_size for case in small} == {16, 32, 64, 128}
    drawn = problem.at_length(small[0], 300, Random(0))
    assert all(isinstance(case, SelectedCase) and case.local for case in (*cases, *small, drawn))


def test_small_cases_have_empty_sequences_and_edges_of_sequences_within_blocks() -> None:
    cases = [small(PACKED, case.name) for case in get_problem(PACKED).correctness_cases]
    assert {case.sequences for case in cases} == {1, 2, 3, 4, 5}
    assert any(queries == 0 for case in cases for queries, _ in lengths(case))
    starts = [(case, sum(queries for queries, _ in lengths(case)[:1])) for case in cases if case.sequences > 1]
    assert sum(start % case.block_size > 0 for case, start in starts) > 5


@pytest.mark.parametrize("length", [64, 300, 20000])
def test_drawn_cases_have_other_sequences_and_selections(length: int) -> None:
    problem = get_problem(BOTH)
    drawn = [problem.at_length(small(BOTH, "group-2"), length, Random(seed)) for seed in range(20)]
    assert all(isinstance(case, SelectedCase) for case in drawn)
    sizes = {(case.sequences, case.block_size, case.selection) for case in drawn if isinstance(case, SelectedCase)}
    assert len(sizes) > 15
    assert {case.q_len for case in drawn} == {case.kv_len for case in drawn} == {length}


@pytest.mark.parametrize(("name", "case"), [(BOTH, "group-4"), (BACKWARD, "blocks-of-64")])
def test_what_is_planted_changes_its_rows(name: str, case: str) -> None:
    problem, of = get_problem(name), small(name, case)
    assert isinstance(problem, SelectedAttention | SelectedAttentionBackward)
    kinds = rows_of(problem.outputs).keys()
    for seed in range(4):
        inputs = problem.make_inputs(of, 1)
        before = {name: storage.clone() for name, storage in inputs.items()}
        planted = problem.plant(of, inputs, Random(seed))
        assert planted.keys() >= kinds
        changed = {
            of_rows: any(
                float((new[each].value - old[each].value).norm()) > 0.5 * float(old[each].value.norm()) for each in old
            )
            for of_rows in kinds
            for old, new in [
                [problem.reference(of, i, of_rows, *planted[of_rows][:2], torch.tensor([planted[of_rows][2]]))
                 for i in (before, inputs)]
            ]
        }  # fmt: skip
        assert all(changed.values()), changed


ADDED = "row_sum = row_sum * rescale + tl.exp(sink - new_max)"
OF_SEQUENCE = "first = tl.max(tl.where(starts <= position, starts, 0))"

DSINK = "dsink -= tl.exp(sink - lse) * delta"
NUMBERS = "start // block_size + sequence"

LOOP = "for slot in range(tl.sum((chosen >= 0).to(tl.int32))):"
HONEST = {
    "the last block first": edited(
        (
            LOOP,
            "count = tl.sum((chosen >= 0).to(tl.int32))\n"
            "    for back in range(count):\n"
            "        slot = count - 1 - back",
        ),
        source=GENERAL,
    ),
    "the softmax starts from the sink": edited(
        (
            "    for slot in range",
            "    if SINKS:\n"
            "        row_max = tl.load(Sinks + heads, mask=in_g, other=0.0)\n"
            "        row_sum = tl.full([BLOCK_G], 1.0, tl.float32)\n"
            "    for slot in range",
        ),
        ("    if SINKS:\n        sink =", "    if False:\n        sink ="),
        source=GENERAL,
    ),
    "the sequence by a loop": edited(
        (
            OF_SEQUENCE,
            "for each in range(sequences):\n"
            "            start = tl.load(Starts + each)\n"
            "            first = tl.where(start <= position, start, first)",
        ),
        source=GENERAL,
    ),
    "powers of two": edited(
        ("p = tl.exp(scores - new_max[:, None])", "p = tl.exp2((scores - new_max[:, None]) * 1.4426950408889634)"),
        (ADDED, ADDED.replace("tl.exp(sink - new_max)", "tl.exp2((sink - new_max) * 1.4426950408889634)")),
        source=GENERAL,
    ),
    "a program for each query, the last first": edited(
        ("position = tl.program_id(0)", "position = tl.num_programs(0) - 1 - tl.program_id(0)"), source=GENERAL
    ),
}  # fmt: skip
HONEST_GRADIENTS = {
    "small shares": edited(("rounded = 64, 1024, 32, 64", "rounded = 32, 96, 16, 128"), source=GRADIENTS),
    "powers of two": edited(
        (
            "tl.exp(tl.dot(k, tl.trans(q)) * scale - lse[None, :])",
            "tl.exp2(tl.dot(k, tl.trans(q)) * (scale * 1.4426950408889634) - lse[None, :] * 1.4426950408889634)",
        ),
        source=GRADIENTS,
    ),
    "twice the room for each sequence's blocks": edited(
        (NUMBERS + ", 2147", "start // block_size + 2 * sequence, 2147"),
        ("block -= first // block_size + sequence", "block -= first // block_size + 2 * sequence"),
        ("length // block_size + sequences if", "length // block_size + 2 * sequences if"),
        source=GRADIENTS,
    ),
    "row sums of a sink added up tile by tile": edited(
        ("    dsink = tl.zeros([BLOCK_M], tl.float32)\n", "    total = 0.0\n"),
        (DSINK, "total -= tl.sum(tl.exp(sink - lse) * delta, 0)"),
        ("tl.store(Dsinks + head, tl.sum(dsink, 0))", "tl.store(Dsinks + head, total)"),
        source=GRADIENTS,
    ),
    "the sequence of a block by a loop": edited(
        (
            "sequence = tl.sum((first_blocks <= block).to(tl.int32)) - 1",
            "sequence = 0\n"
            "        for each in range(1, sequences):\n"
            "            sequence += (tl.load(Starts + each) // block_size + each <= block).to(tl.int32)",
        ),
        (
            "        _, first_blocks = load_starts(Starts, sequences, block_size, SEQUENCES)\n        sequence = 0",
            "        sequence = 0",
        ),
        source=GRADIENTS,
    ),
}  # fmt: skip


SLOT = "block = tl.load(indices + slot)"
GRADIENT_SLOT = "keys = tl.load(indices + slot) * block_size"
RELIES = {
    "block 0 unseen": (SLOT, f"{SLOT}\n        block = tl.where((slot == 0) & (block > 0), 0, block)"),
    "the block before unseen": (
        SLOT,
        f"{SLOT}\n        after = tl.load(indices + slot + 1, mask=slot + 1 < blocks, other=-1)\n"
        "        own = position // block_size\n"
        "        block = tl.where((block >= 0) & (block < own) & (after == own), own - 1, block)",
    ),
    "block 0 unseen, backward": (
        GRADIENT_SLOT,
        GRADIENT_SLOT.replace("tl.load(", "tl.where(slot == 0, 0, 1) * tl.load("),
    ),
}
"""Kernels that take a forced block for granted. They are right where it is forced."""


@pytest.mark.parametrize("name", sample(RELIES, 3))
def test_a_kernel_that_relies_on_blocks_that_are_not_forced_is_caught(name: str, tmp_path: Path) -> None:
    kind = "fsa_backward" if name.endswith("backward") else "fsa"
    module = module_of(edited(RELIES[name], source=seed_source(kind, "query_outer")), tmp_path)
    assert fault_of(get_problem(kind), small(kind, "group-2"), module) is None
    fault = fault_of(get_problem(f"{kind}-local"), small(f"{kind}-local", "group-2"), module)
    assert fault is not None
    assert "rows" in fault.message


def complaints(problem: Problem, source: str, folder: Path, names: tuple[str, ...]) -> list[str]:
    module = module_of(source, folder)
    cases = [case for case in problem.correctness_cases if not names or case.name in names]
    return [f"{case.name}: {fault.message}" for case in cases if (fault := fault_of(problem, case, module))]


@pytest.mark.parametrize(
    "name",
    sample(
        [
            PACKED,
            SINKS,
            "fsa-d96-fp16-sinks-packed",
            BACKWARD,
            "fsa_backward-d64-fp16-packed",
            "fsa-d192x128",
            "fsa_backward-d192x128",
            "fsa-local",
            "fsa_backward-local",
        ],
        9,
    ),
)
def test_the_seed_is_right(name: str, tmp_path: Path) -> None:
    assert not complaints(get_problem(name), seed_source(name), tmp_path, ("group-8", "uneven", "one-token"))


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["", *HONEST])
def test_an_honest_kernel_is_right_in_every_small_case(name: str, tmp_path: Path) -> None:
    assert not complaints(get_problem(BOTH), HONEST.get(name, GENERAL), tmp_path, ())


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["", *HONEST_GRADIENTS])
def test_an_honest_backward_kernel_is_right_in_every_small_case(name: str, tmp_path: Path) -> None:
    assert not complaints(get_problem(BACKWARD), HONEST_GRADIENTS.get(name, GRADIENTS), tmp_path, ())
