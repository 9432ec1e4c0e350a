"""Tuners as operators: the space of ``mutate``, looks that are spent like its own, and a sampler that learns."""

import pytest

pytest.importorskip("optuna")

from bench.search.tuners import Tuner
from tests.agents.test_mutate import World
from tests.agents.test_scouting import MOVES, additive

pytestmark = pytest.mark.long


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_a_tuner_spends_its_looks_on_compositions_and_evaluates_the_best(name: str) -> None:
    world = World(score=additive, predict=additive)
    tuner = Tuner(name, 0, MOVES)
    for step in range(2):
        proposal = world.step(step, tuner, looks=10)  # type: ignore[arg-type]
        assert proposal.attempt is world.last
    assert len(world.looks) == 20
    assert max(len(look.change.split("; ")) for look in world.looks) > 1
    best, second = sorted((look.geomean_tflops for look in world.looks), reverse=True)[:2]
    assert best in {attempt.geomean_tflops for attempt in world.attempts}
    assert all(attempt.geomean_tflops >= second * 0.8 for attempt in world.attempts)


def test_a_tuner_says_when_there_is_nothing_new() -> None:
    world = World(score=additive, predict=additive)
    tuner = Tuner("random", 0, MOVES[:1])
    proposals = [world.step(step, tuner, looks=24) for step in range(5)]  # type: ignore[arg-type]
    assert len(world.looks) == 3
    assert [proposal.attempt is not None for proposal in proposals] == [True, True, True, False, False]
