import math
from collections import Counter
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avo.evaluator.catalogue import get_problem, get_suite
from avo.evaluator.offline import offline
from avo.evaluator.plan import Role
from avo.evaluator.problems.dense import views
from avo.evaluator.problems.selection import SELECTIONS, SelectedCase, make_block_indices, selected_pairs
from tests import forward

FSA = get_problem("fsa")
CASES = {case.name: case for case in FSA.correctness_cases}


def case(
    selection: str, length: int, block_size: int, blocks: int, group: int = 1, *, local: bool = False
) -> SelectedCase:
    selected = {"block_size": block_size, "blocks": blocks, "selection": selection, "local": local}
    return SelectedCase("x", 2, 2 * group, 2, length, length, 128, True, **selected)


def selected(chosen: torch.Tensor, block_size: int) -> torch.Tensor:
    """Which keys each query selects and sees, [..., queries, keys], by the definition."""
    keys = torch.arange(chosen.shape[-2])
    visible = torch.zeros(*chosen.shape[:-1], len(keys), dtype=torch.bool)
    for slot in range(chosen.shape[-1]):
        visible |= keys // block_size == chosen[..., slot, None]
    return visible & (keys <= keys[:, None])


any_case = st.builds(
    case,
    st.sampled_from(sorted(SELECTIONS)),
    st.integers(1, 200),
    st.sampled_from([1, 3, 16, 64]),
    st.integers(1, 20),
    local=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(any_case, st.integers(0, 2**32))
def test_block_indices_ascend_end_in_padding_and_hold_what_is_forced(made: SelectedCase, seed: int) -> None:
    chosen = make_block_indices(made, torch.Generator().manual_seed(seed))
    assert (chosen.dtype, tuple(chosen.shape)) == (torch.int32, (2, 2, made.q_len, made.blocks))
    own = (torch.arange(made.q_len) // made.block_size)[:, None]
    there = chosen >= 0
    assert (chosen[~there] == -1).all()
    steps = chosen.diff(dim=-1)
    assert ((steps > 0) | ~there[..., 1:]).all()  # ascending
    assert (there[..., :-1] | ~there[..., 1:]).all()  # nothing behind padding
    assert (chosen <= own).all()
    for forced in [own, 0 * own, (own - 1).clamp(min=0)][: min(made.forced, made.blocks)]:
        assert (chosen == forced).any(-1).all()


@settings(max_examples=40, deadline=None)
@given(any_case)
def test_useful_flops_are_those_of_the_pairs_that_are_selected(made: SelectedCase) -> None:
    chosen = make_block_indices(made, torch.Generator().manual_seed(1))
    pairs = int(selected(chosen, made.block_size).sum())
    assert pairs == 4 * selected_pairs(made)  # 2 batches of 2 KV heads
    assert FSA.flops(made) == 4 * 128 * pairs


def test_a_hot_block_is_selected_by_every_query_that_may() -> None:
    made = case("skewed", 500, 16, 6)
    chosen = make_block_indices(made, torch.Generator().manual_seed(1))
    late = chosen[:, :, 16 * 8 :]
    common = [Counter(late[batch, head].flatten().tolist()).most_common(3) for batch in (0, 1) for head in (0, 1)]
    assert [[block for block, count in found if count == late.shape[2]] for found in common] == [[0, 1], [0, 2]] * 2


def test_random_selections_reach_every_block_and_differ_between_heads() -> None:
    chosen = make_block_indices(case("random", 600, 16, 8), torch.Generator().manual_seed(1))
    assert set(chosen[0, 0, -1].tolist()) != set(chosen[0, 1, -1].tolist())
    assert set(chosen[0, 0, -100:].flatten().tolist()) == set(range(600 // 16 + 1))


def test_where_its_own_block_alone_is_forced_a_query_may_select_no_other_and_any_other() -> None:
    alone = make_block_indices(case("shortest", 200, 16, 6, local=True), torch.Generator().manual_seed(1))
    assert (alone[..., 0] == torch.arange(200) // 16).all()
    assert (alone[..., 1:] == -1).all()
    last = make_block_indices(case("random", 200, 16, 6, local=True), torch.Generator().manual_seed(1))[:, :, -1]
    assert not (last == 0).any(-1).all()
    assert not (last == 11).any(-1).all()


def test_nearly_dense_leaves_one_block_out_and_uneven_gives_neighbours_different_numbers() -> None:
    dense, uneven = SELECTIONS["dense"].count, SELECTIONS["uneven"].count
    assert [dense(16 * own, own, 16, 3) for own in range(12)] == [1, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    counts = [uneven(position, position // 16, 16, 3) for position in range(160, 200)]
    assert all(a != b for a, b in pairwise(counts))


@pytest.mark.parametrize("name", ["group-2", "uneven", "fewer-blocks-than-slots", "one-token", "constant"])
def test_reference_is_the_definition(name: str) -> None:
    made = CASES[name]
    storages = FSA.make_inputs(made, 1)
    q, k, v = (tensor.double() for tensor in views(made, storages).values())
    chosen = storages["block_indices"].view(made.batch, made.kv_heads, made.q_len, made.blocks)
    visible = selected(chosen, made.block_size)
    rows = torch.tensor([0, made.q_len // 2, made.q_len - 1])
    for head in range(made.heads):
        kv_head = head * made.kv_heads // made.heads
        logits = q[1, head, rows] @ k[1, kv_head].T * dict(FSA.call(made).scalars)["scale"]
        logits = logits.masked_fill(~visible[1, kv_head, rows], -math.inf)
        out, lse, attainable = forward.reference(FSA, made, storages, 1, head, rows)
        torch.testing.assert_close(out, logits.softmax(-1) @ v[1, kv_head])
        torch.testing.assert_close(lse, logits.logsumexp(-1))
        assert (attainable <= 0.01 * out.norm(dim=1)).all()


def test_cases_reach_what_a_kernel_may_get_wrong() -> None:
    cases = FSA.correctness_cases
    assert {made.heads // made.kv_heads for made in cases} == {1, 2, 4, 8, 16}
    assert any(made.q_len % made.block_size for made in cases)
    assert any(made.q_len < made.block_size for made in cases)
    assert any(math.ceil(made.q_len / made.block_size) < made.blocks for made in cases)
    assert {made.selection for made in cases} == set(SELECTIONS)


def test_the_paper_suite_has_each_length_and_group_with_each_block_size() -> None:
    paper = get_suite(FSA, "paper")
    for block_size, blocks in ((64, 16), (128, 8)):
        some = [made for made in paper if (made.block_size, made.blocks) == (block_size, blocks)]
        assert sorted(made.q_len for made in some) == [8192, 16384, 32768, 65536]
        assert sorted(made.heads // made.kv_heads for made in some) == [1, 2, 4, 8]


def test_other_suites_have_the_shapes_of_the_public_benchmark_and_of_minimax_m3() -> None:
    shapes = {
        suite: {(made.heads, made.kv_heads, made.block_size, made.blocks) for made in get_suite(FSA, suite)}
        for suite in ("script", "minimax-m3")
    }
    assert shapes == {"script": {(32, 32, 64, 16), (32, 4, 64, 16)}, "minimax-m3": {(64, 4, 128, 16)}}
    assert {made.q_len // 1024 for made in get_suite(FSA, "minimax-m3")} == {4, 8, 16, 32, 64}


def test_what_was_published_as_a_time_is_shown_as_the_throughput_of_a_case_that_exists() -> None:
    made = get_suite(FSA, "script")[-1]
    published = {baseline.name: baseline.tflops for baseline in FSA.baselines if baseline.tflops}
    assert all(figures.keys() == {made.name} for figures in published.values())
    milliseconds = {name: FSA.flops(made) / 1e9 / figures[made.name] for name, figures in published.items()}
    assert milliseconds == pytest.approx(
        {"Native Sparse Attention's kernel": 1.554, "Flash Sparse Attention's kernels": 6.168}, rel=1e-3
    )


def test_least_bytes_count_each_tensor_once() -> None:
    made = get_suite(FSA, "quick")[0]
    tokens = 8192
    assert FSA.least_bytes(made) == 2 * 128 * tokens * (8 + 8 + 4 + 4) + 4 * tokens * (4 * 16 + 8)


def test_block_indices_follow_the_seed_and_are_an_input() -> None:
    made = CASES["group-1"]
    (spec,) = [spec for spec in FSA.call(made).tensors if spec.name == "block_indices"]
    assert (spec.dtype, spec.role, spec.shape) == ("int32", Role.INPUT, (2, 3, 321, 5))
    first, again, other = (FSA.make_inputs(made, seed)["block_indices"] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("selection", "inputs"), [("random", "normal"), ("skewed", "outliers")])
def test_the_kernel_of_fla_core_agrees(selection: str, inputs: str) -> None:
    """It takes groups of 16 and rounds q times scale to the input type, which shows in lse."""
    pytest.importorskip("fla")
    made = SelectedCase(
        "x", 1, 32, 2, 190, 190, 128, True, "float16", inputs, block_size=32, blocks=5, selection=selection
    )  # fmt: skip
    storages = FSA.make_inputs(made, 1)
    chosen = storages["block_indices"].view(1, 2, 190, 5)
    q, k, v, chosen = (t.transpose(1, 2).contiguous() for t in (*views(made, storages).values(), chosen))
    with offline(autotune="first"):
        from fla.ops.nsa.parallel import parallel_nsa_fwd

        out, lse = parallel_nsa_fwd(q, k, v, chosen, None, made.block_size, 128**-0.5)
    for head in range(made.heads):
        expected, expected_lse, _ = forward.reference(FSA, made, storages, 0, head, torch.arange(190))
        assert (out[0, :, head].double() - expected).norm() < 1e-3 * expected.norm()
        assert (lse[0, :, head] - expected_lse).abs().max() < 2e-2
