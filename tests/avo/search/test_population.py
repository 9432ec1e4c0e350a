"""Populations: what a step works on, what its attempt must beat, and that the record alone tells."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from avo.agents.operator import Brief, Proposal
from avo.config import RunConfig
from avo.errors import ConfigError
from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Evaluation
from avo.evaluator.fake import FakeEvaluator
from avo.lineage_db.records import Run, StepState
from avo.lineage_db.store import Store
from avo.search.population import Archive, Islands, Lineage, Population, population
from avo.search.seeding import SeedOperator
from tests.avo.fakes import NOW, SEED, Climber, judge, make_run, make_work

ARCHIVE = Archive(("tile", "grid"))


def kind_of(candidate: Candidate) -> Evaluation:
    """The verdict of the fakes; the tile of a kernel follows from its speed, its grid is never known."""
    found = judge(candidate)
    return replace(found, traits={"tile": f"{round(found.geomean_tflops) % 3}"}) if found.score else found


class World:
    """A run in some population, made of steps of an operator."""

    def __init__(self, folder: Path, kind: Population, *seeds: str) -> None:
        self.store = Store.open(str(folder / "run.db"))
        self.kind = kind
        self.run: Run = make_run(self.store)
        self.seen: list[Brief] = []
        self.step(SeedOperator(*(seeds or (SEED,))))

    def step(self, operator: "SeedOperator | Watched | None" = None, worker: str = "w0") -> None:
        work = make_work(self.store, self.run, FakeEvaluator(kind_of), population=self.kind)
        work.perform(operator or Watched(self.seen, Climber().vary), worker)

    def steps(self, count: int, speed: Callable[[Brief], float] | None = None) -> None:
        """Perform steps of a climber, or of an operator that submits a kernel of the ``speed`` it is told."""

        def submit(brief: Brief) -> Proposal:
            assert speed is not None
            parent = brief.versions[-1].number if brief.focus is None else brief.focus
            candidate = Candidate("mha", f"tflops = {speed(brief):.6f}")
            return Proposal(brief.evaluate(candidate, change="told", parents=(parent,)), "told")

        for _ in range(count):
            self.step(Watched(self.seen, submit) if speed else None)


class Watched:
    """An operator whose briefs are kept."""

    name = "watched"

    def __init__(self, seen: list[Brief], vary: Callable[[Brief], Proposal]) -> None:
        self._seen = seen
        self._vary = vary

    def vary(self, brief: Brief) -> Proposal:
        self._seen.append(brief)
        return self._vary(brief)


def test_a_lineage_shows_everything_and_every_version_is_its_champion(tmp_path: Path) -> None:
    world = World(tmp_path, Lineage())
    world.steps(6)
    versions = world.store.versions(world.run.id)
    assert len(versions) > 2
    assert all(version.champion and version.niche == "" for version in versions)
    assert world.seen[-1].focus is None
    steps = world.store.steps(world.run.id)
    assert {step.selection for step in steps} == {None}


def test_islands_take_turns_and_see_the_seed_and_their_own_versions_only(tmp_path: Path) -> None:
    world = World(tmp_path, Islands(3, migrate_every=100, restart_after=100))
    world.steps(9)
    niches = [step.selection.niche for step in world.store.steps(world.run.id) if step.selection]
    assert niches == ["0.0", "1.0", "2.0"] * 3
    for brief, niche in zip(world.seen, niches, strict=True):
        assert {version.niche for version in brief.versions} <= {"", niche}
        assert brief.versions[0].number == 0


def test_islands_start_from_the_seeds_in_turn_the_best_one_first(tmp_path: Path) -> None:
    world = World(tmp_path, Islands(3, migrate_every=100, restart_after=100), "tflops = 80.0", "tflops = 90.0")
    world.steps(6)
    founders = [step.selection.founder for step in world.store.steps(world.run.id) if step.selection]
    assert founders == [1, 0, 1] * 2


def test_an_attempt_need_only_beat_its_own_island_and_the_best_of_all_is_still_known(tmp_path: Path) -> None:
    world = World(tmp_path, Islands(2, migrate_every=100, restart_after=100))
    world.steps(1, lambda _: 200.0)
    world.steps(1, lambda _: 150.0)
    world.steps(1, lambda _: 190.0)  # of the first island again: too slow there
    versions = world.store.versions(world.run.id)
    assert [(version.niche, version.champion) for version in versions] == [
        ("", True), ("0.0", True), ("1.0", False),
    ]  # fmt: skip
    assert world.store.version(world.run.id).number == 1
    assert world.store.runs()[0].best_geomean == pytest.approx(200.0)


def test_now_and_then_the_best_of_the_next_island_is_a_guest(tmp_path: Path) -> None:
    world = World(tmp_path, Islands(2, migrate_every=3, restart_after=100))
    world.steps(6, lambda brief: 100.0 + 10 * len(world.seen))
    first = [brief for brief, step in zip(world.seen, world.store.steps(world.run.id)[1:], strict=True)][4]
    guest = next(version for version in first.versions if version.number == first.focus)
    assert guest.niche == "1.0"
    newest = world.store.versions(world.run.id)[-2]
    assert (newest.niche, newest.parents) == ("0.0", (guest.number,))


def test_a_stuck_island_starts_again_from_another_but_the_one_with_the_best_does_not(tmp_path: Path) -> None:
    world = World(tmp_path, Islands(2, migrate_every=100, restart_after=3))
    world.steps(1, lambda _: 300.0)
    world.steps(12, lambda brief: 50.0 + len(world.seen))
    niches = [step.selection.niche for step in world.store.steps(world.run.id) if step.selection]
    assert "1.1" in niches
    assert not any(niche.startswith("0.") and niche != "0.0" for niche in niches)
    selection = world.store.steps(world.run.id)[niches.index("1.1") + 1].selection
    assert selection is not None
    assert (selection.founder, selection.shown) == (1, (1,))
    assert selection.why == "stuck for 3 steps: starts anew from v1"


def test_an_archive_keeps_the_best_of_each_kind_and_varies_any(tmp_path: Path) -> None:
    world = World(tmp_path, ARCHIVE)
    for tflops in (201.0, 100.1, 104.0, 204.0, 202.0, 110.0):
        world.steps(1, lambda _, tflops=tflops: tflops)  # type: ignore[misc]
    kept = [(v.niche, round(v.attempt.evaluation.geomean_tflops)) for v in world.store.versions(world.run.id)]
    assert kept == [
        ("tile 1, grid unknown", 100),
        ("tile 0, grid unknown", 201),
        ("tile 2, grid unknown", 104),
        ("tile 0, grid unknown", 204),
        ("tile 1, grid unknown", 202),
        ("tile 2, grid unknown", 110),
    ]
    world.steps(12)
    assert {brief.focus for brief in world.seen[-12:]} - {None, 3}
    assert world.store.version(world.run.id).attempt.evaluation.geomean_tflops >= 204


@pytest.mark.parametrize(
    "kind", [Lineage(), *(pytest.param(kind, marks=pytest.mark.long) for kind in (Islands(3, 4, 5), ARCHIVE))]
)
def test_what_is_selected_follows_from_the_record_alone(tmp_path: Path, kind: Population) -> None:
    world = World(tmp_path, kind)
    rng = random.Random(1)
    for _ in range(25):
        world.steps(1, lambda brief: 100.0 + 60 * rng.random())
    versions, steps = world.store.versions(world.run.id), world.store.steps(world.run.id)
    with Store.open(world.store.url) as other:
        step = other.claims.claim(world.run.id, worker="w1", operator="watched", now=NOW)
        assert other.steps_before(step, limit=0) == []
        earlier = other.steps_before(step, limit=kind.looks_back)
        again = kind.select(other.versions(world.run.id), earlier, 3)
    assert len(earlier) <= kind.looks_back < len(steps)
    assert again == kind.select(versions, steps, 3)
    assert again is None or set(again.shown) <= {version.number for version in versions}


def test_a_repeated_step_works_on_what_it_worked_on_before(tmp_path: Path) -> None:
    world = World(tmp_path, Islands(3, 4, 5))
    world.steps(4)
    killed = world.store.claims.claim(world.run.id, worker="w0", operator="watched", now=NOW)
    earlier = world.store.steps(world.run.id)[: killed.number]
    selection = world.kind.select(world.store.versions(world.run.id), earlier, 0)
    assert selection is not None
    world.store.claims.select(killed.id, selection, now=NOW)
    world.store.claims.fail(killed.id, state=StepState.ABANDONED, reason="killed", now=NOW)
    world.steps(1)
    assert world.store.steps(world.run.id)[-1].selection == selection


@pytest.mark.long
def test_a_step_that_is_repeated_late_takes_no_turn_from_the_islands(tmp_path: Path) -> None:
    world = World(tmp_path, Islands(3, migrate_every=100, restart_after=5))
    world.steps(30)
    versions, steps = world.store.versions(world.run.id), world.store.steps(world.run.id)
    steps.append(replace(steps[4], number=len(steps)))
    for _ in range(9):
        selection = world.kind.select(versions, steps[-world.kind.looks_back :], 0)
        steps.append(replace(steps[-1], number=len(steps), selection=selection))
    niches = [step.selection.niche for step in steps[-9:] if step.selection]
    assert niches == ["0.0", "1.0", "2.0"] * 3


def test_the_population_is_a_setting() -> None:
    assert isinstance(population(RunConfig()), Lineage)
    assert population(RunConfig(population="islands", islands=5)) == Islands(5, 10, 30)
    assert population(RunConfig(population="archive", archive_by=("warps",))) == Archive(("warps",))
    with pytest.raises(ConfigError, match="a list of one or more of tile, warps"):
        RunConfig.resolve(None, {"archive_by": ["colour"]})
