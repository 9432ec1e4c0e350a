"""Errors of the operators' room.

AgentError
+-- UnknownOperator     no operator of that name
+-- InvalidOperator     an installed plugin is not an operator
+-- CandidateTaken      another worker is evaluating the candidate at this moment
"""


class AgentError(Exception):
    """Base of every error this package raises on purpose. ``str()`` is one line that says what to do."""


class UnknownOperator(AgentError):
    """No operator has this name."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"unknown operator {name!r}: choose one of {', '.join(known)}")


class InvalidOperator(AgentError):
    """An entry point does not give an operator; the message names it."""


class CandidateTaken(AgentError):
    """Another worker is evaluating this candidate at this moment: an operator proposes another, or fails its step."""

    def __init__(self) -> None:
        super().__init__("another worker is evaluating this candidate: propose another")
