"""The record of a look: what an operator saw of a candidate before it evaluated one."""

from dataclasses import dataclass
from datetime import datetime

from avo.evaluator.evaluation import Status


@dataclass(frozen=True, slots=True)
class Looked:
    """A candidate that was looked at: compiled and predicted, but not executed, so its numbers may be wrong."""

    look_id: int
    step_number: int
    """Number of the first step that looked at it."""
    digest: str
    plan_digest: str | None
    """Digest of the launch plans for the benchmark cases, where the candidate got that far; not that of an attempt."""
    fault: Status | None
    """What keeps the candidate from being launched, if anything does."""
    geomean_tflops: float
    """Geometric mean of the prediction in TFLOPS; 0.0 for a faulty candidate."""
    doubt: float
    """Geometric mean over the cases of the factor on the time, 1 or more, if all doubts are true."""
    change: str
    """What was changed, in the operator's words."""
    parents: tuple[int, ...]
    """Numbers of the versions that the candidate was made from."""
    made: datetime
    critical: tuple[str, ...] | None = ()
    """The critical resources of the benchmark cases, each once; None where they were not kept yet. A step sees those of
    its own looks; of earlier steps' looks it sees the speed alone.
    """
