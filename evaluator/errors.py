"""Errors that are not a candidate's fault, as exceptions. A candidate's faults are values: see ``evaluation.Fault``.

EvaluatorError
+-- UnknownTarget          no such target
+-- BadCards               calibrated cards that cannot be read or kept
+-- UnknownProblem         no such problem, suite or case
+-- InvalidProblem         a user's own problem that lacks what a problem needs
+-- InvalidPlan            a launch plan that breaks its own format
+-- EvaluatorUnavailable   the judge does not start, or failed for reasons of its own
"""


class EvaluatorError(Exception):
    """Base of every error this package raises on purpose. ``str()`` is one line that says what to do."""


class UnknownTarget(EvaluatorError):
    """No target has this name."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"unknown target {name!r}: choose one of {', '.join(known)}")


class BadCards(EvaluatorError):
    """Calibrated cards cannot be read or kept; the message says why."""


class UnknownProblem(EvaluatorError):
    """No problem, suite or case has this name."""

    def __init__(self, kind: str, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"unknown {kind} {name!r}: choose one of {', '.join(known)}")


class InvalidProblem(EvaluatorError):
    """What a file or package offers is not a problem; the message says what is wrong with it."""


class InvalidPlan(EvaluatorError):
    """A launch plan does not follow the plan format; the message names the field."""


class EvaluatorUnavailable(EvaluatorError):
    """There is no verdict, because the judge failed and not the candidate."""
