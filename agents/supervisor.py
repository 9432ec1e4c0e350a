"""The supervisor: notices that a search stalls or goes in circles, and decides what to tell its operators.

Pure functions over the trajectory, so that a run which is killed and resumed is supervised as if nothing had happened.
The AVO paper (arXiv 2603.24517) names the two failures: a line of exploration that is exhausted, and edits that keep
failing without a gain.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from avo.agents.moves import MOVES
from avo.evaluator.catalogue import kind_of
from avo.evaluator.evaluation import Status
from avo.evaluator.target import Target
from avo.knowledge_base.library import Library
from avo.lineage_db.entries import Intervention
from avo.lineage_db.records import AttemptSummary, Step, StepState, Version
from avo.lineage_db.spans import covered

REMEMBERED = 20
"""Number of the last interventions shown to operators: on a plateau of thousands of steps, more would not help."""
_LATEST = 200
"""Number of the last attempts that are searched for those of the latest steps; workers have fewer under way."""
_DIRECTIONS = 4
"""Most directions that an intervention gives."""


class Level(StrEnum):
    """How far an intervention goes. Each level is tried before the next."""

    NUDGE = "nudge"
    """Operators are told what the supervisor saw."""
    REDIRECT = "redirect"
    """Operators are also given other directions."""
    RESTART = "restart"
    """Operators are also sent back to an earlier version."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the supervisor waits before it steps in, and again before each further level."""

    steps: int
    """Steps in a row that add no version."""
    hours: float
    """Working time without a new version."""
    repeats: int
    """Candidates in a row that fail alike or repeat earlier launch plans."""
    flat_versions: int = 6
    """Number of versions in a row whose total gain is compared with ``flat_gain``."""
    flat_gain: float = 0.01
    """The supervisor steps in if ``flat_versions`` versions together gain less than this fraction."""
    restarts: bool = True
    """Whether operators may be sent back to an earlier version: not if the population chooses what they work on."""


@dataclass(frozen=True, slots=True)
class SearchTrajectory:
    """A run's history as the supervisor sees it."""

    versions: Sequence[Version]
    """The lineage, oldest first; never empty."""
    attempts: Sequence[AttemptSummary]
    """All attempts, oldest first."""
    steps: Sequence[Step]
    """The steps by number; at least those since the lineage last grew and the last intervention."""
    interventions: Sequence[Intervention]
    """Interventions, oldest first; at least the last ``REMEMBERED``."""
    firsts: Mapping[str, int]
    """Id of the first attempt with each launch plan, by the plan's digest."""

    @property
    def active(self) -> tuple[Intervention, ...]:
        """The interventions since the lineage last grew."""
        return since_growth(self.interventions, self.versions)

    @property
    def champions(self) -> tuple[Version, ...]:
        """The versions that were the best of the run when they were accepted, oldest first."""
        return tuple(version for version in self.versions if version.champion)


