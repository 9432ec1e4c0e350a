"""Evaluations: what the judge found about one candidate on one target."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

import msgspec

from avo.evaluator.target import ScoreKind


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
    """It compiles and fits, but its numbers were not checked: a kernel in Gluon does what only a GPU runs."""
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
    MISCOMPILED = "miscompiled"
    """The compiler makes a kernel wrong: right in Triton IR, wrong after one of Triton's passes."""
    NOT_TIMED = "not_timed"
    """Correct as far as it was executed, but predicted to be too far behind the incumbent to be worth timing."""
    DEADLOCK = "deadlock"
    """Programs, or partitions of one, wait for each other for ever."""
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"
    """The candidate's process, or the compiler on its IR, died."""

    @property
    def words(self) -> str:
        """The verdict as people read it: ``does not fit``."""
        return self.value.replace("_", " ")


REFUSED = (
    Status.INCORRECT,
    Status.UNWRITTEN,
    Status.OUT_OF_BOUNDS,
    Status.RACE,
    Status.MISCOMPILED,
    Status.DEADLOCK,
)
"""Faults that stand for a launch plan. If it could be judged again and again, a wrong plan would pass with the first
lucky sample. Other faults may be the machine's.
"""


TRAITS = ("tile", "warps", "stages", "shared", "occupancy", "limiter", "masks", "grid", "sums")
"""Names of the traits of a correct candidate: the shape of the first matrix product's result, warps per CTA, requested
pipeline stages, shared memory per CTA, resident CTAs per SM, what limits the first benchmark case most, whether
products are in one loop or in several (a split at the diagonal), whether the grid is as large as the number of
resident CTAs, and whether floating-point numbers are added by atomics, so that results depend on the order of programs.
"""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a candidate cannot go on: what the stages of the judge return instead of their result."""

    status: Status
    message: str
    """One line or a few that an author can act on."""
    kind: str = ""
    """What is wrong, without the case that shows it, where the status does not say all: which kind of finding the
    executor reports, or after which pass a kernel is wrong."""


@dataclass(frozen=True)
class Resources:
    """What one kernel needs of the target."""

    kernel: str
    registers: int
    """Registers per thread, at launch."""
    spill_bytes: int
    """Bytes per thread that did not fit into registers."""
    shared_bytes: int
    """Shared memory per CTA in bytes, static and dynamic."""
    tensor_memory_columns: int
    warps: int
    """Warps per CTA."""
    ctas_per_sm: int
    """CTAs that are resident on one SM together; 0 if not even one fits."""


@dataclass(frozen=True)
class CaseScore:
    """Speed on one benchmark case."""

    case: str
    tflops: float
    """Useful FLOPs of the case over time, in 1e12 per second."""
    time_us: float
    limiter: str
    """The busiest part of the machine, where speed is predicted, e.g. ``tensor``, ``issue``, ``latency`` or ``hbm``."""
    utilisation: Mapping[str, float] = field(default_factory=dict)
    """Busy fraction of each pipe in the hot loop's steady state, 0 to 1."""
    low_tflops: float = 0.0
    """Low end of the interval. For a prediction: the slowest of its draws, with all doubts true and a margin for what
    no constant explains. For a measurement: the lower quartile, where ``tflops`` is the median. 0 where no interval was
    made."""
    high_tflops: float = 0.0
    """High end of the interval, likewise."""
    doubts: tuple[str, ...] = ()
    """What the model does not know about this kernel, besides its constants, where speed is predicted."""
    critical: str = ""
    """The resource whose relief would save most time, where speed is predicted and there is one: a pipe, ``issue``,
    ``latency``, ``cta_barrier``, ``l2``, ``hbm``, or ``launches``: starting them. Often not the busiest."""
    configurations: tuple[str, ...] = ()
    """The fastest configurations of autotuned kernels on this case, as ``KERNEL: CHOICE``."""
    draws: tuple[float, ...] = ()
    """TFLOPS in each joint draw of the model's constants, doubts left out, where speed is predicted. The draws are the
    same for all kernels on a target."""
    doubt: float = 1.0
    """Factor on the time, 1 or more, if all doubts are true."""


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
    """Digest of the incumbent's launch plans."""
    alpha: float
    """Probability of error that the comparison may spend."""
    log_ratios: tuple[float, ...]
    """One value per round: the mean over the benchmark cases of log(incumbent's time / candidate's time), above 0 when
    faster.
    """
    verdict: Verdict
    against_itself: tuple[float, ...] = ()
    """What the same rounds say of the incumbent against itself: the mean over the benchmark cases of log(its first
    time / its second). Both are of one process, so this does not show what differs from process to process.
    """
    between: float | None = None
    """By how much pairs of processes differ for as long as they live: standard deviation of log ratios, without the
    noise of rounds. None of fewer than two pairs.
    """


