import math
from collections import Counter
from itertools import combinations

import pytest
import torch

from avo.evaluator.catalogue import get_problem, get_suite
from avo.evaluator.errors import UnknownProblem
from avo.evaluator.plan import Role
from avo.evaluator.problem import Case
from avo.evaluator.problems.dense import published
from avo.evaluator.problems.inputs import pool_storage
from tests import forward

MHA = get_problem("mha")
CASES = {case.name: case for case in MHA.correctness_cases}


def views(case: Case, seed: int = 1) -> dict[str, torch.Tensor]:
    storages = MHA.make_inputs(case, seed)
    return {
        spec.name: storages[spec.name].as_strided(spec.shape, spec.held.strides)
        for spec in MHA.call(case).tensors
        if spec.role is Role.INPUT
    }


def textbook(case: Case, view: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention by the definition, in float64: (out, lse)."""
    q, k, v = (view[name].double() for name in "qkv")
    logits = q @ k.transpose(2, 3) * (case.scale or 1 / math.sqrt(case.head_dim))
    if case.causal:
        hidden = torch.ones(case.q_len, case.kv_len, dtype=torch.bool).triu(case.kv_len - case.q_len + 1)
        logits = logits.masked_fill(hidden, -math.inf)
    return torch.softmax(logits, -1) @ v, torch.logsumexp(logits, -1)


@pytest.mark.parametrize("name", CASES)
def test_reference_is_the_definition(name: str) -> None:
    case = CASES[name]
    view = views(case)
    out, lse = textbook(case, view)
    storages = MHA.make_inputs(case, 1)
    rows = torch.tensor([0, case.q_len // 2, case.q_len - 1])
    for head in range(case.heads):
        got, got_lse, attainable = forward.reference(MHA, case, storages, 1, head, rows)
        torch.testing.assert_close(got, out[1, head, rows])
        torch.testing.assert_close(got_lse, lse[1, head, rows])
        assert (attainable <= 0.01 * got.norm(dim=1)).all()


@pytest.mark.parametrize("name", CASES)
def test_inputs_are_finite_and_follow_the_seed(name: str) -> None:
    first, again, other = views(CASES[name]), views(CASES[name]), views(CASES[name], seed=2)
    for tensor in first:
        assert first[tensor].isfinite().all()
        assert torch.equal(first[tensor], again[tensor])
        assert not torch.equal(first[tensor], other[tensor])


def test_rising_logits_cross_the_range_of_float32_exp_either_way() -> None:
    case = CASES["rising-full"]
    view = views(case)
    logits = (view["q"].double() @ view["k"].double().transpose(2, 3)) / math.sqrt(case.head_dim)
    first, last = logits[..., :64].amax(-1), logits[..., -64:].amax(-1)
    assert (last[:, 0] - first[:, 0] > 100).all()
    assert (first[:, 1] - last[:, 1] > 100).all()


def test_large_logits_leave_the_range_of_float32_exp() -> None:
    case = CASES["large-full"]
    view = views(case)
    logits = (view["q"].double() @ view["k"].double().transpose(2, 3)) / math.sqrt(case.head_dim)
    assert logits.max() > 89
    assert logits.min() < -89


def test_every_key_tile_is_dominant_for_some_query() -> None:
    case = CASES["square-causal"]
    view = views(case)
    logits = view["q"].double() @ view["k"].double().transpose(2, 3)
    tiles = logits.argmax(-1).flatten() // 32
    assert set(tiles.tolist()) == set(range(case.kv_len // 32))


def test_padding_between_rows_is_poison() -> None:
    case = CASES["padded-causal"]
    storage = MHA.make_inputs(case, 1)["k"]
    assert storage.isnan().sum() == storage.numel() - views(case)["k"].numel()


def test_layouts_have_the_strides_they_name() -> None:
    spec = MHA.call(CASES["odd-causal"]).tensors[0]
    _batch, heads, length, dim = spec.shape
    assert spec.strides == (length * heads * dim, dim, heads * dim, 1)
    assert heads > 1


def test_suites_follow_the_papers_protocol() -> None:
    paper = get_suite(MHA, "paper")
    assert len(paper) == 8
    assert {case.batch * case.q_len for case in paper} == {32768}
    assert set(get_suite(MHA, "quick")) < set(paper)
    assert len(get_suite(MHA, "quick")) == 2


def test_flops_are_halved_when_causal() -> None:
    full, causal = (next(c for c in get_suite(MHA, "paper") if c.name == f"4k-{kind}") for kind in ("full", "causal"))
    assert MHA.flops(full) == 4 * 8 * 16 * 4096**2 * 128
    assert MHA.flops(causal) * 2 == MHA.flops(full)


def test_least_bytes_count_each_tensor_once() -> None:
    case = get_suite(MHA, "paper")[0]
    assert MHA.least_bytes(case) == 4 * 2 * 32768 * 16 * 128 + 4 * 32768 * 16


def test_tiled_storage_has_nothing_that_one_head_could_take_from_another() -> None:
    """Rows that come back in the same order, wherever, would be computed once and copied."""
    storage = pool_storage("k", 4 * 8192 * 128, 128, torch.bfloat16, 3).view(4 * 8192, 128)
    known: dict[bytes, list[int]] = {}
    for place, row in enumerate(storage.view(torch.int16).numpy()):
        known.setdefault(row.tobytes(), []).append(place)
    distances = Counter(b - a for places in known.values() for a, b in combinations(places, 2))
    assert max(distances.values()) < 0.001 * len(storage)


def test_one_query_in_sixteen_is_long() -> None:
    storage = pool_storage("q", 4 * 8192 * 128, 128, torch.bfloat16, 3).view(-1, 128)
    assert (storage.float().norm(dim=1) > 100).float().mean() == pytest.approx(1 / 16, abs=0.005)


def test_baselines_name_cases_of_the_suite_and_a_source() -> None:
    names = {case.name for case in get_suite(MHA, "paper")}
    for baseline in MHA.baselines:
        assert set(baseline.tflops) <= names
        assert "arXiv" in baseline.source


def test_a_published_figure_stands_at_the_length_it_is_of() -> None:
    found = published("x", "h100", (1.0, 2.0), (3.0, 4.0), "a paper", lengths_k=(8, 16))
    assert found.tflops == {"8k-full": 1.0, "16k-full": 2.0, "8k-causal": 3.0, "16k-causal": 4.0}
    with pytest.raises(ValueError, match="shorter"):
        published("x", "h100", (1.0, 2.0), (3.0,), "a paper", lengths_k=(8, 16))
    hopper = [baseline for baseline in MHA.baselines if baseline.target == "h100"]
    assert all({case.split("-")[0] for case in baseline.tflops} == {"4k", "8k", "16k"} for baseline in hopper)


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownProblem, match="unknown problem 'mla': choose one of decode, fsa,"):
        get_problem("mla")
    with pytest.raises(UnknownProblem, match="unknown suite 'slow': choose one of quick, paper"):
        get_suite(MHA, "slow")
