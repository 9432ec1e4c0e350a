"""The predicted time of one launch that belongs to no problem: what must pass through memory follows from itself."""

from avo.evaluator.performance.memory import Timing
from avo.evaluator.performance.model import PredictedTime, predict_time
from avo.evaluator.target import Target
from avo.evaluator.work import LaunchWork


def predict_launch(
    work: LaunchWork, target: Target, readable_bytes: int, writable_bytes: int, timing: Timing
) -> PredictedTime:
    """Return the predicted time of a launch, timed in one way.

    ``readable_bytes`` and ``writable_bytes`` are the distinct bytes of the tensors that it may read and write to. Where
    it was not looked at what programs access, all of them must pass through memory, but not more than programs ask for.
    Raises like ``predict_time``.
    """
    read = min(readable_bytes, work.total("load_bytes"))
    written = min(writable_bytes, work.total("store_bytes"))
    return predict_time([work], target, least_bytes=0 if work.accesses else int(read + written), timing=timing)
