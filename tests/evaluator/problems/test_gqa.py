import math

import pytest
import torch

from avo.evaluator.catalogue import get_problem, get_suite
from avo.evaluator.problem import Case
from avo.evaluator.problems.dense import views
from tests import forward

GQA = get_problem("gqa")
CASES = {case.name: case for case in GQA.correctness_cases}
GROUPED = [name for name, case in CASES.items() if 1 < case.kv_heads < case.heads]


def reference(case: Case, storages: dict[str, torch.Tensor]) -> torch.Tensor:
    """The output of all heads of batch 1."""
    rows = torch.arange(case.q_len)
    return torch.stack([forward.reference(GQA, case, storages, 1, head, rows)[0] for head in range(case.heads)])


@pytest.mark.parametrize("name", ["group-8-causal", "group-3-causal", "edge-1-causal", "group-4-full"])
def test_a_group_of_query_heads_attends_to_one_kv_head(name: str) -> None:
    case = CASES[name]
    storages = GQA.make_inputs(case, 1)
    q, k, v = (tensor.double() for tensor in views(case, storages).values())
    group = case.heads // case.kv_heads
    logits = torch.stack([q[1, head] @ k[1, head // group].T for head in range(case.heads)])
    logits = logits * dict(GQA.call(case).scalars)["scale"]
    if case.causal:
        hidden = torch.ones(case.q_len, case.kv_len, dtype=torch.bool).triu(case.kv_len - case.q_len + 1)
        logits = logits.masked_fill(hidden, -math.inf)
    expected = torch.stack([logits[head].softmax(-1) @ v[1, head // group] for head in range(case.heads)])
    torch.testing.assert_close(reference(case, storages), expected)


@pytest.mark.parametrize("names", ["kv", "v"])
@pytest.mark.parametrize("name", GROUPED)
def test_another_mapping_of_heads_to_kv_heads_shows(name: str, names: str) -> None:
    case = CASES[name]
    storages = GQA.make_inputs(case, 1)
    right = reference(case, storages)
    for tensor in names:
        view = views(case, storages)[tensor]
        view.copy_(view.roll(1, dims=1))  # each group reads its neighbour's keys and values
    wrong = reference(case, storages)
    assert (wrong - right).norm() > 0.1 * right.norm()


def test_groups_of_all_sizes_are_among_the_cases() -> None:
    assert {case.heads // case.kv_heads for case in CASES.values()} == {1, 2, 3, 4, 8}
    scales = {dict(GQA.call(case).scalars)["scale"] for case in CASES.values()}
    assert len(scales) > 1


def test_suites_follow_the_papers_protocol() -> None:
    paper = get_suite(GQA, "paper")
    assert len({case.name for case in paper}) == 16
    assert {case.batch * case.q_len for case in paper} == {32768}
    assert {(case.heads, case.kv_heads) for case in paper} == {(32, 4), (32, 8)}


def test_every_case_of_the_paper_has_the_published_figure_for_its_kv_heads() -> None:
    (avo,) = GQA.baselines
    assert set(avo.tflops) == {case.name for case in get_suite(GQA, "paper")}
    assert (avo.tflops["16k-full-4kv"], avo.tflops["32k-causal-8kv"]) == (1663, 1647)