def since_growth(interventions: Sequence[Intervention], versions: Sequence[Version]) -> tuple[Intervention, ...]:
    """Return the last interventions made since the newest of ``versions`` was accepted."""
    return tuple(made for made in interventions[-REMEMBERED:] if made.made >= versions[-1].accepted)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A diagnosis for which an intervention is due."""

    level: Level
    after_step: int
    """Number of the newest step that was considered."""
    reason: str
    restart_from: int | None


def diagnose(trajectory: SearchTrajectory, patience: Patience) -> Diagnosis | None:
    """Return what is due now, if anything is.

    Only what happened since the last version and the last intervention counts: operators get time to act on what they
    were told. On one plateau the levels are gone through in order, then redirections and restarts take turns, where
    there are restarts.
    """
    ended = [step for step in trajectory.steps if step.state in (StepState.DONE, StepState.FAILED)]
    if not ended:
        return None
    told = max((made.after_step for made in trajectory.interventions), default=-1)
    mark = max(trajectory.versions[-1].step_number, told)
    recent = [step for step in ended if step.number > mark]
    attempts = [attempt for attempt in trajectory.attempts[-_LATEST:] if attempt.step_number > mark]
    signs = [
        *_barren(recent, patience),
        *_repeated(attempts, trajectory.firsts, patience),
        *_flat(trajectory, told, patience),
    ]
    if not signs:
        return None
    level = _next_level(trajectory, patience)
    restart_from = _to_go_back_to(trajectory) if level is Level.RESTART else None
    return Diagnosis(level, max(step.number for step in ended), "; ".join(signs), restart_from)


def untried_moves(
    versions: Sequence[Version],
    attempts: Sequence[AttemptSummary],
    target: Target,
    problem: str,
    knowledge: Library,
) -> tuple[str, ...]:
    """Return directions that need no model: known moves that apply to the best version and were not tried.

    Those that relieve its critical resource come first, then those that are expected to gain most. Where all have been
    tried: notes about the critical resource. Each is ``name: what it is``.
    """
    best = next(version for version in reversed(versions) if version.champion).attempt
    score = best.evaluation.score
    critical = {case.critical or case.limiter for case in score.cases} - {""} if score else set()
    said = " ".join(attempt.change for attempt in attempts)
    tried = {name for name in (move.name for move in MOVES) if re.search(rf"\b{re.escape(name)}:", said)}
    ranked = sorted(MOVES, key=lambda move: (move.relieves.isdisjoint(critical), -move.prior))
    applicable = (move for move in ranked if move.name not in tried and move.variants(best.source, target, problem))
    directions = [f"{move.name}: {move.hypothesis}" for move, _ in zip(applicable, range(_DIRECTIONS), strict=False)]
    if not directions:
        kind = kind_of(problem)
        words = " ".join(sorted(critical)) or kind
        notes = knowledge.search(words, architecture=target.arch, problem=kind, limit=_DIRECTIONS)
        directions = [f"{note.id}: {note.title}" for note in notes]
    return tuple(directions)


def _barren(recent: Sequence[Step], patience: Patience) -> list[str]:
    worked = covered((step.started, step.finished) for step in recent if step.finished)
    signs = []
    if len(recent) >= patience.steps:
        signs.append(f"{len(recent)} steps in a row without a new version")
    if worked >= timedelta(hours=patience.hours):
        signs.append(f"{worked / timedelta(hours=1):.1f} hours of work without a new version")
    return signs


def _repeated(recent: Sequence[AttemptSummary], firsts: Mapping[str, int], patience: Patience) -> list[str]:
    """Return why candidates bring no news: the same failure again, or launch plans that the run has had."""
    last = recent[-patience.repeats :]
    if len(last) < patience.repeats:
        return []
    signs = []
    failures = {(attempt.status, re.sub(r"\d+", "#", attempt.message)) for attempt in last}
    if len(failures) == 1 and last[-1].status is not Status.CORRECT:
        signs.append(
            f"{len(last)} candidates in a row fail alike, the last: {last[-1].status.words}: {last[-1].message}"
        )
    if all(attempt.plan_digest is not None and firsts[attempt.plan_digest] != attempt.attempt_id for attempt in last):
        signs.append(f"{len(last)} candidates in a row lower to launch plans that were tried before")
    return signs


def _flat(trajectory: SearchTrajectory, told: int, patience: Patience) -> list[str]:
    champions = trajectory.champions
    new = [version for version in champions if version.step_number > told and version.parents]
    if len(new) < patience.flat_versions:
        return []
    last, before = champions[-1], champions[-1 - patience.flat_versions]
    gain = last.attempt.evaluation.geomean_tflops / before.attempt.evaluation.geomean_tflops - 1
    if gain >= patience.flat_gain:
        return []
    return [f"the last {patience.flat_versions} versions gained {gain:.2%} together"]


def _next_level(trajectory: SearchTrajectory, patience: Patience) -> Level:
    if not trajectory.active:
        return Level.NUDGE
    redirected = trajectory.active[-1].level == Level.REDIRECT
    return Level.RESTART if redirected and patience.restarts and len(trajectory.versions) > 1 else Level.REDIRECT


def _to_go_back_to(trajectory: SearchTrajectory) -> int:
    """Return the earlier version with the fewest children; among equals, the newest."""
    children = {version.number: 0 for version in trajectory.versions[:-1]}
    for number in (parent for attempt in trajectory.attempts for parent in attempt.parents):
        if number in children:
            children[number] += 1
    gone_back_to = {made.restart_from for made in trajectory.active}
    fresh = [number for number in children if number not in gone_back_to] or list(children)
    return min(fresh, key=lambda number: (children[number], -number))
