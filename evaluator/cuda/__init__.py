"""Measured speed: the same launch plans on this machine's GPU, in processes that die with their candidates.

See ``docs/cuda.md`` for the protocol, what each step of it defends against, and its limits. Only ``triton_device`` and
``nvml`` speak to a GPU; everything else is driven through ``device.Device``.
"""

from functools import cache
from typing import TYPE_CHECKING

from evaluator.target import Target

if TYPE_CHECKING:
    from evaluator.cuda.cards import Card

EQUIVALENCE_MARGIN = 0.005
"""Speeds that differ by less than this fraction count as equal."""
CASCADE = 0.25
"""A candidate whose optimistic prediction is further than this fraction below the incumbent's is not timed."""


CLOCKS = ("sustained", "burst")
"""Which clock speeds are measured at: the one under lasting work, as published figures are, or that of single runs."""
CLOCK_HELP = "run each kernel for a stretch before each timed run (sustained), or time single runs (burst)"


@cache
def card() -> "Card":
    """Return this machine's GPU; raise ``EvaluatorUnavailable`` where there is none."""
    from evaluator.cuda.contender import ask_card

    return ask_card()


def this_card() -> Target:
    """Return this machine's GPU as the target ``cuda``.

    Raises ``EvaluatorUnavailable`` where there is none that can be measured on.
    """
    return card().target()
