"""The table of what moves make of the seeds in Gluon can be made."""

import pytest

from bench.gluon import ALONE, SEEDS, moved


@pytest.mark.parametrize("target", SEEDS)
def test_every_move_of_the_table_applies_to_its_seed_and_makes_another_kernel(target: str) -> None:
    seed, _ = SEEDS[target]
    found = dict(moved(target, seed))
    assert len(set(found.values())) == len(found)
    assert {name for name in ALONE[target] if any(what.startswith(f"`{name}`: ") for what in found)} == set(
        ALONE[target]
    )
