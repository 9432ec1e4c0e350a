"""What a report says about a run, as frozen records."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from avo.evaluator.evaluation import Score
from avo.evaluator.problem import Baseline
from avo.lineage_db.entries import Intervention, Spend
from avo.lineage_db.records import AttemptSummary, Run, Step, StepState, Version
from avo.report.figures import BarGroup
from avo.watch.failures import Failures, Reason
from avo.watch.scores import BaselineComparison
from avo.watch.trajectory import Trajectory
from avo.watch.view import RunView

MOST_DIFFS = 300
"""Number of versions that are shown with a diff: the latest."""
MOST_DIFF_LINES, MOST_DIFF_CHARACTERS = 200, 8000
"""Most lines and characters of one diff that are shown."""
MOST_SOURCE, MOST_SOURCE_LINES = 60_000, 2000
"""Most characters of a source that is compared or shown, and most lines of one that is compared."""
MOST_REASONS, MOST_UNVERIFIED, MOST_IDEAS = 15, 10, 30
"""Most rows in the tables of failures by reason, of unverified attempts and of ideas."""


@dataclass(frozen=True, slots=True)
class VersionDiff:
    """What a version changed in the source of its first parent."""

    parent: int
    lines: tuple[str, ...]
    """The lines of a unified diff, without the file names at its head."""
    left_out: int
    """Number of lines that are not shown."""
    trouble: str = ""
    """Why there is no diff; empty if there is one."""


@dataclass(frozen=True, slots=True)
class VersionEntry:
    """A version in the tree of versions."""

    version: Version
    depth: int
    """How deep the version is indented in the tree."""
    gain: float | None
    """Gain over the fastest parent, 0.03 being 3 percent; None for a version without parents."""
    gains: tuple[float | None, ...]
    """Gain over the fastest parent on the cases of each trajectory."""
    step: Step
    tried: int
    """Number of attempts that the version's step made."""
    failed: int
    """Number of those attempts that were not correct."""
    compared: str
    """The result of timing the version in turn with the best one before it, in words; empty if speed was predicted."""
    diff: VersionDiff | None


@dataclass(frozen=True, slots=True)
class IdeaTally:
    """How one of the moves of ``mutate`` fared, or an idea of another operator."""

    name: str
    tried: int
    correct: int
    refused: int
    """Number of correct attempts that were decided to be no versions."""
    accepted: int
    gains: tuple[float, ...]
    """Gain of all versions that it made, compounded, on the cases of each trajectory: an equal part where several
    moves made one together.
    """
    why: tuple[Reason, ...]
    """Why attempts are no versions, the most frequent reason first."""


@dataclass(frozen=True, slots=True)
class Unverified:
    """An attempt that was compiled but not executed: its numbers were not checked."""

    attempt: int
    change: str
    predicted: Score | None


@dataclass(frozen=True, slots=True)
class ModelUse:
    """What the calls of one model cost."""

    model: str
    spend: Spend
    failed: int
    """Number of calls without a usable reply."""
    unpriced: int
    """Number of calls whose price is not known: they are not part of ``spend.usd``."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Charts:
    """What the figures and tables of a run's versions show; no steps and no summaries of attempts are needed."""

    view: RunView
    versions: tuple[Version, ...]
    """The accepted versions, the seeds first."""
    unit: str
    """The unit of every score, e.g. ``predicted TFLOPS, h100``."""
    trajectory: Trajectory | None
    """The trajectory over all cases; None without versions."""
    groups: tuple[Trajectory, ...]
    """The trajectories of the full and of the causal cases, if the run has both."""
    bars: tuple[BarGroup, ...]
    """Speed of the seed, the best version and the baselines on each case; where there are none, of the roofline."""
    baselines: tuple[Baseline, ...]
    """Published baselines for the run's target that have a figure for at least one of its cases."""
    comparisons: tuple[BaselineComparison, ...]
    """The best version compared with each baseline."""
    interventions: tuple[Intervention, ...]
    """The supervisor's interventions, oldest first."""

    @property
    def run(self) -> Run:
        """The run."""
        return self.view.run

    @property
    def trajectories(self) -> tuple[Trajectory, ...]:
        """The trajectories of the groups of cases; that of all cases if there is only one group."""
        return self.groups or ((self.trajectory,) if self.trajectory else ())


@dataclass(frozen=True, slots=True)
class Report(Charts):
    """Everything that a report on a run shows."""

    attempts: tuple[AttemptSummary, ...]
    """Every attempt, oldest first."""
    busy: timedelta
    """Time in which at least one step that has ended was under way. Pauses between resumes do not count."""
    attempts_per_minute: float | None
    """Attempts per minute of ``busy``; None before the first step has ended."""
    entries: tuple[VersionEntry, ...]
    """The rows of the tree of versions, in the order in which they are drawn."""
    moves: tuple[IdeaTally, ...]
    """The moves that were tried, the most profitable first; empty unless the run used ``mutate``."""
    ideas: tuple[IdeaTally, ...]
    """The hypotheses of other operators, or their changes where they gave none, the most profitable first."""
    failures: tuple[Failures, ...]
    """All failures, grouped by reason."""
    refused: tuple[AttemptSummary, ...]
    """The correct attempts that were refused: the unresolved ones first, then those that were nearest to the best
    version of their time.
    """
    unverified: tuple[Unverified, ...]
    """The latest unverified attempts."""
    steps: Mapping[StepState, int]
    """Number of steps by state."""
    models: tuple[ModelUse, ...]
    """The models that were called."""
    transfer: str
    """What the run transferred from another problem and how soon that paid, in words."""
    environment: tuple[tuple[str, str], ...]

    @property
    def by_number(self) -> tuple[VersionEntry, ...]:
        """The entries by version number."""
        return tuple(sorted(self.entries, key=lambda entry: entry.version.number))

    @property
    def judged_s(self) -> float:
        """Sum of the durations of all evaluations in seconds, also of those that ran at the same time."""
        return sum(attempt.seconds for attempt in self.attempts)
