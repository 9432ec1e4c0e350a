"""Finds targets by name, this machine's GPU among them."""

from avo.evaluator import cuda
from avo.evaluator.target import CUDA, TARGETS, Target, check_target


def get_target(name: str) -> Target:
    """Return the target called ``name``; raise ``UnknownTarget`` with the known names otherwise.

    ``cuda`` asks this machine's GPU: ``EvaluatorUnavailable`` where there is none that can be measured on.
    """
    check_target(name)
    if name == CUDA:
        return cuda.this_card()
    return TARGETS[name]
