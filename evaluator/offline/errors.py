"""Errors of an offline session."""

from collections.abc import Sequence

from avo.evaluator.errors import EvaluatorError
from avo.evaluator.executor.faults import MemoryFault


class OfflineError(EvaluatorError):
    """The session cannot start, or cannot execute a launch. The message is one line."""


class Undecided(OfflineError):
    """What a launch does depends on contents that were never made."""


class FaultsFound(EvaluatorError):
    """A launch had faults, and the session was told to raise them. The message has one line for each."""

    def __init__(self, faults: Sequence[MemoryFault]) -> None:
        super().__init__("\n".join(fault.message for fault in faults))
        self.faults = tuple(faults)
