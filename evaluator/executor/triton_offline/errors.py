"""What an offline session refuses, in one line each."""

from collections.abc import Sequence

from evaluator.errors import EvaluatorError
from evaluator.executor.faults import MemoryFault


class OfflineError(EvaluatorError):
    """The session cannot start, or a launch is nothing that it can execute. One line."""


class FaultsFound(EvaluatorError):
    """A launch made faults, and the session was told to raise them: one line each."""

    def __init__(self, faults: Sequence[MemoryFault]) -> None:
        super().__init__("\n".join(fault.message for fault in faults))
        self.faults = tuple(faults)
