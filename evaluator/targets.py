"""Finds targets by name, this machine's GPU among them."""

from avo.evaluator import cuda
from avo.evaluator.known import check_target, known
from avo.evaluator.target import Target


def get_target(name: str) -> Target:
    """Return the target called ``name``; raise ``UnknownTarget`` with the known names otherwise.

    ``cuda`` asks this machine's GPU: ``EvaluatorUnavailable`` where there is none that can be measured on.
    """
    check_target(name)
    return known(name) or cuda.this_card()
