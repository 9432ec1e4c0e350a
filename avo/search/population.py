"""Populations: which part of a run's versions a step works on, and which of them an attempt has to beat.

An operator is independent of the population that it works in (AVO paper, arXiv 2603.24517, which studies one lineage).
What a population remembers is read from the record of the run, so a resumed run continues as before.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from avo.config import RunConfig
from avo.evaluator.evaluation import Evaluation
from avo.lineage_db.records import Attempt, Selection, Step, Version


class Population(Protocol):
    """How the versions of a run live together."""

    @property
    def looks_back(self) -> int:
        """How many earlier steps ``select`` has to know."""
        ...

    def select(self, versions: Sequence[Version], earlier: Sequence[Step], seed: int) -> Selection | None:
        """Choose what the next step works on; None: all versions.

        ``versions`` are in order and never empty. ``earlier`` are the last steps that were not abandoned, in order.
        """
        ...

    def niche(self, selection: Selection | None, evaluation: Evaluation) -> str:
        """Return where a correct attempt of a step lives if it is accepted. A seed has no selection."""
        ...

    def rivals(self, versions: Sequence[Version], selection: Selection, niche: str) -> Sequence[Version]:
        """Return those of ``versions`` whose best an attempt must beat to live in ``niche``, oldest first."""
        ...


class Lineage:
    """The paper's single lineage: each version must beat the best before it."""

    looks_back = 0

    def select(self, versions: Sequence[Version], earlier: Sequence[Step], seed: int) -> Selection | None:
        """Return None: a step works on all versions."""
        return None

    def niche(self, selection: Selection | None, evaluation: Evaluation) -> str:
        """Return the name of the only niche."""
        return ""

    def rivals(self, versions: Sequence[Version], selection: Selection, niche: str) -> Sequence[Version]:
        """Return all versions."""
        return versions


@dataclass(frozen=True, slots=True)
class Islands:
    """Several lineages that start from the seeds and meet now and then, as in FunSearch (Romera-Paredes et al. 2023).

    The first island starts from the best seed, the next from the second best, and so on, over and over. Steps take the
    islands in turn. Every ``migrate_every`` steps of an island, its operator works on the best version of the next
    island: what it makes of that must beat the island's own versions. An island that has gone ``restart_after`` steps
    without a new version, and does not hold the best version of all, starts anew from a version of another island.
    """

    count: int
    migrate_every: int
    restart_after: int

    @property
    def looks_back(self) -> int:
        """Enough for an island to see that it is stuck: they take turns."""
        return self.count * (self.restart_after + 1)

    def select(self, versions: Sequence[Version], earlier: Sequence[Step], seed: int) -> Selection | None:
        """Choose the island that has had the fewest steps, with its lineage, and with a guest when one is due."""
        rng = random.Random(seed)
        history: list[list[Step]] = [[] for _ in range(self.count)]
        for step in earlier:
            if (place := _island(step.selection)) is not None and place < self.count:
                history[place].append(step)
        turns = [_turns(steps) for steps in history]
        island = min(range(self.count), key=lambda place: (turns[place], place))
        last = _last(history[island])
        roots = [version.number for version in versions if not version.parents]
        niche, founder, why = f"{island}.0", roots[-1 - island % len(roots)], "the island's turn"
        if last is not None and last.founder is not None:
            niche, founder = last.niche, last.founder
            if self._stuck(history[island], niche, versions):
                generation = int(niche.partition(".")[2]) + 1
                others = [version for version in versions if version.niche and _place(version.niche) != island]
                niche, founder = f"{island}.{generation}", rng.choice(others).number
                why = f"stuck for {self.restart_after} steps: starts anew from v{founder}"
        shown = [version.number for version in versions if version.niche == niche or version.number == founder]
        guest = None
        if (turns[island] + 1) % self.migrate_every == 0 and niche == (last and last.niche):
            neighbour = (island + 1) % self.count
            theirs = [version for version in versions if version.niche and _place(version.niche) == neighbour]
            if theirs:
                guest = theirs[-1].number
                why = f"v{guest} of island {neighbour} is its guest"
                shown = sorted({*shown, guest})
        return Selection(niche, tuple(shown), guest, founder, why, turns[island])

    def niche(self, selection: Selection | None, evaluation: Evaluation) -> str:
        """Return the island of the step; a seed belongs to none."""
        return selection.niche if selection else ""

    def rivals(self, versions: Sequence[Version], selection: Selection, niche: str) -> Sequence[Version]:
        """Return the island's versions and the one that it started from."""
        return [version for version in versions if version.niche == niche or version.number == selection.founder]

    def _stuck(self, steps: Sequence[Step], niche: str, versions: Sequence[Version]) -> bool:
        best = next((version for version in reversed(versions) if version.champion), None)
        elsewhere = any(version.niche and _place(version.niche) != _place(niche) for version in versions)
        if best is None or best.niche == niche or not elsewhere:
            return False
        added = max((version.accepted for version in versions if version.niche == niche), default=None)
        barren = [
            step
            for step in steps
            if step.selection and step.selection.niche == niche and (added is None or step.started > added)
        ]
        return len(barren) >= self.restart_after


