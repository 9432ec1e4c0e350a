"""Programs along one axis do what those of two axes did, each once."""

import re
from math import prod

import pytest

from avo.agents.moves import MOVES
from avo.evaluator.targets import get_target
from avo.seeds import seed_source
from tests.corpus import sample

SEED = seed_source("mha")
H100 = get_target("h100")
BY_NAME = {move.name: move for move in MOVES}


@pytest.mark.parametrize("before", sample([((),), (("reverse",),), (("swap", "reverse"),)], 3))
def test_each_block_of_each_head_is_computed_once(before: tuple[str, ...]) -> None:
    source = SEED
    for name in before:
        source = BY_NAME[name].variants(source, H100)[0].source
    for variant in BY_NAME["side"].variants(source, H100):
        block, head = (
            re.search(rf"{name} = (.*)", variant.source)[1]  # type: ignore[index]
            for name in ("block_m", "batch_head")
        )
        names = {"blocks": 3, "lists": 32, "SIDE": int(variant.label.split()[0])}
        places = [[eval(part, {**names, "program": n}) for part in (block, head)] for n in range(prod((3, 32)))]
        assert sorted(places) == [[block, head] for block in range(3) for head in range(32)]
        assert len({head for _, head in places[: names["SIDE"]]}) == names["SIDE"]
        longest_first = [block for block, _ in places[:: names["SIDE"]]]
        assert ("longest" in variant.label or "reverse" in before) == (longest_first[:3] == [2, 1, 0])
