"""Evaluations: what the judge found about one candidate on one target."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

import msgspec

from evaluator.target import ScoreKind


class Status(StrEnum):
    """The verdict. Every value but ``CORRECT`` is a fault of the candidate."""

    CORRECT = "correct"
    PARSE_ERROR = "parse_error"
    """The source is not Python, or raises when imported."""
    NO_ENTRY = "no_entry"
    """The problem's entry function is missing, or raises when called."""
    READS_CONTENTS = "reads_contents"
    """Host code depends on the contents of a tensor."""
    FORBIDDEN = "forbidden"
    """Host code does what only kernels may do, or asks for more launches or scratch than allowed."""
    LOWERING_ERROR = "lowering_error"
    """Triton's front end refuses a kernel."""
    COMPILE_ERROR = "compile_error"
    """The kernel's IR does not compile for the target."""
    DOES_NOT_FIT = "does_not_fit"
    """The binary needs more shared memory, tensor memory or registers than the target has."""
    UNVERIFIED = "unverified"
    """Compiled, fits, and its numbers were not checked: a kernel is given in an IR that only a GPU runs."""
    UNSUPPORTED = "unsupported"
    """The executor does not know an operation: no verdict on the numbers."""
    INCORRECT = "incorrect"
    """Wrong numbers."""
    UNWRITTEN = "unwritten"
    """Some output elements were never written."""
    OUT_OF_BOUNDS = "out_of_bounds"
    """A kernel accesses memory outside its buffers."""
    RACE = "race"
    """Programs of one launch store to, or read and write, the same memory: the result depends on who comes first."""
    NOT_TIMED = "not_timed"
    """Right as far as executed, and by its prediction too far behind the incumbent to be worth timing."""
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"
    """The candidate's process, or the compiler on its IR, died."""


REFUSED = (Status.INCORRECT, Status.UNWRITTEN, Status.OUT_OF_BOUNDS, Status.RACE)
"""Faults of a plan that stand: who might ask again, with the same plan, until a sample is lucky would be right in the
end. Other faults may be the machine's.
"""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a candidate cannot go on: what the stages of the judge return instead of their result."""

    status: Status
    message: str
    """One line or a few that an author can act on."""


@dataclass(frozen=True)
class Resources:
    """What one kernel needs of the target."""

    kernel: str
    registers: int
    """Per thread, at launch."""
    spill_bytes: int
    """Bytes per thread that registers could not hold."""
    shared_bytes: int
    """Per CTA, static and dynamic."""
    tensor_memory_columns: int
    warps: int
    """Per CTA."""
    ctas_per_sm: int
    """Resident together; 0 when it does not fit."""


@dataclass(frozen=True)
class CaseScore:
    """Speed on one benchmark case."""

    case: str
    tflops: float
    """Useful FLOPs of the case over time, in 1e12 per second."""
    time_us: float
    limiter: str
    """Of a prediction: the busiest part of the machine, e.g. ``tensor``, ``exp``, ``issue``, ``latency``, ``hbm``."""
    utilisation: Mapping[str, float] = field(default_factory=dict)
    """Busy fraction of each pipe in the hot loop's steady state, 0 to 1."""
    low_tflops: float = 0.0
    """Of a prediction: what it is with every constant at the end that makes kernels slow, and all doubts true. Of a
    measurement: the lower quartile; ``tflops`` is the median. 0 where no interval was made."""
    high_tflops: float = 0.0
    """The same at the other end."""
    doubts: tuple[str, ...] = ()
    """Of a prediction: what the model does not know about this kernel, beside its constants."""
    critical: str = ""
    """Of a prediction: the resource of which a little less would save most time, where there is one. A pipe, ``issue``,
    ``latency``, ``cta_barrier``, ``l2`` or ``hbm``; often not the busiest."""
    configurations: tuple[str, ...] = ()
    """Of autotuned kernels, as ``KERNEL: CHOICE``: those that were fastest on this case."""


class Verdict(StrEnum):
    """What a comparison of measured speeds has shown so far."""

    FASTER = "faster"
    SLOWER = "slower"
    EQUIVALENT = "equivalent"
    """Within the equivalence margin."""
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Comparison:
    """How a candidate fared against the incumbent, timed in turn with it in one window."""

    plan_digest: str
    """Of the incumbent's launch plans."""
    alpha: float
    """Probability of error that the comparison may spend."""
    log_ratios: tuple[float, ...]
    """One a round: mean over the benchmark cases of log(incumbent's time / candidate's time), above 0 when faster."""
    verdict: Verdict


