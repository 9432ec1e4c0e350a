"""What can keep the executor from a result; none of it is a memory fault, which is a value.

IRError                the text is not Triton IR, or does not fit the arguments
UnsupportedOperation   the text is Triton IR, but holds something the executor does not do
ExecutionTimeout       the deadline passed
Deadlock               all programs that are left wait for each other: it never would end
"""

from evaluator.errors import EvaluatorError


class IRError(EvaluatorError):
    """The text is no valid Triton IR, or arguments do not fit its signature. One line."""


class UnsupportedOperation(EvaluatorError):
    """An operation, or a variant of one, that the executor does not do: no verdict on the numbers."""

    def __init__(self, name: str, location: str) -> None:
        super().__init__(f"unsupported operation {name} at {location}")
        self.name = name
        self.location = location


class ExecutionTimeout(EvaluatorError):
    """Execution did not end before its deadline, or never will."""


class Deadlock(ExecutionTimeout):
    """All programs that are left wait for each other."""
