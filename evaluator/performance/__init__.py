"""Predicted speed: a kernel's SASS played through the pipes of one SM, scheduled over the chip.

See ``docs/performance-model.md`` for the method, its constants and its limits.
"""

from evaluator.performance.model import ctas_per_sm, predict, resources
from evaluator.performance.profiling import explain
from evaluator.performance.sass import ModelError

__all__ = ["ModelError", "ctas_per_sm", "explain", "predict", "resources"]
