"""Dataclasses from plain data: what ``asdict`` and JSON make of them comes back, anything else is refused."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pytest

from evaluator.plain import rebuild
from evaluator.target import ScoreKind, Target
from evaluator.targets import get_target


@dataclass(frozen=True)
class Leaf:
    name: str
    size: float = 1.0


@dataclass(frozen=True)
class Tree:
    kind: ScoreKind
    leaves: tuple[Leaf, ...]
    shares: Mapping[str, float]
    span: tuple[int, int]
    best: Leaf | None
    number: int | None


TREE = Tree(ScoreKind.PREDICTED, (Leaf("a"), Leaf("b", 2.5)), {"x": 0.5}, (1, 2), Leaf("c"), None)
DATA: dict[str, Any] = json.loads(json.dumps(asdict(TREE)))


def test_what_json_made_of_a_dataclass_comes_back() -> None:
    assert rebuild(Tree, DATA) == TREE
    assert rebuild(Target, json.loads(json.dumps(asdict(get_target("b200"))))) == get_target("b200")


def test_a_field_with_a_default_may_be_missing_and_a_whole_number_is_a_float() -> None:
    assert rebuild(Leaf, {"name": "a"}) == Leaf("a")
    size = rebuild(Leaf, {"name": "a", "size": 2}).size
    assert (size, type(size)) == (2.0, float)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kind": "guessed"}, "guessed"),
        ({"leaves": [{"name": 1}]}, "Leaf.name cannot be '1'"),
        ({"leaves": {"name": "a"}}, "Tree.leaves"),
        ({"shares": {"x": "much"}}, "Tree.shares cannot be 'much'"),
        ({"span": [1, 2, 3]}, "Tree.span"),
        ({"span": [1, True]}, "Tree.span cannot be 'True'"),
        ({"best": []}, "Leaf is an object"),
        ({"more": 1}, "unknown or missing: more"),
    ],
)
def test_other_data_is_refused_with_the_place(change: dict[str, Any], named: str) -> None:
    with pytest.raises((TypeError, ValueError), match=named):
        rebuild(Tree, DATA | change)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(TypeError, match="Tree: unknown or missing: best"):
        rebuild(Tree, {key: value for key, value in DATA.items() if key != "best"})
