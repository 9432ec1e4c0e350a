"""Errors that keep the executor from a result. Memory faults are not errors but part of the result.

IRError                the text is not Triton IR, or does not fit the arguments
UnsupportedOperation   the text is Triton IR, but holds something the executor does not do
ExecutionTimeout       the deadline passed
Deadlock               all remaining programs wait for each other
StuckProgram           all partitions of one program wait for each other
"""

from avo.evaluator.errors import EvaluatorError


class IRError(EvaluatorError):
    """The text is not valid Triton IR, or arguments do not fit its signature. The message is one line."""


class UnsupportedOperation(EvaluatorError):
    """The executor does not implement an operation or a variant of one, and so cannot judge the kernel's results."""

    def __init__(self, name: str, location: str) -> None:
        super().__init__(f"unsupported operation {name} at {location}")
        self.name = name
        self.location = location


class ExecutionTimeout(EvaluatorError):
    """Execution did not end before its deadline, or never would."""


class Deadlock(ExecutionTimeout):
    """All remaining programs wait for each other."""


class StuckProgram(Deadlock):
    """All partitions of one program wait for each other, whatever other programs do."""
