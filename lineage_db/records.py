"""Records of the lineage database: plain frozen data that knows nothing of tables. Times are UTC."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from avo.evaluator.errors import BadCards
from avo.evaluator.evaluation import Evaluation, Status
from avo.evaluator.known import CARD, bring
from avo.lineage_db.decision import Decision, Ruling
from avo.lineage_db.ending import Ending
from avo.lineage_db.looked import Looked

if TYPE_CHECKING:
    from avo.lineage_db.seen import Seen


class RunState(StrEnum):
    """Where a run stands."""

    RUNNING = "running"
    STOPPED = "stopped"
    """Stopped on request or killed; can be resumed."""
    FINISHED = "finished"
    """Its budget is used up; can be resumed with a larger one."""
    INTERRUPTED = "interrupted"
    """Recorded as running, but the process that drove it is gone. Never stored: ``Run.state_at`` finds it."""
    PAUSED = "paused"
    """Running, but no new step is started. Never stored either."""


class Request(StrEnum):
    """What the process that drives a run was asked to do, in order of urgency: none takes back a more urgent one."""

    NONE = ""
    PAUSE = "pause"
    """Start no new steps. Only this request can be taken back."""
    STOP = "stop"
    """Let workers finish what they hold."""
    STOP_NOW = "stop now"
    """Abandon what they hold."""


class StepState(StrEnum):
    """Where one call of an operator stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    """The operator raised; the reason says how."""
    ABANDONED = "abandoned"
    """The worker stopped or died before the step was finished."""


@dataclass(frozen=True, slots=True)
class Doing:
    """Something that takes a while and is under way, for displays."""

    what: str
    """In words: ``judging seed mha/tuned.py``."""
    began: datetime
    done: int = 0
    of: int = 0
    """How many checks or other parts are done of how many; 0 of 0 where that is not known."""
    words: str = ""
    """How far it is in words, where there is more to say than numbers: see ``avo.evaluator.evaluators.Progress``."""
    host: str = ""
    """The machine of the worker; empty for a driver, which has a name of its own, and of earlier releases."""

    def to_json(self) -> dict[str, Any]:
        """Return it as data for JSON: the time in ISO format."""
        return {**asdict(self), "began": self.began.isoformat()}


@dataclass(frozen=True, slots=True)
class Run:
    """One search."""

    id: int
    name: str
    """Unique; what the command line calls RUN."""
    problem: str
    target: str
    suite: str
    operator: str
    seed: int
    config: Mapping[str, Any]
    """The resolved configuration, as stored in JSON."""
    state: RunState
    created: datetime
    updated: datetime
    """When anything in the run was last written."""
    driver: str | None = None
    """The process that drives the run, or did last."""
    driver_until: datetime | None = None
    """When that process counts as gone unless it renews its lease."""
    request: Request = Request.NONE
    """What that process was asked to do."""
    looks: int = 0
    """How many candidates were looked at."""
    doing: Doing | None = None
    """What the process that drives it does before and after its workers work; None while they do."""
    ended_by: Ending | None = None
    """Why its last session ended; None while it runs, and of sessions of earlier releases."""

    def __post_init__(self) -> None:
        """Let the run's calibrated card be known to whoever reads the run, whether or not the user's file has it."""
        if CARD in self.config:
            with suppress(BadCards):  # of another release: the run can be read, and not be judged
                bring(self.config[CARD])

    @property
    def paused(self) -> bool:
        """Whether the run goes on but was asked to start no new steps."""
        return self.state is RunState.RUNNING and self.request is Request.PAUSE

    def driven_at(self, now: datetime) -> bool:
        """Whether a process drives the run at ``now``."""
        return self.driver_until is not None and self.driver_until >= now

    def state_at(self, now: datetime) -> RunState:
        """Return where the run stands at ``now``."""
        if self.state is RunState.RUNNING and not self.driven_at(now):
            return RunState.INTERRUPTED
        return RunState.PAUSED if self.paused else self.state


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run with the figures that a list of runs shows."""

    run: Run
    attempts: int
    versions: int
    best_geomean: float | None
    """Geometric mean of the latest champion, in TFLOPS; None without versions."""
    seed_geomean: float | None
    """Geometric mean of the best seed, in TFLOPS; None without versions."""


@dataclass(frozen=True, slots=True)
class Step:
    """One call of an operator, claimed by one worker."""

    id: int
    run_id: int
    number: int
    """Position in the run, from 0: step 0 evaluates the seeds."""
    worker: str
    operator: str
    state: StepState
    digest: str | None
    """Digest of the candidate that was announced last: it is or was under evaluation, perhaps beside others."""
    started: datetime
    finished: datetime | None
    reason: str
    """Why the step failed or was abandoned; otherwise what the operator reports."""
    submission: "Submission | None" = None
    """What the operator submitted, where it says so."""
    selection: "Selection | None" = None
    """What the population gave it to work on; None where it works on everything."""
    lease_until: datetime | None = None
    """When the worker counts as gone unless it renews its claim."""
    turn: int = 0
    """How many steps of its own the worker had before."""
    redoes: int | None = None
    """Number of the abandoned step that this one repeats, perhaps another worker's."""
    reply: "PendingReply | None" = None
    """The reply of a model that the step waits for, or waited for when it was abandoned."""
    seen: "Seen | None" = None
    """What it was shown; None until its operator begins, and where an earlier release did not record it."""
    grown: int | None = None
    """How many versions the run had when the step was done, before it added its own; None for any other step."""
    looks: int = 0
    """How many candidates it looked at that the run had not looked at before."""
    doing: "tuple[Doing, ...] | None" = None
    """What its worker is doing, oldest first, or was doing when the step was abandoned; None before anything."""

    def said_of(self, attempt_id: int) -> "Submission | None":
        """Return what was said at its submission if that is about this attempt."""
        return self.submission if self.submission and self.submission.attempt_id == attempt_id else None


