"""Directions: what is known of one comes with it from run to run, and a file that is no memory is told in one line."""

import json
from dataclasses import replace
from typing import Any

import pytest

from avo.evaluator.target import ScoreKind
from avo.lineage_db.directions import FORMAT, Direction, Evidence, from_file, merged, to_file
from avo.lineage_db.errors import BadMemory

LOOK = Evidence(3, ScoreKind.PREDICTED, 0.031, 0.017, resolved=True, base="version 2", digest="d")
FAULT = Evidence(4, ScoreKind.PREDICTED, said="compile error: out of registers", attempts=(7,))
ROLES = Direction("roles", "loads wait for products.", (LOOK, FAULT))


def test_a_direction_says_its_outcome_first_and_where_it_was_seen() -> None:
    assert ROLES.words == (
        "roles: +3.1% ± 1.7% over version 2, predicted (step 3, not executed); compile error: out of registers "
        "(step 4, attempt 7). Hypothesis: loads wait for products."
    )
    tie = replace(LOOK, gain=0.004, resolved=False, said="spills", run="mha-h100", problem="mha", target="h100")
    assert tie.words == (
        "not resolved, +0.4% ± 1.7% over version 2, predicted; spills (run mha-h100, mha on h100, not executed)"
    )
    assert Direction("pages", "prefetch").words == "pages: not tested. Hypothesis: prefetch."


def test_a_file_keeps_all_and_says_where_each_test_was_made() -> None:
    elsewhere = replace(FAULT, run="old", problem="mha", target="a100")
    data = to_file([Direction("roles", "why", (LOOK, elsewhere))], "new", "gqa", "h100")
    assert (data["format"], data["run"]) == (FORMAT, "new")
    (found,) = from_file(json.dumps(data | {"notes": [], "later": 1}))
    assert found.evidence == (replace(LOOK, run="new", problem="gqa", target="h100"), elsewhere)
    (idea,) = from_file(json.dumps(to_file([Direction("pages", "prefetch")], "old", "mha", "h100")))
    assert idea.placed("new", "gqa", "h100").words == "pages: not tested in run old. Hypothesis: prefetch."
    assert merged([idea, ROLES])[0] == idea, "it is still the other run's"


def test_directions_of_one_name_are_one_and_no_test_is_told_twice() -> None:
    again = Direction("Roles ", "another", (LOOK, replace(LOOK, step=9)))
    assert merged([ROLES, Direction("pages", ""), again, Direction("pages", "prefetch")]) == [
        Direction("roles", ROLES.hypothesis, (LOOK, FAULT, replace(LOOK, step=9))), Direction("pages", "prefetch"),
    ]  # fmt: skip


def _file(**change: Any) -> str:
    evidence = {"step": 0, "kind": "predicted", "run": "r", "gain": 0.1, "base": "", "attempts": []}
    direction = {"name": "roles", "hypothesis": "why", "evidence": [evidence]}
    for place in (evidence, direction):
        place.update({key: value for key, value in change.items() if key in place})
    return json.dumps({"format": FORMAT, "directions": [direction]})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "its format is None"),
        ('{"format": "avo memory 2"}', "its format is 'avo memory 2', not 'avo memory 1'"),
        (json.dumps({"format": FORMAT}), "Expected `array`, got `null`"),
        (_file(gain="much"), "$[0].evidence[0].gain"),
        (_file(kind="dreamt"), "$[0].evidence[0].kind"),
        (_file(name=" "), "no name"),
        (_file(hypothesis="x" * 4001), "over 4000 characters"),
        (_file(base="x" * 4001), "over 4000 characters"),
        (_file(attempts=list(range(4001))), "or entries in a list"),
        (" " * 20_000_001, "it is larger than 20 MB"),
        (_file(gain=10**400), "out of range"),
        (_file(gain=float("inf")), "a figure that is no number"),
        (_file(run=""), "of which run it is"),
    ],
)
def test_a_file_that_is_no_memory_is_told_in_one_line(text: str, words: str) -> None:
    with pytest.raises(BadMemory) as found:
        from_file(text)
    assert words in str(found.value)
    assert "\n" not in str(found.value)
    assert from_file(_file())[0].name == "roles"
