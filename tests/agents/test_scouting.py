"""Looks of the operator ``mutate``: many edits are predicted, the best is evaluated, and nothing is looked at twice."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import libcst as cst
import pytest

from avo.agents.moves.anatomy import Anatomy
from avo.agents.moves.move import Move
from avo.agents.mutate import Mutate
from avo.agents.scouting import LOOKS, most_looks
from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import CaseScore, Score
from avo.evaluator.target import ScoreKind, Target
from tests.agents.test_mutate import SEED, World, told


def adding(name: str, *numbers: int) -> Move:
    """A move that adds a line ``name = number``, once."""

    def edit(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
        code = anatomy.module.code
        for number in numbers if f"{name} = " not in code else ():
            yield f"to {number}", cst.parse_module(f"{code}\n{name} = {number}\n")

    return Move(name, "", 0.1, "", edit)


MOVES = [adding(name, 1, 2, 3) for name in ("alpha", "beta", "gamma")]


def additive(source: str) -> float:
    """Each line that a move added is worth ten times its number; beta 3 does not fit."""
    lines = [line.partition(" = ") for line in source.splitlines()]
    if "beta = 3" in source:
        return 0.0
    return 100.0 + sum(10.0 * int(value) for name, _, value in lines if name in ("alpha", "beta", "gamma"))


def fastest(world: World) -> float:
    return max(attempt.geomean_tflops for attempt in world.attempts)


def test_moves_that_pay_are_seen_together_and_only_the_best_is_evaluated() -> None:
    world = World(score=additive, predict=additive)
    proposal = world.step(1, Mutate(MOVES), looks=24)
    assert proposal.attempt is world.last
    assert {part.partition(":")[0] for part in world.last.change.split("; ")} == {"alpha", "beta", "gamma"}
    assert (len(world.attempts), len(world.looks)) == (1, 24)
    assert world.last.evaluation.geomean_tflops == max(look.geomean_tflops for look in world.looks)
    assert fastest(world) >= 160.0


@pytest.mark.long
def test_equal_briefs_give_equal_looks() -> None:
    worlds = [World(score=additive, predict=additive) for _ in range(2)]
    for world in worlds:
        for seed in range(2):
            world.step(seed, Mutate(MOVES), looks=4)
    first, second = ([(look.digest, look.change) for look in world.looks] for world in worlds)
    assert first == second
    assert worlds[0].attempts == worlds[1].attempts


@pytest.mark.long
def test_what_earlier_steps_saw_is_not_looked_at_again_and_is_built_on_and_evaluated() -> None:
    world = World(score=additive, predict=additive)
    for seed in range(5):
        world.step(seed, Mutate(MOVES[:2]), looks=3)  # the world refuses to look at anything twice
    assert fastest(world) == pytest.approx(150.0)
    tried = {attempt.digest for attempt in world.attempts}
    best = max((look for look in world.looks if look.digest not in tried), key=lambda look: look.geomean_tflops)
    world.step(5, Mutate(MOVES[:2]), looks=3)
    assert len(world.looks) == 18
    assert world.last.evaluation.geomean_tflops == best.geomean_tflops


def test_a_version_is_edited_with_what_was_seen_on_the_way_to_it() -> None:
    world = World(score=additive, predict=additive)
    first = world.step(1, Mutate(MOVES[:1]), looks=9)
    assert first.attempt is not None
    world.accept(first.attempt)
    assert {look.change for look in world.looks} == {"alpha: to 1", "alpha: to 2", "alpha: to 3"}
    world.step(3, Mutate(MOVES[:2]), looks=4)
    assert (world.last.change, world.last.parents) == ("beta: to 2", (1,))
    world.step(2, Mutate(MOVES[:2]), told(restart_from=0), looks=1)  # to the seed, and what is not beyond version 1
    assert world.last.parents == (0,)
    assert "alpha: to 3" not in world.last.change
    assert fastest(world) == pytest.approx(150.0)


@pytest.mark.long
def test_sources_that_are_equally_fast_leave_room_for_a_slower_one() -> None:
    """Eight moves change nothing; two pay together, of which the first alone does harm, and the second needs it."""

    def edit(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
        if "first = 1" in anatomy.module.code and "second" not in anatomy.module.code:
            yield "after the first", cst.parse_module(f"{anatomy.module.code}\nsecond = 1\n")

    def speed(source: str) -> float:
        return 120.0 if "second" in source else 92.0 if "first" in source else 100.0

    idle = [adding(f"idle_{letter}", 1) for letter in "abcdefgh"]
    moves = [*idle, adding("first", 1), Move("second", "", 0.1, "", edit)]
    for seed in range(3):
        world = World(score=speed, predict=speed)
        world.step(seed, Mutate(moves), looks=24)
        assert fastest(world) == pytest.approx(120.0)


@pytest.mark.long
def test_looks_go_where_most_is_expected_also_from_a_slower_seed() -> None:
    """Slow is slower by half, but a move that it alone allows is worth much."""

    def edit(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
        if "slow = 1" in anatomy.module.code and "plan" not in anatomy.module.code:
            yield "all at once", cst.parse_module(f"{anatomy.module.code}\nplan = 1\n")

    def speed(source: str) -> float:
        return additive(source) * (0.5 if "slow" in source else 1.0) * (4.0 if "plan" in source else 1.0)

    plan = Move("plan", "", 1.0, "", edit)
    for seed in range(3):
        world = World(score=speed, predict=speed)
        world.versions.clear()
        for source in (f"{SEED}\nslow = 1\n", SEED):
            world.accept(world.attempt(Candidate("mha", source), speed(source), "seed", ()))
        world.step(seed, Mutate([*MOVES, plan]), looks=12)
        assert "plan" in world.looks[0].change
        assert {look.parents for look in world.looks} == {(0,), (1,)}
        assert world.last.change.startswith("plan: all at once; ")


@pytest.mark.long
def test_an_attempt_says_which_earlier_one_it_adds_to() -> None:
    world = World(score=additive, predict=additive)
    for seed in range(4):
        world.step(seed, Mutate(MOVES), looks=3)
    made = {attempt.attempt_id: attempt for attempt in world.attempts}
    based = [attempt for attempt in world.attempts if attempt.built_on]
    assert based
    for attempt in world.attempts:
        earlier = [each for each in made.values() if attempt.change.startswith(f"{each.change}; ")]
        longest = max(earlier, key=lambda each: len(each.change), default=None)
        assert attempt.built_on == (longest.attempt_id if longest else None)


@pytest.mark.long
def test_what_includes_a_change_that_was_wrong_is_not_evaluated() -> None:
    world = World(score=lambda source: 0.0 if "alpha = 3" in source else additive(source), predict=additive)
    for seed in range(5):
        world.step(seed, Mutate(MOVES[:2]), looks=4)
    assert [attempt.geomean_tflops > 0 for attempt in world.attempts].count(False) == 1
    assert fastest(world) == pytest.approx(140.0)


@pytest.mark.long
def test_what_a_look_saw_to_be_faulty_or_of_the_same_plan_is_not_evaluated() -> None:
    world = World(score=additive, predict=additive, plan=lambda source: str(additive(source)))
    for seed in range(4):
        world.step(seed, Mutate(MOVES[:2]), looks=4)
    speeds = [attempt.geomean_tflops for attempt in world.attempts]
    assert all(speeds)
    assert len(set(speeds)) == len(speeds)


def test_doubts_count_against_what_is_evaluated() -> None:
    world = World(score=additive, predict=additive)
    found = world.look

    def look(variations):  # type: ignore[no-untyped-def]
        for each, seen in zip(variations, found(variations), strict=True):
            doubt = 2.0 if "alpha" in each.candidate.source else 1.0
            case = CaseScore("a", additive(each.candidate.source), 1.0, "", doubt=doubt)
            yield replace(seen, score=Score(ScoreKind.PREDICTED, "h100", (case,))) if seen.score else seen

    world.look = look  # type: ignore[method-assign]
    world.step(1, Mutate(MOVES), looks=24)
    assert "alpha" not in world.last.source


def test_where_speed_is_measured_the_parent_is_looked_at_too_and_predictions_are_compared_with_predictions() -> None:
    world = World(score=lambda source: additive(source) / 10, predict=additive)
    attempt = world.versions[0].attempt
    measured = Score(ScoreKind.MEASURED, "cuda", (CaseScore("a", 500.0, 1.0, ""),))
    evaluation = replace(attempt.evaluation, score=measured)
    world.versions[0] = replace(world.versions[0], attempt=replace(attempt, evaluation=evaluation))
    world.step(1, Mutate(MOVES), looks=5)
    assert [look.change for look in world.looks].count("") == 1
    assert world.looks[0].digest == attempt.digest
    world.step(2, Mutate(MOVES), looks=5)
    assert [look.change for look in world.looks].count("") == 1
    assert world.attempts[0].change in {look.change for look in world.looks}


def test_without_looks_and_where_they_say_nothing_an_edit_is_drawn_as_ever() -> None:
    blind, seeing = World(), World(predict=lambda source: 0.0)
    for world, looks in ((blind, 0), (seeing, 3)):
        assert world.step(1, Mutate(MOVES), looks=looks).attempt is world.last
    assert blind.looks == []
    assert len(seeing.looks) == 3
    assert world.last.digest not in {look.digest for look in seeing.looks}


def test_looks_take_half_of_the_time_that_a_step_has() -> None:
    world = World(score=additive, predict=additive)
    world.step(1, Mutate(MOVES), looks=16)
    for look in world.looks[8:]:
        world.looks[look.look_id - 1] = replace(look, made=look.made + timedelta(seconds=80))
    brief = world.brief(2)
    assert most_looks(brief, None) == LOOKS
    assert most_looks(replace(brief, minutes=2.0), None) == 6, "a look took ten seconds"
    assert most_looks(replace(brief, minutes=2.0), 3) == 3
    assert most_looks(replace(brief, minutes=0.1), None) == 0
    assert most_looks(replace(brief, minutes=2.0, looks=brief.looks[:8]), None) == LOOKS, (
        "that one batch took is unknown"
    )


def test_a_step_that_has_no_time_to_look_evaluates_the_best_that_was_seen() -> None:
    world = World(score=additive, predict=additive)
    world.step(1, Mutate(MOVES), looks=16)
    world.looks[8:] = [replace(look, made=look.made + timedelta(hours=1)) for look in world.looks[8:]]
    seen = max(look.geomean_tflops for look in world.looks if look.digest != world.last.digest)
    Mutate(MOVES).vary(replace(world.brief(2, looks=24), minutes=1.0))
    assert len(world.looks) == 16
    assert world.last.evaluation.geomean_tflops == seen


def test_an_edit_that_is_seen_to_be_slower_is_not_judged_unless_the_step_before_tried_nothing_either() -> None:
    slower = lambda source: 100.0 - 5 * sum(f"{name} = " in source for name in ("alpha", "beta"))  # noqa: E731
    world = World(score=slower, predict=slower)
    proposal = world.step(1, Mutate(MOVES[:2]), looks=4)
    assert proposal.attempt is None
    assert world.attempts == []
    assert re.fullmatch(
        r"\d edits were looked at and none is ahead of version 0: the best has -\d+\.\d%", proposal.reason
    )
    proposal = world.step(2, Mutate(MOVES[:2]), looks=4)
    assert len(world.attempts) == 1
    assert world.last.evaluation.geomean_tflops < 100


def test_an_edit_that_is_about_as_fast_as_the_best_is_not_judged() -> None:
    equal = lambda source: 100.3 if "alpha" in source else 100.0  # noqa: E731
    world = World(score=equal, predict=equal)
    assert world.step(1, Mutate(MOVES[:1]), looks=4).attempt is None
