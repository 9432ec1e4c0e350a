"""Measured speed: the same launch plans on this machine's GPU, in processes that die with their candidates.

See ``docs/protocol.md`` for the protocol, what each step of it defends against, and its limits. Only ``triton_device``,
``runtime``, ``start``, ``clock`` and ``nvml`` speak to a GPU; all else is driven through ``device.Device``.
"""

import os
from functools import cache
from typing import TYPE_CHECKING

from avo.evaluator.target import Target

if TYPE_CHECKING:
    from avo.evaluator.cuda.cards import Card

CLOCK_HELP = "run each kernel for a stretch before each timed run (sustained), or time single runs (burst)"


@cache
def card() -> "Card":
    """Return this machine's GPU, for whose driver kernels are assembled from then on.

    Must come before anything compiles. Raises ``EvaluatorUnavailable`` where there is no GPU.
    """
    from avo.evaluator.cuda.contender import ask_card

    return adopted(ask_card())


def adopted(card: "Card") -> "Card":
    """Return ``card``, for whose driver this process and those that it starts assemble kernels from then on."""
    os.environ.update(card.assembler)
    return card


def this_card() -> Target:
    """Return this machine's GPU as the target ``cuda``.

    Raises ``EvaluatorUnavailable`` where there is none that can be measured on.
    """
    return card().target()
