"""Predicted speed: a kernel's SASS played through the pipes of one SM, scheduled over the chip.

See ``docs/performance-model.md`` for the method, its constants and its limits.
"""

from avo.evaluator.performance.memory import Timing
from avo.evaluator.performance.model import PredictedTime, predict, predict_time
from avo.evaluator.performance.profiling import explain
from avo.evaluator.performance.sass import ModelError

__all__ = ["ModelError", "PredictedTime", "Timing", "explain", "predict", "predict_time"]
