"""The operator without a model: repeatable, never twice the same, learning from the record, able to go back."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import libcst as cst
import pytest

from avo.agents.desk import FakeDesk, Left
from avo.agents.errors import BudgetSpent, CandidateTaken
from avo.agents.moves import MOVES
from avo.agents.moves.anatomy import Anatomy
from avo.agents.moves.move import Move
from avo.agents.mutate import Mutate, move_values
from avo.agents.operator import Brief, Proposal, Variation
from avo.agents.scouting import critical_resources
from avo.evaluator.candidate import Candidate
from avo.evaluator.catalogue import get_problem
from avo.evaluator.evaluation import CaseScore, Evaluation, Fault, Score, Status
from avo.evaluator.fake import FakeEvaluator
from avo.evaluator.inspection import Findings
from avo.evaluator.resolution import Difference
from avo.evaluator.target import ScoreKind, Target
from avo.evaluator.targets import get_target
from avo.knowledge_base.library import Library
from avo.lineage_db.decision import Lead
from avo.lineage_db.entries import Intervention
from avo.lineage_db.looked import Looked
from avo.lineage_db.records import Attempt, AttemptSummary, Version
from avo.seeds import seed_source

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SEED = seed_source("mha")


def verdict(tflops: float, critical: str = "") -> Evaluation:
    """A correct evaluation with that score, or a faulty one for 0."""
    if tflops == 0:
        return Evaluation(Status.INCORRECT, "wrong numbers", "h100", "quick", 1.0)
    score = Score(ScoreKind.PREDICTED, "h100", (CaseScore("a", tflops, 1.0, "tensor", critical=critical),))
    return Evaluation(Status.CORRECT, "", "h100", "quick", 1.0, score)


class World:
    """A run in memory: evaluates by a function of the source, records, accepts what is faster."""

    def __init__(
        self,
        speed: dict[str, float] | None = None,
        score: Callable[[str], float] | None = None,
        plan: Callable[[str], str | None] = lambda source: None,
        predict: Callable[[str], float] | None = None,
    ) -> None:
        """``plan``: the digest of a source's launch plan; ``predict``: what a look says."""
        self.speed = speed or {}
        self.score = score
        self.plan = plan
        self.predict = predict
        self.looks: list[Looked] = []
        self.versions: list[Version] = []
        self.attempts: list[AttemptSummary] = []
        self.made: dict[int, Attempt] = {}
        self.accept(self.attempt(Candidate("mha", SEED), 100.0, "seed", ()))

    def attempt(self, candidate: Candidate, tflops: float, change: str, parents: tuple[int, ...]) -> Attempt:
        number = len(self.attempts) + 1
        evaluation = replace(verdict(tflops), plan_digest=self.plan(candidate.source))
        return Attempt(number, 1, number, candidate.digest, candidate.source, change, parents, evaluation, NOW, NOW)

    def accept(self, attempt: Attempt) -> None:
        self.versions.append(Version(1, len(self.versions), attempt.parents, NOW, attempt))

    def record(self, attempt: Attempt, version: int | None = None) -> None:
        evaluation = attempt.evaluation
        summary = AttemptSummary(
            attempt.id, attempt.step_id, attempt.digest, attempt.plan_digest, attempt.status,
            evaluation.geomean_tflops, evaluation.message, attempt.change, attempt.parents, version, 1.0, NOW,
            decision=attempt.decision, built_on=attempt.built_on,
        )  # fmt: skip
        self.attempts.append(summary)
        self.made[attempt.id] = attempt

    def __call__(
        self,
        candidate: Candidate,
        *,
        change: str,
        parents: tuple[int, ...],
        hypothesis: str = "",
        built_on: int | None = None,
    ) -> Attempt:
        """Evaluate by ``score``, or else by the parent's score times ``speed[move]``, 1 unless told."""
        tflops = self.versions[parents[0]].attempt.evaluation.geomean_tflops
        for part in change.split("; "):
            tflops *= self.speed.get(part.partition(":")[0], 1.0)
        if self.score:
            tflops = self.score(candidate.source)
        self.last = replace(self.attempt(candidate, tflops, change, parents), built_on=built_on)
        self.record(self.last)
        return self.last

    def look(self, variations: Sequence[Variation]) -> Sequence[Findings]:
        """Predict what ``predict`` says of each source, and record that."""
        assert self.predict is not None
        found = []
        for each in variations:
            score, digest = verdict(self.predict(each.candidate.source)).score, each.candidate.digest
            fault = None if score else Fault(Status.DOES_NOT_FIT, "too large")
            found.append(Findings(fault, score=score, plan_digest=self.plan(each.candidate.source)))
            assert digest not in {look.digest for look in self.looks}
            self.looks.append(
                Looked(
                    len(self.looks) + 1, len(self.attempts), digest, found[-1].plan_digest, fault and fault.status,
                    score.geomean_tflops if score else 0.0, 1.0, each.change, each.parents, NOW,
                )
            )  # fmt: skip
        return found

    def step(self, seed: int, operator: Mutate, *interventions: Intervention, looks: int = 0) -> Proposal:
        return operator.vary(replace(self.brief(seed, looks), interventions=interventions))

    def brief(self, seed: int, looks: int = 0) -> Brief:
        """The brief of a step that may look at so many candidates."""
        versions, attempts = tuple(self.versions), tuple(self.attempts)
        problem, target = get_problem("mha"), get_target("h100")
        explain = FakeEvaluator(lambda candidate: verdict(1.0)).profile
        brief = Brief(problem, target, "quick", seed, versions, attempts, Library(()), self, explain)
        desk = FakeDesk(attempts=self.made, budget=Left(looks=looks))
        return replace(brief, desk=desk.desk, look=self.look, looks=tuple(self.looks))


