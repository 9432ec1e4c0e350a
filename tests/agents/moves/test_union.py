"""Moves to the order over what neighbours select together: from each other order, correct in all tiles, with roles."""

from pathlib import Path

import pytest

from avo.agents.moves import MOVES
from avo.evaluator.catalogue import get_problem
from avo.evaluator.target import Target
from avo.evaluator.targets import get_target
from avo.seeds import seed_source
from bench.orders import module_of
from tests.evaluator.problems.offline_kernel import fault_of

H100, B200 = get_target("h100"), get_target("b200")
BY_NAME = {move.name: move for move in MOVES}
UNION = seed_source("fsa", "query_union")


@pytest.mark.parametrize(
    ("problem", "seed"), [("fsa", "query_outer"), ("fsa", "kv_outer"), ("fsa-sinks-packed", "general")]
)
def test_any_other_order_becomes_that_of_the_union(problem: str, seed: str) -> None:
    (made,) = BY_NAME["query-union"].variants(seed_source(problem, seed), H100)
    assert made.source == UNION
    assert BY_NAME["query-union"].variants(UNION, H100) == ()


@pytest.mark.parametrize("seed", [("mha", "plain"), ("fsa_backward", "kv_outer"), ("fsa_backward-packed", "general")])
def test_what_is_no_forward_pass_of_selected_attention_is_left_alone(seed: tuple[str, str]) -> None:
    source = seed_source(*seed)
    assert [BY_NAME[name].variants(source, B200) for name in ("query-union", "union-roles")] == [(), ()]


def test_roles_are_for_blackwell_and_descriptors_for_hopper_and_both_are_switched_on_once() -> None:
    found = {name: BY_NAME["union-roles"].variants(UNION, get_target(name)) for name in ("a100", "h100", "b200")}
    assert found["a100"] == ()
    assert [v.label.split(",")[0] for v in found["h100"]] == ["DESCRIPTORS False -> True"] * 2
    assert [v.label.split(",")[0] for v in found["b200"]] == ["ROLES False -> True"] * 4
    assert BY_NAME["union-roles"].variants(found["b200"][0].source, B200) == ()


def test_other_switches_are_not_those_of_the_seed() -> None:
    other = UNION.replace("ROLES = False\n", "ROLES = False\nFAST = False\n")
    assert other != UNION
    assert BY_NAME["union-roles"].variants(other, B200) == ()


@pytest.mark.long
@pytest.mark.parametrize("problem", ["fsa-local", "fsa-d64-fp16-sinks-packed"])
@pytest.mark.parametrize(("name", "target"), [("union-roles", B200), ("union-roles", H100), ("tile", H100)])
def test_what_moves_make_of_the_union_is_correct_in_settings(
    problem: str, name: str, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    found = get_problem(problem)
    for variant in BY_NAME[name].variants(UNION, target)[:2]:
        module = module_of(variant.source, tmp_path)
        cases = [case for case in found.correctness_cases if case.q_len > 1][::3]
        wrong = {case.name: fault_of(found, case, module) for case in cases}
        assert wrong == dict.fromkeys(wrong), variant.label
