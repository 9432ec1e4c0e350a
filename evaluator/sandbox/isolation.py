"""Isolation: what keeps candidates away from the rest of this machine. The means themselves are in ``sandbox``."""

from enum import StrEnum

from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.sandbox import bubblewrap, landlock

ADVICE = bubblewrap.ADVICE
"""What to do where namespaces are missing."""


class Sandbox(StrEnum):
    """Whether to judge on a machine without namespaces."""

    AUTO = "auto"
    """Judge anyway: Landlock and seccomp still keep candidates apart."""
    REQUIRE = "require"
    """Refuse to judge."""

    def check(self) -> None:
        """Raise ``EvaluatorUnavailable`` where namespaces are required and missing."""
        if self is Sandbox.REQUIRE and (missing := missing_namespaces()):
            raise EvaluatorUnavailable(f"no namespaces for candidates: {missing}: {ADVICE}")


def missing_namespaces() -> str:
    """Return in a few words why this machine has no namespaces for candidates; ``""`` where it has them."""
    return bubblewrap.missing()


def has_landlock() -> bool:
    """Return whether the kernel limits which files candidates can read."""
    return bool(landlock.version())


def isolation() -> str:
    """Return in words what keeps candidates apart on this machine, and what of it is missing."""
    lacking = missing_namespaces()
    return ", ".join(
        (
            f"no namespaces ({lacking})" if lacking else "namespaces",
            "Landlock" if has_landlock() else "no Landlock",
            "seccomp",
        )
    )