@dataclass(frozen=True)
class Score:
    """A vector of TFLOPS, one per benchmark case, ranked by geometric mean."""

    kind: ScoreKind
    target: str
    cases: tuple[CaseScore, ...]
    comparison: Comparison | None = None
    """Of a measured score: against the incumbent it was timed with. Its samples are not those of the score."""
    card: str = ""
    """Of a measured score: the name of the GPU."""
    conditions: str = ""
    """Of a measured score, in words: driver, clocks, what held them down, why it was worth timing."""

    def __post_init__(self) -> None:
        if not self.cases or any(not (math.isfinite(case.tflops) and case.tflops > 0) for case in self.cases):
            raise ValueError("a score needs at least one case and positive, finite TFLOPS")

    @property
    def geomean_tflops(self) -> float:
        """Geometric mean of the cases' TFLOPS."""
        return geometric_mean([case.tflops for case in self.cases])

    def beats(self, other: "Score", min_gain: float) -> bool:
        """Whether this predicted score is ``1 + min_gain`` times the predicted ``other`` or more, and stays ahead
        wherever in their ranges the model's constants are.

        Raises ``ValueError`` for a measured one: of two samples the larger need not be the better kernel's, so there
        only a ``Comparison`` tells. Two related kernels share most of what the model does not know, so they are
        compared at the same ends, not each one's low end with the other's high end.
        """
        if ScoreKind.MEASURED in (self.kind, other.kind):
            raise ValueError("measured scores are compared by their Comparison, not by their values")
        if self.geomean_tflops < other.geomean_tflops * (1 + min_gain):
            return False
        ends = [[(case.low_tflops, case.high_tflops) for case in score.cases] for score in (self, other)]
        if not all(low > 0 and high > 0 for cases in ends for low, high in cases):
            return True  # no intervals were made
        (mine_low, mine_high), (other_low, other_high) = (
            tuple(map(geometric_mean, zip(*cases, strict=True))) for cases in ends
        )
        return mine_low >= other_low and mine_high >= other_high


def geometric_mean(values: Iterable[float]) -> float:
    """Return the geometric mean of positive numbers, of which there is one at least."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))


@dataclass(frozen=True)
class CaseResult:
    """Numbers of one correctness case against the reference."""

    case: str
    passed: bool
    relative_error: float | None
    """``||out - ref|| / ||ref||``; None when it could not be computed."""
    lse_error: float | None
    """Largest ``|lse - ref|``."""
    message: str = ""


@dataclass(frozen=True)
class Evaluation:
    """What the judge found. Only a correct candidate carries a score, and a correct one always does.

    An unverified one may carry a prediction instead: of a kernel that may be wrong, so never compared with scores.
    """

    status: Status
    message: str
    target: str
    suite: str
    seconds: float
    """Wall-clock time of the evaluation."""
    score: Score | None = None
    cases: tuple[CaseResult, ...] = ()
    resources: tuple[Resources, ...] = ()
    plan_digest: str | None = None
    """Digest of the launch plans: two sources that lower to the same IR are one candidate."""
    predicted: Score | None = None
    """Of an unverified candidate: what the model says of its speed, where it can."""
    held_out_tflops: float | None = None
    """Of a version: geometric mean over the shapes that no operator is shown, on which it is correct too; predicted or
    measured as the score is."""
    examined: Status | None = None
    """Of a correct candidate: what came of a closer look before acceptance, ``CORRECT`` or one of ``REFUSED``."""
    traits: Mapping[str, str] = field(default_factory=dict)
    """Of a correct candidate: what kind of kernel it is, see ``evaluator.judging.traits``."""

    def __post_init__(self) -> None:
        if (self.status is Status.CORRECT) != (self.score is not None):
            raise ValueError(
                f"an evaluation with status {self.status} must {'' if self.correct else 'not '}have a score"
            )
        if self.predicted is not None and self.status is not Status.UNVERIFIED:
            raise ValueError("only an unverified candidate has a prediction in place of a score")
        if self.held_out_tflops is not None and not self.correct:
            raise ValueError("only a correct candidate is judged on shapes that are held out")
        if self.examined is not None and not (self.correct and self.examined in (Status.CORRECT, *REFUSED)):
            raise ValueError("only a correct candidate is examined, and only verdicts that stand are kept")
        if not self.correct and not self.message:
            raise ValueError("a fault needs a message")

    @property
    def correct(self) -> bool:
        """Whether the candidate passed everything."""
        return self.status is Status.CORRECT

    @property
    def refused(self) -> Status | None:
        """The fault of the launch plans that stands, whoever judges them next."""
        return next((status for status in (self.status, self.examined) if status in REFUSED), None)

    @property
    def geomean_tflops(self) -> float:
        """The rank: geometric mean of the score, 0.0 for a faulty candidate."""
        return self.score.geomean_tflops if self.score else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON; ``from_json`` takes it back."""
        data: dict[str, Any] = msgspec.to_builtins(self)
        for name, score in (("score", self.score), ("predicted", self.predicted)):
            if score:
                data[name]["geomean_tflops"] = score.geomean_tflops
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Evaluation":
        """Rebuild from ``to_json``'s data; raise ``TypeError`` or ``ValueError`` when malformed."""
        # What a later release knows more of an evaluation must not be lost when it is stored again.
        if isinstance(data, Mapping) and (unknown := data.keys() - {field.name for field in fields(cls)}):
            raise TypeError(f"an evaluation with the unknown fields {', '.join(sorted(unknown))}")
        return msgspec.convert(data, cls)