@dataclass(frozen=True, slots=True)
class Archive:
    """The best kernel of every kind (MAP-Elites, Mouret and Clune 2015, arXiv 1504.04909).

    Kinds are told apart by traits of the judged kernel. Each step varies the best kernel of one kind, drawn uniformly.
    """

    traits: tuple[str, ...]

    @property
    def looks_back(self) -> int:
        """No steps: the choice depends on versions alone."""
        return 0

    def select(self, versions: Sequence[Version], earlier: Sequence[Step], seed: int) -> Selection | None:
        """Draw a kind, and choose its best version."""
        elites = {version.niche: version for version in versions}
        chosen = random.Random(seed).choice(sorted(elites.values(), key=lambda version: version.number))
        shown = tuple(sorted(version.number for version in elites.values()))
        return Selection(chosen.niche, shown, chosen.number, None, f"one of {len(elites)} kinds: {chosen.niche}")

    def niche(self, selection: Selection | None, evaluation: Evaluation) -> str:
        """Return the kind of kernel that was judged."""
        return ", ".join(f"{name} {evaluation.traits.get(name) or 'unknown'}" for name in self.traits)

    def rivals(self, versions: Sequence[Version], selection: Selection, niche: str) -> Sequence[Version]:
        """Return those of the same kind."""
        return [version for version in versions if version.niche == niche]


@dataclass(frozen=True, slots=True)
class Home:
    """Where in the population one step works. Without a selection it works on all versions."""

    population: Population
    selection: Selection | None
    seeding: bool = False
    """Whether the step submits the seeds of the run, which have no rivals."""

    def niche(self, attempt: Attempt) -> str:
        """Return where ``attempt`` lives if it is accepted."""
        return self.population.niche(self.selection, attempt.evaluation)

    def rivals(self, versions: Sequence[Version], evaluation: Evaluation | None = None) -> Sequence[Version]:
        """Return what an attempt has to beat; without its ``evaluation``, one of the kind that the step was given."""
        if self.seeding:
            return ()
        if self.selection is None:
            return versions
        niche = self.selection.niche if evaluation is None else self.population.niche(self.selection, evaluation)
        return self.population.rivals(versions, self.selection, niche)

    def shown(self, versions: Sequence[Version]) -> Sequence[Version]:
        """Return those of ``versions`` that the operator sees."""
        if self.selection is None:
            return versions
        return [version for version in versions if version.number in self.selection.shown]


def population(config: RunConfig) -> Population:
    """Return the population that a run is configured with."""
    kinds: Mapping[str, Population] = {
        "lineage": Lineage(),
        "islands": Islands(config.islands, config.migrate_every, config.restart_after),
        "archive": Archive(config.archive_by),
    }
    return kinds[config.population]


def _place(niche: str) -> int:
    return int(niche.partition(".")[0])


def _last(steps: Sequence[Step]) -> Selection | None:
    """Return what the last of an island's steps works on. A step that is redone keeps its turn."""
    selections = (step.selection for step in steps if step.selection)
    return max(selections, key=lambda selection: selection.turn, default=None)


def _turns(steps: Sequence[Step]) -> int:
    """Return how many steps an island has had, of which these are the last."""
    last = _last(steps)
    return last.turn + 1 if last else 0


def _island(selection: Selection | None) -> int | None:
    return _place(selection.niche) if selection and selection.niche else None
