"""Records of the lineage database: plain frozen data, apart from the tables they are kept in. Times are UTC."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from evaluator.evaluation import Evaluation, Status


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
    """What was asked of the process that drives a run, in the order of urgency: none takes back a more urgent one."""

    NONE = ""
    PAUSE = "pause"
    """Start no new steps until this is taken back, which alone it can be."""
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
    """When anything of it was last written."""
    driver: str | None = None
    """The process that drives it, or did last."""
    driver_until: datetime | None = None
    """When that process counts as gone unless it says that it is there."""
    request: Request = Request.NONE
    """What was asked of that process."""

    @property
    def paused(self) -> bool:
        """Whether it runs, but was asked to start no new steps."""
        return self.state is RunState.RUNNING and self.request is Request.PAUSE

    def driven_at(self, now: datetime) -> bool:
        """Whether a process drives the run, seen at ``now``."""
        return self.driver_until is not None and self.driver_until >= now

    def state_at(self, now: datetime) -> RunState:
        """Return where the run stands, seen at ``now``."""
        if self.state is RunState.RUNNING and not self.driven_at(now):
            return RunState.INTERRUPTED
        return RunState.PAUSED if self.paused else self.state


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run with the figures a list of runs shows."""

    run: Run
    attempts: int
    versions: int
    best_geomean: float | None
    """Geometric mean of its latest version, in TFLOPS; None without versions."""
    seed_geomean: float | None
    """Geometric mean of version 0, in TFLOPS; None without versions."""


@dataclass(frozen=True, slots=True)
class Step:
    """One call of an operator, claimed by one worker."""

    id: int
    run_id: int
    number: int
    """Position in the run, from 0: step 0 evaluates the seed."""
    worker: str
    operator: str
    state: StepState
    digest: str | None
    """Of the candidate that was announced last: while the step runs, it is under evaluation or was."""
    started: datetime
    finished: datetime | None
    reason: str
    """Why the step failed or was abandoned, else what the operator reports."""
    submission: "Submission | None" = None
    """What it submitted, where the operator says so."""
    selection: "Selection | None" = None
    """What the population gave it to work on; None where it works on everything."""
    lease_until: datetime | None = None
    """When its worker counts as gone unless it says that it is there."""
    turn: int = 0
    """How many steps of its own its worker had before."""
    redoes: int | None = None
    """Number of the abandoned step that it does over, which may have been another worker's."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What a population gives one step to work on."""

    niche: str
    """The part of the population; what it means is the population's affair."""
    shown: tuple[int, ...]
    """Numbers of the versions that the operator sees as the lineage."""
    focus: int | None
    """Number of the one that it is asked to vary; None: it may choose."""
    founder: int | None
    """Number of the version that this part of the population started from, where it has one of its own."""
    why: str
    """In words."""
    turn: int = 0
    """How many steps this part of the population had before, where it counts them."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What an operator says of the attempt that it submits."""

    attempt_id: int
    change: str
    """What was changed, and from what."""
    hypothesis: str
    """Why that should help."""
    expected: str
    """The effect it expected, stated before the evaluation."""
    seen: str
    """The effect it saw."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A candidate evaluated in a step."""

    id: int
    run_id: int
    step_id: int
    digest: str
    source: str
    change: str
    """What was changed, in the operator's words."""
    parents: tuple[int, ...]
    """Version numbers it was made from."""
    evaluation: Evaluation
    started: datetime
    finished: datetime
    hypothesis: str = ""
    """Why the operator thought that the change would help, stated before the evaluation; empty where it did not say."""

    @property
    def status(self) -> Status:
        """The verdict."""
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
    """0.0 for a faulty candidate."""
    message: str
    change: str
    parents: tuple[int, ...]
    version: int | None
    """Its number in the lineage, where it was accepted."""
    seconds: float
    """How long the evaluation took."""
    finished: datetime
    hypothesis: str = ""
    """As in ``Attempt``."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The verdict on an attempt, and nothing else of it."""

    attempt_id: int
    status: Status
    message: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """A version as it was accepted, without its attempt."""

    number: int
    attempt_id: int
    step_number: int
    parents: tuple[int, ...]
    geomean_tflops: float
    champion: bool
    change: str
    accepted: datetime


@dataclass(frozen=True, slots=True)
class FailedCall:
    """A call of a model that gave no reply."""

    step_number: int | None
    """None for a call that belongs to no step."""
    model: str
    error: str
    finished: datetime


@dataclass(frozen=True, slots=True)
class Totals:
    """How much there is of a run."""

    attempts: int
    steps: int


@dataclass(frozen=True, slots=True)
class Version:
    """An accepted attempt. Versions form the lineage."""

    run_id: int
    number: int
    """From 0, the seed."""
    parents: tuple[int, ...]
    accepted: datetime
    attempt: Attempt
    niche: str = ""
    """The part of the population that it lives in; empty in a single lineage."""
    champion: bool = True
    """Whether it was the best of the run when it was accepted: in a single lineage each version was."""
    step_number: int = 0
    """Number of the step in which it was accepted, which need not be the one that evaluated its attempt."""


@dataclass(frozen=True, slots=True)
class History:
    """A run so far, as of one moment."""

    versions: Sequence[Version]
    """The lineage, seed first."""
    attempts: Sequence[AttemptSummary]
    """Every attempt, oldest first."""
    firsts: Mapping[str, int]
    """Ids of the first attempt of each launch plan, by the plan's digest. May have newer plans than ``attempts``."""


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of a step's transcript. Entries are only ever added."""

    step_id: int
    number: int
    """Position in the transcript, from 0."""
    kind: str
    """What ``content`` is: the operator that writes transcripts says which kinds there are."""
    content: Mapping[str, Any]
    """Plain data."""
    written: datetime


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One call of a model: what it cost, whether or not it was of use."""

    id: int
    run_id: int
    step_id: int | None
    """None for a call that belongs to no step, as the supervisor's."""
    model: str
    input_tokens: int
    """Cached ones included."""
    cached_tokens: int
    output_tokens: int
    usd: float | None
    """None where the model has no price."""
    seconds: float
    error: str
    """Why there was no reply that could be used; empty where there was one."""
    finished: datetime


@dataclass(frozen=True, slots=True)
class Spend:
    """What calls of models came to."""

    calls: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0
    """Of the calls whose price is known."""

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Spend") -> "Spend":
        return Spend(
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            self.usd + other.usd,
        )


@dataclass(frozen=True, slots=True)
class Memory:
    """A note that an operator left for later steps of its run."""

    id: int
    run_id: int
    step_number: int
    text: str
    written: datetime


@dataclass(frozen=True, slots=True)
class Intervention:
    """What the supervisor told the operators after it saw the trajectory."""

    id: int
    run_id: int
    after_step: int
    """Number of the newest step that it had seen."""
    level: str
    """How far it went: nudge, redirect or restart."""
    reason: str
    """What it saw."""
    directions: tuple[str, ...]
    """What to try next."""
    source: str
    """Where the directions come from: a model's name, or the knowledge base."""
    restart_from: int | None
    """Number of the version that the next steps start from, where they go back to one."""
    made: datetime