@dataclass(frozen=True, slots=True)
class PendingReply:
    """How much of a model's reply has come."""

    model: str
    asked: datetime
    heard: datetime | None
    """When it was last seen that something came; None: nothing yet."""
    characters: int
    """Characters of text, reasoning and calls."""
    until: datetime | None = None
    """Where the model has failed: when it is asked again. No request is under way until then."""
    trouble: str = ""
    """Which endpoint has failed, with what, and how often, in words."""

    def to_json(self) -> dict[str, Any]:
        """Return it as data for JSON: times in ISO format."""
        return {key: each.isoformat() if isinstance(each, datetime) else each for key, each in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Selection:
    """What a population gives one step to work on."""

    niche: str
    """The part of the population; what it means is the population's affair."""
    shown: tuple[int, ...]
    """Numbers of the versions that the operator sees as the lineage."""
    focus: int | None
    """Number of the version that the operator is asked to vary; None: it may choose."""
    founder: int | None
    """Number of the version that this part of the population started from, where it has one of its own."""
    why: str
    """Why the population chose this, in words."""
    turn: int = 0
    """How many steps this part of the population had before, where it counts them."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What an operator says about the attempt that it submits."""

    attempt_id: int
    change: str
    """What was changed, and from what."""
    hypothesis: str
    """Why that should help."""
    expected: str
    """The effect that the operator expected, stated before the evaluation."""
    seen: str
    """The effect that the operator saw."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A candidate evaluated in a step."""

    id: int
    """Its number in the run, from 1."""
    run_id: int
    step_id: int
    digest: str
    source: str
    change: str
    """What was changed, in the operator's words."""
    parents: tuple[int, ...]
    """Numbers of the versions that the candidate was made from."""
    evaluation: Evaluation
    started: datetime
    finished: datetime
    hypothesis: str = ""
    """Why the operator expected the change to help, stated before the evaluation; empty where it did not say."""
    decision: Decision | None = None
    """Why it is a version or not; None for a faulty attempt, and where an earlier release did not record it."""
    built_on: int | None = None
    """Id of the attempt whose source it was edited from, which ``change`` is about; None where it was edited from that
    of its first parent.
    """

    @property
    def status(self) -> Status:
        """The verdict of the evaluation."""
        return self.evaluation.status

    @property
    def plan_digest(self) -> str | None:
        """Digest of the launch plans, where the candidate got that far."""
        return self.evaluation.plan_digest


@dataclass(frozen=True, slots=True)
class AttemptSummary:
    """An attempt without what is long, its source and its evaluation: one line of a run's history."""

    attempt_id: int
    step_number: int
    digest: str
    plan_digest: str | None
    status: Status
    geomean_tflops: float
    """Geometric mean of the score in TFLOPS; 0.0 for a faulty candidate."""
    message: str
    change: str
    parents: tuple[int, ...]
    version: int | None
    """The attempt's number in the lineage, where it was accepted."""
    seconds: float
    """How long the evaluation took."""
    finished: datetime
    hypothesis: str = ""
    """Why the operator expected the change to help; empty where it did not say."""
    decision: Decision | None = None
    """As in ``Attempt``."""
    built_on: int | None = None
    """As in ``Attempt``."""
    whole_change: str = ""
    """As in ``Version``; empty where the attempt is none."""
    seen: str = ""
    """As in ``Version``."""

    @property
    def ruling(self) -> Ruling | None:
        """What was decided about it; None where nothing was, as of a faulty one."""
        return self.decision.ruling if self.decision else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The verdict on an attempt and its speed, and nothing else."""

    attempt_id: int
    status: Status
    message: str
    geomean_tflops: float
    """As in ``AttemptSummary``."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A version without its attempt."""

    number: int
    attempt_id: int
    step_number: int
    parents: tuple[int, ...]
    geomean_tflops: float
    champion: bool
    change: str
    accepted: datetime
    gain: float | None
    """Gain over the fastest of its parents, 0.03 being 3 percent; None for a version without parents."""


@dataclass(frozen=True, slots=True)
class FailedCall:
    """A model call that gave no reply."""

    step_number: int | None
    """Number of the step; None for a call that belongs to no step."""
    model: str
    error: str
    finished: datetime


@dataclass(frozen=True, slots=True)
class Version:
    """An accepted attempt. Versions form the lineage."""

    run_id: int
    number: int
    """Position in the lineage, from 0."""
    parents: tuple[int, ...]
    accepted: datetime
    attempt: Attempt
    niche: str = ""
    """The part of the population that the version belongs to; empty in a single lineage."""
    champion: bool = True
    """Whether the version was the best of the run when it was accepted; in a single lineage each one was."""
    step_number: int = 0
    """Number of the step that accepted the version, which need not be the one that evaluated the attempt."""
    whole_change: str = ""
    """What it changes against its parents, all edits together, as it was submitted; empty where that was not said."""
    seen: str = ""
    """The effect that the operator saw."""

    @property
    def change(self) -> str:
        """What it changes against its parents, in the operator's words."""
        return self.whole_change or self.attempt.change


@dataclass(frozen=True, slots=True)
class History:
    """A run so far, as of one moment."""

    versions: Sequence[Version]
    """The lineage, seed first."""
    attempts: Sequence[AttemptSummary]
    """Every attempt, oldest first."""
    looks: Sequence[Looked]
    """Every look, oldest first."""
    firsts: Mapping[str, int]
    """Id of the first attempt with each launch plan, by the plan's digest. May know newer plans than ``attempts``."""
