"""Roles for warps: the plan makes what it needs, takes back what is in its way, and knows what Triton refuses."""

from collections.abc import Callable

import pytest

from avo.agents.moves import MOVES
from avo.evaluator.target import Target
from avo.evaluator.targets import get_target
from avo.seeds import seed_source
from tests.corpus import sample

SEED = seed_source("mha")
H100, B200 = get_target("h100"), get_target("b200")
BY_NAME = {move.name: move for move in MOVES}


def apply(source: str, *names: str) -> str:
    for name in names:
        source = BY_NAME[name].variants(source, H100)[0].source
    return source


def test_the_plan_makes_what_it_needs_as_one_edit() -> None:
    planned, prepared = BY_NAME["specialise"].variants(SEED, H100)[0], SEED
    for move in BY_NAME["specialise"].first:
        for variant in move.variants(prepared, H100)[:1]:
            prepared = variant.source
    alone = BY_NAME["specialise"].variants(prepared, H100)[0]
    assert planned.source == alone.source
    assert planned.label.endswith(alone.label)
    assert planned.label.startswith("skip fully masked blocks, exp2")


@pytest.mark.long
@pytest.mark.parametrize("before", [("split", "exp2"), ("descriptors", "skip"), ("split", "descriptors", "reverse")])
def test_the_plan_takes_back_what_is_in_its_way(before: tuple[str, ...], complaint: Callable[..., str]) -> None:
    """On Hopper roles need one loop, and descriptors made in the kernel."""
    source = apply(SEED, *before, "specialise")
    assert source.count("tl.range(") == 1
    assert "k_desc" not in source
    assert complaint(source) == ""


@pytest.mark.long
def test_scores_are_computed_ahead_on_blackwell_only() -> None:
    """Hopper's pass refuses scores that are carried from pass to pass."""
    assert "next tile" in BY_NAME["specialise"].variants(SEED, B200)[0].label
    assert not any("next tile" in variant.label for variant in BY_NAME["specialise"].variants(SEED, H100))


@pytest.mark.long
def test_hopper_gets_no_roles_for_products_outside_the_loop_or_for_four_of_them() -> None:
    """Its pass takes exactly one pair of products."""
    assert BY_NAME["specialise"].variants(apply(SEED, "skew"), H100) == ()
    assert BY_NAME["specialise"].variants(apply(SEED, "pingpong"), H100) == ()


@pytest.mark.long
@pytest.mark.parametrize("target", sample([B200, H100], 2), ids=lambda target: target.name)
def test_a_loop_that_branches_on_data_gets_no_roles(target: object) -> None:
    assert BY_NAME["specialise"].variants(apply(SEED, "lazy"), target) == ()  # type: ignore[arg-type]


@pytest.mark.long
def test_tensors_that_descriptors_cannot_read_are_loaded_by_pointers(complaint: Callable[..., str]) -> None:
    source = apply(SEED, "device-descriptors")
    assert complaint(source) == ""  # one of the cases has rows of an odd number of bytes
    assert complaint(source.replace("DESCRIPTORS=describable(q, k, v)", "DESCRIPTORS=True")) != ""


@pytest.mark.long
@pytest.mark.parametrize(
    ("target", "broken"),
    [(H100, {"split", "skew", "pingpong", "shape", "warps", "lazy"}), (B200, {"split", "skew", "shape", "lazy"})],
    ids=["h100", "b200"],
)
def test_what_breaks_the_pass_is_no_move_once_warps_have_roles(target: Target, broken: set[str]) -> None:
    plain, *_ = (variant.source for variant in BY_NAME["specialise"].variants(SEED, H100))
    before = apply(SEED, "descriptors", "exp2")
    assert {name for name in broken if not BY_NAME[name].variants(before, target)} == set()
    assert {name for name in broken if BY_NAME[name].variants(plain, target)} == set()
