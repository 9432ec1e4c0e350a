"""Why a session of a run ended, as data."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Cause(StrEnum):
    """What ended a session."""

    LIMIT = "limit"
    REQUEST = "request"
    """Ctrl-C, a signal or ``avo stop``."""
    EXHAUSTED = "exhausted"
    """The operator has nothing left to try."""
    BARREN = "barren"
    """The operator made no attempt in many steps in a row, though it can always make one: something is wrong."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Ending:
    """Why the last session of a run ended."""

    cause: Cause
    why: str
    """In words, to follow the name of the run: ``has made 5 of 5 attempts``."""
    limit: str = ""
    """With ``LIMIT``: the setting that was reached, as in ``max_attempts``."""
    enough: float | None = None
    """With ``LIMIT``: a value of that setting with which the run goes on; None where it goes on with the same."""
    final: bool = False
    """Whether to resume the run would end it in the same way."""

    def to_json(self) -> dict[str, Any]:
        """Return it as data for JSON."""
        return asdict(self)

    def goes_on(self, run_name: str) -> str:
        """Return the command that goes on with the run; empty where there is none."""
        if self.final:
            return ""
        larger = "" if self.enough is None else f" --{self.limit.replace('_', '-')} {self.enough:.15g}"
        first = "avo doctor && " if self.cause is Cause.FAILED else ""  # what the machine lacks fails the run again
        return f"{first}avo resume {run_name}{larger}"
