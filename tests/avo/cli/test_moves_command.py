"""``avo moves``: every move with what it needs, and what it makes of a seed."""

import json

import pytest

from avo.agents.moves import MOVES
from tests.avo.cli.conftest import Avo


@pytest.mark.parametrize("problem", ["gqa", pytest.param("fsa", marks=pytest.mark.long)])
def test_every_move_is_listed_with_what_it_makes_of_the_seed(avo: Avo, problem: str) -> None:
    told = json.loads(avo("moves", "--problem", problem, "--json").stdout)
    assert [each["move"] for each in told["moves"]] == [move.name for move in MOVES]
    assert all(each["needs"] and each["hypothesis"] for each in told["moves"])
    applicable = {each["move"] for each in told["moves"] if each["variants"]}
    assert applicable > {"exp2", "lazy", "persistent"}
    assert ("skip" in applicable) is (problem != "fsa")


def test_another_seed_can_be_named(avo: Avo) -> None:
    text = avo("moves", "--seed-kernel", "tuned").stdout
    assert "Moves of mutate on the seed 'tuned' of mha, for h100" in text
    assert "BLOCK_M 128 -> 256" in text


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--seed-kernel", "nope"], "'nope' should be one of plain, tuned"),
        (["--problem", "gqa-d96", "--seed-kernel", "tuned"], "'tuned' should be one of plain, general"),
        (["--target", "tpu"], "unknown target 'tpu'"),
        (["--problem", "fft"], "unknown problem 'fft'"),
        (["--problem", "mha-d80"], "head dim 80 is not served"),
    ],
)
def test_a_wrong_call_is_one_line(avo: Avo, arguments: list[str], part: str) -> None:
    result = avo("moves", *arguments)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert part in result.stderr
