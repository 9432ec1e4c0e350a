"""Predicted speed: a kernel's SASS played through the pipes of one SM, scheduled over the chip.

See ``docs/performance-model.md`` for the method, its constants and its limits.
"""

from evaluator.performance.memory import Timing
from evaluator.performance.model import PredictedTime, ctas_per_sm, predict, predict_time, resources
from evaluator.performance.profiling import explain
from evaluator.performance.sass import ModelError

__all__ = ["ModelError", "PredictedTime", "Timing", "ctas_per_sm", "explain", "predict", "predict_time", "resources"]