@dataclass(frozen=True)
class Score:
    """TFLOPS for each benchmark case, ranked by the geometric mean: of its neighbours, where they are known."""

    kind: ScoreKind
    target: str
    cases: tuple[CaseScore, ...]
    comparison: Comparison | None = None
    """The comparison of a measured score with the incumbent's. Its samples are not those of the score."""
    card: str = ""
    """Name of the GPU on which the score was measured."""
    conditions: str = ""
    """How the score was measured, in words: driver, clocks, what held them down, why it was worth timing."""
    neighbours: tuple[tuple[float, ...], ...] = ()
    """For each neighbour the geometric mean of its TFLOPS in each joint draw, on the suite that versions are ranked by.
    A neighbour is the same kernel with independent instructions in another order. They are predicted before acceptance,
    and are part of that verdict.
    """

    def __post_init__(self) -> None:
        if not self.cases or any(not (math.isfinite(case.tflops) and case.tflops > 0) for case in self.cases):
            raise ValueError("a score needs at least one case and positive, finite TFLOPS")

    @property
    def geomean_tflops(self) -> float:
        """The rank: the geometric mean of the neighbours, where they are known, else of the cases."""
        return geometric_mean(map(geometric_mean, self.neighbours)) if self.neighbours else self.own_tflops

    @property
    def own_tflops(self) -> float:
        """Geometric mean of the cases' TFLOPS, of the kernel as the compiler wrote it."""
        return geometric_mean([case.tflops for case in self.cases])

    @property
    def ranges(self) -> dict[str, tuple[float, float, float]]:
        """TFLOPS of each case: low end, the score, high end."""
        return {
            case.case: (case.low_tflops or case.tflops, case.tflops, case.high_tflops or case.tflops)
            for case in self.cases
        }

    @property
    def ends(self) -> tuple[float, float]:
        """The low and the high end of the rank's interval, geometric means over the cases; zeros where a case has none.
        Neighbours move it as a whole: it is the error of the model, which they share.
        """
        if not all(case.low_tflops for case in self.cases):
            return 0.0, 0.0
        moved = self.geomean_tflops / self.own_tflops
        low, high = (geometric_mean(getattr(case, end) for case in self.cases) for end in ("low_tflops", "high_tflops"))
        return low * moved, high * moved


def geometric_mean(values: Iterable[float]) -> float:
    """Return the geometric mean of one or more positive numbers."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))


@dataclass(frozen=True)
class CaseResult:
    """Errors of one case against the reference."""

    case: str
    passed: bool
    relative_error: float | None
    """``||out - ref|| / ||ref||``, the largest of all outputs with such a tolerance; None if it was not computed."""
    absolute_error: float | None
    """Largest ``|out - ref|`` of outputs whose tolerance is absolute, such as lse."""
    message: str = ""


@dataclass(frozen=True)
class Evaluation:
    """What the judge found. A correct candidate has a score, and no other has one.

    An unverified candidate may have a prediction instead. It may be wrong, so scores are never compared with that.
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
    """What the model says of an unverified candidate's speed, where it can."""
    held_out_tflops: float | None = None
    """Geometric mean over the shapes that no operator is shown, for an accepted candidate; predicted or measured as the
    score is."""
    examined: Status | None = None
    """What a closer look at a correct candidate before acceptance found: ``CORRECT`` or one of ``REFUSED``."""
    compiled: str = ""
    """What a closer look says of what the compiler made of the kernels, which tells nothing of the cases: after which
    pass one is wrong, or what was not checked and why."""
    traits: Mapping[str, str] = field(default_factory=dict)
    """What kind of kernel a correct candidate is, in words that a search can sort kernels by. Names: ``TRAITS``."""

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
        """The fault that stands for the launch plans, if any."""
        return next((status for status in (self.status, self.examined) if status in REFUSED), None)

    @property
    def atomic(self) -> bool:
        """Whether floating-point numbers are added by atomics, so that results differ in their last bits."""
        return self.traits.get("sums") == "atomic"

    @property
    def geomean_tflops(self) -> float:
        """The rank: geometric mean of the score, 0.0 for a faulty candidate."""
        return self.score.geomean_tflops if self.score else 0.0

    @property
    def own_tflops(self) -> float:
        """The same of the kernel as the compiler wrote it, as looks and attempts have it before they are examined."""
        return self.score.own_tflops if self.score else 0.0

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
