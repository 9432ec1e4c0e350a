"""The directions of a run: each with all that is known of it, and the weightiest findings first."""

from dataclasses import replace

from avo.agents.directions import MOST_TAKEN, directions, strongest, weight
from avo.evaluator.resolution import ALONE
from avo.evaluator.target import ScoreKind
from avo.lineage_db.decision import Decision, Ruling
from avo.lineage_db.directions import Direction, Evidence
from avo.lineage_db.entries import Memory
from tests.agents.world import UNRESOLVED, World
from tests.avo.fakes import NOW

LOOK = Evidence(1, ScoreKind.PREDICTED, 0.1, 0.02, resolved=True)


def listed(*found: Direction) -> list[Memory]:
    return [Memory(number, 1, 1, each.words, NOW, direction=each) for number, each in enumerate(found, start=1)]


def test_each_hypothesis_is_a_direction_with_its_gain_and_the_resolution_of_its_comparison() -> None:
    world = World()
    world.accept("tflops = 110.0", (0,), "larger tiles reuse more")
    world.fail("nonsense", "shorter is faster")
    world.fail("tflops = 99.0")
    world.fail("tflops = 105.6", "one barrier less", replace(UNRESOLVED, resolution=0.07))
    tiles, shorter, barrier = directions([Memory(1, 1, 2, "a note", NOW)], world.attempts, world.versions)
    assert [each.hypothesis for each in (tiles, shorter)] == ["larger tiles reuse more", "shorter is faster"]
    (found,) = tiles.evidence
    assert (round(found.gain or 0, 6), found.resolution, found.resolved) == (0.1, ALONE, True)
    assert (found.attempts, found.base, found.step) == ((2,), "version 0", 2)
    assert shorter.evidence[0].said == "parse error: not a kernel: nonsense"
    assert not shorter.evidence[0].resolved
    (found,) = barrier.evidence
    assert (found.resolution, found.resolved) == (0.07, False)
    assert found.said.startswith("unresolved: +5.6% in the mean over version 0")


def test_an_attempt_belongs_to_the_direction_that_it_names_or_whose_test_it_is() -> None:
    world = World()
    world.fail("tflops = 105.0", "by its source")
    world.fail("tflops = 106.0", "by its words")
    world.fail("tflops = 107.0", "its own")
    world.attempts[2] = replace(world.attempts[2], change="Pages: read ahead")
    tested = Direction("roles", "loads wait", (replace(LOOK, digest=world.attempts[1].digest),))
    found = directions(listed(tested, Direction("pages", "prefetch")), world.attempts, world.versions)
    assert [(each.name, each.hypothesis) for each in found] == [
        ("roles", "loads wait"), ("pages", "prefetch"), ("to tflops = 107.0", "its own"),
    ]  # fmt: skip
    assert [[one.attempts for one in each.evidence] for each in found] == [[(), (2,)], [(3,)], [(4,)]]


def test_what_was_taken_over_comes_under_one_name_with_the_run_s_own() -> None:
    there = replace(LOOK, run="other", problem="gqa", target="h100")
    taken = [Direction("Roles", "as there", (there,)), Direction("pages", "prefetch", (there,))]
    found = directions(listed(Direction("roles", "loads wait", (LOOK,))), [], [], taken)
    assert found == [Direction("roles", "loads wait", (there, LOOK)), taken[1]]


def test_a_measured_gain_is_resolved_if_it_was_shown() -> None:
    world = World()
    score = world.versions[0].attempt.evaluation.score
    assert score is not None
    measured = replace(world.versions[0].attempt.evaluation, score=replace(score, kind=ScoreKind.MEASURED))
    world.versions[0] = replace(world.versions[0], attempt=replace(world.versions[0].attempt, evaluation=measured))
    world.fail("tflops = 105.0", "shown", Decision(Ruling.NOT_SUBMITTED, "faster"))
    world.fail("tflops = 130.0", "not shown", Decision(Ruling.NOT_SHOWN, "not told apart"))
    found = [each.evidence[0] for each in directions([], world.attempts, world.versions)]
    assert [(each.kind, each.resolution, each.resolved) for each in found] == [
        ("measured", None, True), ("measured", None, False),
    ]  # fmt: skip


def test_large_resolved_effects_weigh_most_and_ties_least() -> None:
    def of(**change: object) -> float:
        return weight(Direction("d", "", (replace(LOOK, **change),)))  # type: ignore[arg-type]

    assert of() > of(gain=0.05) > weight(Direction("untested", "")) > of(gain=0.01, resolved=False)
    assert of(gain=-0.5) == of(gain=-1.0) == 1.0
    assert of(gain=None) == weight(Direction("untested", ""))


def test_what_travels_is_what_matters_most_with_its_latest_tests() -> None:
    many = tuple(replace(LOOK, step=step, gain=0.001) for step in range(9))
    found = [Direction(f"tie {number}", "", (replace(LOOK, resolved=False),)) for number in range(MOST_TAKEN)]
    first, *rest = strongest([*found, Direction("gain", "", many), Direction("loss", "", (replace(LOOK, gain=-0.3),))])
    assert (first.name, len(rest)) == ("loss", MOST_TAKEN - 1)
    assert [each.name for each in strongest(found)] == [each.name for each in found]
    assert [one.step for one in strongest([Direction("gain", "", many)])[0].evidence] == [4, 5, 6, 7, 8]
    gained = (replace(LOOK, step=0, gain=0.3), *many[1:])
    assert [one.step for one in strongest([Direction("gain", "", gained)])[0].evidence] == [0, 5, 6, 7, 8]
