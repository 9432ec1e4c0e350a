"""Statements change places only where neither assigns what the other mentions."""

import pytest

from avo.agents.moves import MOVES
from avo.evaluator.targets import get_target
from avo.seeds import seed_source

SEED = seed_source("mha")
BY_NAME = {move.name: move for move in MOVES}


def test_a_statement_goes_as_far_as_what_it_depends_on_allows() -> None:
    made = {variant.label: variant.source for variant in BY_NAME["reorder"].variants(SEED, get_target("h100"))}
    later, earlier = made["row_sum computed later"], made["v computed earlier"]
    assert later.index("acc = tl.dot(") < later.index("row_sum = row_sum * rescale") < later.index("    out = acc")
    assert earlier.index("v = tl.load(") < earlier.index("k = tl.load(")
    assert earlier.index("offs_n = start_n") < earlier.index("v = tl.load(")


def test_a_loop_with_other_statements_than_assignments_is_left_alone() -> None:
    foreign = SEED.replace("row_sum = row_sum * rescale + tl.sum(p, 1)", "row_sum += tl.sum(p, 1) - row_sum")
    assert foreign != SEED
    assert BY_NAME["reorder"].variants(foreign, get_target("h100")) == ()


@pytest.mark.long
def test_order_is_left_to_roles_where_they_take_statements_apart() -> None:
    b200 = get_target("b200")
    assert BY_NAME["reorder"].variants(BY_NAME["specialise"].variants(SEED, b200)[0].source, b200) == ()