def _edit_number(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    for number in (2, 8):
        yield f"warps to {number}", cst.parse_module(anatomy.module.code.replace("num_warps=4", f"num_warps={number}"))


@pytest.mark.long
def test_equal_briefs_give_equal_candidates() -> None:
    worlds = World(), World()
    for world in worlds:
        for seed in range(4):
            world.step(seed, Mutate())
    first, second = ([(attempt.digest, attempt.change) for attempt in world.attempts] for world in worlds)
    assert first == second


def test_different_seeds_explore_differently() -> None:
    changes = set()
    for seed in range(6):
        world = World()
        world.step(seed, Mutate())
        changes.add(world.last.change)
    assert len(changes) > 1


@pytest.mark.long
def test_nothing_is_tried_twice() -> None:
    world = World({"skip": 1.5})
    for seed in range(15):
        world.step(seed, Mutate())
    digests = [attempt.digest for attempt in world.attempts]
    assert len(digests) == len(set(digests)) == 15
    assert world.versions[0].attempt.digest not in digests


def test_a_candidate_that_another_worker_holds_is_left_to_it() -> None:
    class Shared(World):
        taken = ""

        def __call__(self, candidate: Candidate, **how: Any) -> Attempt:
            if not self.taken or candidate.digest == self.taken:
                self.taken = candidate.digest
                raise CandidateTaken
            return super().__call__(candidate, **how)

    world = Shared()
    proposal = world.step(1, Mutate())
    assert proposal.attempt is world.last
    assert world.last.digest != world.taken


def test_a_step_ends_where_the_run_may_make_no_more_attempts() -> None:
    class Full(World):
        def __call__(self, candidate: Candidate, **how: Any) -> Attempt:
            raise BudgetSpent("no evaluations are left")

    assert Full().step(1, Mutate()) == Proposal(None, "no evaluations are left")


@pytest.mark.parametrize("failed_before", [False, True])
def test_another_is_drawn_when_a_candidate_has_the_launch_plan_of_an_earlier_one(failed_before: bool) -> None:
    known = "x = 1\n" if failed_before else SEED
    operator = Mutate([Move("warps", "", 1.0, "", _edit_number)])
    evaluated = set()
    for seed in range(8):
        world = World(plan=lambda source: "known" if source == known or "num_warps=2" in source else source)
        if failed_before:
            world.record(world.attempt(Candidate("mha", known), 0.0, "by hand", (0,)))
        proposal = world.step(seed, operator)
        assert proposal.attempt is world.last
        assert "num_warps=8" in world.last.source
        evaluated.add(len(world.attempts) - failed_before)
    assert evaluated == {1, 2}


def test_a_step_ends_after_a_few_candidates_with_known_launch_plans() -> None:
    world = World(plan=lambda source: "the only one")
    proposal = world.step(1, Mutate())
    assert proposal.attempt is None
    assert "launch plans that were tried before" in proposal.reason
    assert len(world.attempts) == 3
    assert all(attempt.change in proposal.reason for attempt in world.attempts)


def test_a_correct_attempt_is_proposed_and_a_faulty_one_is_not() -> None:
    good, bad = World({"warps": 1.2}), World({"warps": 0.0})
    operator = Mutate([Move("warps", "", 1.0, "", _edit_number)])
    proposal = good.step(1, operator)
    assert proposal.attempt is good.last
    assert "100 -> 120 predicted TFLOPS" in proposal.reason
    assert bad.step(1, operator) == Proposal(None, f"{bad.last.change} (on version 0): incorrect: wrong numbers")


@pytest.mark.long
def test_it_says_when_everything_has_been_tried() -> None:
    world = World()
    operator = Mutate([Move("warps", "", 1.0, "", _edit_number)])
    reasons = [world.step(seed, operator).reason for seed in range(4)]
    assert len(world.attempts) == 2
    assert all(reason.startswith("exhausted") for reason in reasons[2:])


def test_an_exhausted_parent_gives_way_to_another() -> None:
    world = World()
    operator = Mutate([Move("warps", "", 1.0, "", _edit_number)])
    # Nothing can be made of the best version, so the seed is edited.
    world.accept(world.attempt(Candidate("mha", "x = 1\n"), 200.0, "by hand", (0,)))
    world.step(0, operator)
    assert world.last.parents == (0,)


def test_every_seed_is_edited_before_the_best_version_is_edited_again() -> None:
    world = World()
    world.accept(world.attempt(Candidate("mha", SEED.replace("num_stages=1", "num_stages=2")), 300.0, "seed", ()))
    for seed in range(2):
        world.step(seed, Mutate())
    assert {attempt.parents for attempt in world.attempts[-2:]} == {(0,), (1,)}


def test_moves_are_combined_once_single_ones_are_used_up() -> None:
    world = World()
    pair = [move for move in MOVES if move.name in ("reciprocal", "reverse")]
    for seed in range(3):
        world.step(seed, Mutate(pair))
    assert sorted(len(attempt.change.split("; ")) for attempt in world.attempts) == [1, 1, 2]


@pytest.mark.long
def test_the_best_version_is_edited_mostly_but_not_only() -> None:
    world = World()
    # The last version is the best, whatever was measured of the one before it.
    world.accept(world.attempt(Candidate("mha", SEED.replace("num_stages=1", "num_stages=2")), 99.0, "stages", (0,)))
    for seed in range(20):
        world.step(seed, Mutate())
    parents = [attempt.parents for attempt in world.attempts]
    assert parents.count((1,)) > 12
    assert parents.count((0,)) > 0


def test_what_paid_is_worth_more_and_what_failed_less() -> None:
    world = World()
    values = move_values(MOVES, world.versions, ())
    for change, tflops in [("exp2: a", 150.0), ("tile: b", 0.0), ("swap: c; reverse: d", 90.0), ("unknown", 500.0)]:
        world.record(world.attempt(Candidate("mha", change), tflops, change, (0,)))
    after = move_values(MOVES, world.versions, world.attempts)
    assert after["exp2"] > values["exp2"]
    assert {name for name in values if after[name] < values[name]} == {"tile", "swap", "reverse"}
    assert min(after.values()) > 0


def test_a_move_that_relieves_the_critical_resource_is_worth_twice_as_much_until_it_was_tried() -> None:
    world = World()
    values = move_values(MOVES, world.versions, ())
    relieved = move_values(MOVES, world.versions, (), {"fma"})
    relieving = {"skip", "exp2", "given-exp2", "late-scale", "lazy", "gluon-lazy", "far", "kv-outer", "query-union"}
    assert {name for name in values if relieved[name] == 2 * values[name]} == relieving
    assert {name for name in values if relieved[name] > values[name]} == relieving
    for _ in range(9):
        world.record(world.attempt(Candidate("mha", "x"), 99.0, "exp2: in vain", (0,)))
    tried = move_values(MOVES, world.versions, world.attempts, {"fma"})
    assert tried["exp2"] < values["split"] == tried["split"]


def test_the_critical_resource_of_a_version_is_the_models_else_what_limits_it_most() -> None:
    def resources(*cases: CaseScore) -> frozenset[str]:
        return critical_resources(Score(ScoreKind.PREDICTED, "h100", cases))

    assert resources(CaseScore("a", 1.0, 1.0, "tensor", critical="exp")) == {"exp"}
    assert resources(CaseScore("a", 1.0, 1.0, "tensor"), CaseScore("b", 1.0, 1.0, "hbm")) == {"tensor", "hbm"}
    assert resources(CaseScore("a", 1.0, 1.0, "")) == set()


@pytest.mark.long
def test_what_holds_the_parent_back_decides_what_is_tried_first() -> None:
    """Two moves of equal priors: with twice the value, one is drawn four times as often."""
    moves = [replace(move, prior=0.1) for move in MOVES if move.name in ("stages", "late-scale")]
    tries = {}
    for critical in ("exp", "latency"):
        tried = []
        for seed in range(40):
            world = World()
            attempt = replace(world.versions[0].attempt, evaluation=verdict(100.0, critical))
            world.versions[0] = replace(world.versions[0], attempt=attempt)
            world.step(seed, Mutate(moves))
            tried.append(world.last.change.partition(":")[0])
        tries[critical] = tried.count("stages")
    assert tries["latency"] > tries["exp"] + 6


def plausible(source: str) -> float:
    """A caricature of a GPU: hidden blocks, masks, exp and one stage cost time; tiles need warps that hold them."""
    rows, keys = map(int, re.search(r"block_m, block_n = (\d+), (\d+)", source).groups())  # type: ignore[union-attr]
    warps, stages = (int(re.search(rf"{name}=(\d+)", source)[1]) for name in ("num_warps", "num_stages"))  # type: ignore[index]
    if (rows + 2 * stages * keys) * 256 > 232448:
        return 0.0
    tflops = 100.0 * (1.8 if "end_n" in source else 1.0) * (1.2 if "full_n" in source else 1.0)
    tflops *= (1.3 if "exp2" in source else 1.0) * (1.0 if stages == 1 else 1.3)
    spills = rows * 128 / warps > 2048
    return tflops * (1.15 if rows >= 128 else 1.0 if rows == 64 else 0.6) * (0.5 if spills else 1.0)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_large_wins_are_found_early(seed: int) -> None:
    world = World(score=plausible)
    for number in range(20):
        best = max(version.attempt.evaluation.geomean_tflops for version in world.versions)
        proposal = world.step(1000 * seed + number, Mutate())
        if proposal.attempt and proposal.attempt.evaluation.geomean_tflops > best:
            world.accept(proposal.attempt)
    source = world.versions[-1].attempt.source
    assert [part for part in ("end_n", "full_n", "exp2") if part not in source] == []
    assert world.versions[-1].attempt.evaluation.geomean_tflops > 3 * 100.0


def told(*directions: str, restart_from: int | None = None) -> Intervention:
    return Intervention(1, 1, 0, "redirect", "a stall", directions, "knowledge base", restart_from, NOW)


@pytest.mark.long
def test_moves_that_the_supervisor_points_out_are_tried_more_often() -> None:
    def share(*interventions: Intervention) -> float:
        changes = []
        for seed in range(40):
            world = World()
            world.step(seed, Mutate(), *interventions)
            changes.append(world.last.change)
        return sum("registers:" in change for change in changes) / len(changes)

    assert share(told("registers: let two CTAs reside")) > share()


@pytest.mark.long
def test_a_restart_begins_at_the_version_that_the_supervisor_names() -> None:
    world = World()
    for tflops in (120.0, 140.0):
        candidate = Candidate("mha", f"{SEED}\n# {tflops}\n")
        world.accept(world.attempt(candidate, tflops, "tile: x", (len(world.versions) - 1,)))
    for seed in range(8):
        world.step(seed, Mutate(), told(restart_from=1))
        assert world.last.parents == (1,)


@pytest.mark.long
def test_an_unresolved_attempt_is_built_on_now_and_then_and_counts_as_an_edit_of_its_own_parent() -> None:
    world = World()
    better = world.attempt(Candidate("mha", f"{SEED}\nbetter = 1\n"), 105.0, "warps: warps to 16", (0,))
    world.record(replace(better, decision=Lead(0, Difference(0.05, 0.7)).decide(0.01, 0.9)))

    def grown(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
        for number in range(3):
            yield f"number {number}", cst.parse_module(f"{anatomy.module.code}\nx = {number}\n")

    moves = [Move("comment", "", 1.0, "", grown)]
    for seed in range(12):
        world.step(seed, Mutate(moves))
    made = [world.made[attempt.attempt_id] for attempt in world.attempts[1:]]
    built_on = [attempt for attempt in made if "better" in attempt.source]
    assert 0 < len(built_on) < len(made)
    assert all(attempt.change.startswith("warps: warps to 16; comment: number ") for attempt in built_on)
    assert {attempt.parents for attempt in made} == {(0,)}


def test_an_unresolved_attempt_of_another_operator_is_named_where_it_is_built_on() -> None:
    world = World()
    better = world.attempt(Candidate("mha", f"{SEED}\nbetter = 1\n"), 105.0, "fewer barriers", (0,))
    world.record(replace(better, decision=Lead(0, Difference(0.05, 0.7)).decide(0.01, 0.9)))
    moves = [Move("warps", "", 1.0, "", _edit_number)]
    for seed in range(4):
        world.step(seed, Mutate(moves))
    changes = [attempt.change for attempt in world.attempts[1:] if "better" in world.made[attempt.attempt_id].source]
    assert changes
    assert all(change.startswith("attempt 1: fewer barriers; warps: ") for change in changes)
