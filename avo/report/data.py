"""What a report says about a run, as a frozen record."""

from collections.abc import Mapping
from dataclasses import dataclass

from avo.report.figures import BarGroup, Trajectory
from avo.watch.failures import Failures
from avo.watch.snapshot import Comparison, Snapshot
from evaluator.evaluation import Score
from evaluator.problem import Baseline
from lineage_db.records import Intervention, Run, Spend, Step, StepState, Version

MOST_WORDS = 600
"""Characters of a change, a reason or a message that are shown."""
MOST_DIFFS = 300
"""Versions with a diff, the latest."""
MOST_DIFF_LINES, MOST_DIFF_CHARACTERS = 200, 8000
"""Of one diff."""
MOST_SOURCE, MOST_SOURCE_LINES = 60_000, 2000
"""Characters of a source that is compared or shown, and lines of one that is compared."""
MOST_REASONS, MOST_UNVERIFIED = 15, 10
"""Lines of those tables."""


@dataclass(frozen=True, slots=True)
class Diff:
    """What a version changed in the source of its first parent."""

    parent: int
    lines: tuple[str, ...]
    """Of a unified diff, without the names at its head."""
    left_out: int
    """Lines that are not shown."""
    trouble: str = ""
    """Why there is none."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A version in the tree."""

    version: Version
    depth: int
    """Lines that stand left of it."""
    gain: float | None
    """Over the fastest of its parents."""
    gains: tuple[float | None, ...]
    """The same on the cases of each trajectory."""
    step: Step
    tried: int
    """Attempts of its step."""
    failed: int
    """Those of them at fault."""
    compared: str
    """What timing it in turn with the best version before it has shown, where speed was measured."""
    diff: Diff | None


@dataclass(frozen=True, slots=True)
class Move:
    """What came of one of the moves of ``mutate``."""

    name: str
    tried: int
    correct: int
    accepted: int
    gains: tuple[float, ...]
    """Of the versions that it made, compounded: on the cases of each trajectory."""


@dataclass(frozen=True, slots=True)
class Unverified:
    """An attempt that was compiled and not executed: its numbers were not checked."""

    attempt: int
    change: str
    predicted: Score | None


@dataclass(frozen=True, slots=True)
class ModelUse:
    """What calls of one model came to."""

    model: str
    spend: Spend
    failed: int
    """Calls without a reply that could be used."""
    unpriced: int
    """Calls whose price is not known: they are not in ``spend.usd``."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """A run as its report tells it."""

    snapshot: Snapshot
    unit: str
    """What every number of a score is, e.g. ``predicted TFLOPS, h100``."""
    trajectories: tuple[Trajectory, ...]
    """Full cases, then causal ones, as far as there are any."""
    bars: tuple[BarGroup, ...]
    """Seed, best version and baselines on each case."""
    baselines: tuple[Baseline, ...]
    """Of the run's target, with a figure for one of its cases."""
    comparisons: tuple[Comparison, ...]
    """The best version beside them."""
    entries: tuple[Entry, ...]
    """The tree, line by line."""
    moves: tuple[Move, ...]
    """That were tried, the most profitable first; none of an operator that does not work by moves."""
    failures: tuple[Failures, ...]
    """By reason, all of them."""
    unverified: tuple[Unverified, ...]
    """The latest."""
    steps: Mapping[StepState, int]
    """How the steps ended."""
    models: tuple[ModelUse, ...]
    """That were called."""
    interventions: tuple[Intervention, ...]
    """Of the supervisor, oldest first."""
    transfer: str
    """What the run took over from another problem and how soon that paid, in words."""
    environment: tuple[tuple[str, str], ...]

    @property
    def run(self) -> Run:
        """The run."""
        return self.snapshot.run

    @property
    def by_number(self) -> tuple[Entry, ...]:
        """The entries in the order in which they were accepted."""
        return tuple(sorted(self.entries, key=lambda entry: entry.version.number))

    @property
    def judged_s(self) -> float:
        """Seconds of evaluation, those side by side added up."""
        return sum(attempt.seconds for attempt in self.snapshot.attempts)


def cut(words: str, most: int = MOST_WORDS) -> str:
    """Return ``words``, and what was left out where they are longer than ``most`` characters."""
    return words if len(words) <= most else f"{words[:most]}… ({len(words) - most} more characters)"
