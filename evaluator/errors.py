"""Faults of the house, as exceptions. Faults of a candidate are values: see ``evaluation.Status``.

EvaluatorError
+-- UnknownTarget          no such target
+-- UnknownProblem         no such problem, suite or case
+-- InvalidProblem         a problem of the user's own that is none
+-- InvalidPlan            a launch plan that breaks its own format
+-- EvaluatorUnavailable   the judge's process cannot be started or died for reasons of its own
"""


class EvaluatorError(Exception):
    """Base of every error this package raises on purpose. ``str()`` is one line that says what to do."""


class UnknownTarget(EvaluatorError):
    """No target has this name."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"unknown target {name!r}: choose one of {', '.join(known)}")


class UnknownProblem(EvaluatorError):
    """No problem, suite or case has this name."""

    def __init__(self, kind: str, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"unknown {kind} {name!r}: choose one of {', '.join(known)}")


class InvalidProblem(EvaluatorError):
    """What a file or package offers as a problem is none; the message names what is wrong with it."""


class InvalidPlan(EvaluatorError):
    """A launch plan does not follow the plan format; the message names the field."""


class EvaluatorUnavailable(EvaluatorError):
    """No verdict can be had: the judge, not the candidate, failed."""
