"""The list of runs: which of them have some words, in a chosen order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from avo.lineage_db.records import RunState, RunSummary
from avo.lineage_db.store import Store
from avo.subject import subject


@dataclass(frozen=True, slots=True)
class Listed:
    """A run and its state at the time of reading: only time tells whether its driver is gone."""

    summary: RunSummary
    state: RunState

    @property
    def gain(self) -> float | None:
        """How much faster the best version is than the seed, 0.03 being 3 percent; None without a version."""
        best, seed = self.summary.best_geomean, self.summary.seed_geomean
        return best / seed - 1 if best and seed else None

    @property
    def words(self) -> str:
        """What is searched: name, state, problem, model, target, operator and suite."""
        run = self.summary.run
        return f"{run.name} {self.state} {subject(run)} {run.target} {run.operator} {run.suite}".lower()


_KEYS: dict[str, Callable[[Listed], float]] = {
    "newest": lambda each: -each.summary.run.id,
    "fastest": lambda each: -(each.summary.best_geomean or 0.0),
    "most gained": lambda each: -(each.gain or 0.0),
    "oldest": lambda each: each.summary.run.id,
}
ORDERS = tuple(_KEYS)
"""Orders of the runs, by what comes first."""


def read_runs(store: Store, now: datetime) -> list[Listed]:
    """Return all runs with their states at ``now``, newest first."""
    return [Listed(summary, summary.run.state_at(now)) for summary in store.runs()]


def arranged(runs: Sequence[Listed], words: Sequence[str], order: str) -> list[Listed]:
    """Return the runs that have all ``words``, which are in lower case, in one of ``ORDERS``."""
    return sorted((each for each in runs if all(word in each.words for word in words)), key=_KEYS[order])
