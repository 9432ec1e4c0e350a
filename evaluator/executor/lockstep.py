"""Programs that execute together may wait for each other where each would go on by itself: other ways to run them."""

from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import TypeVar

from avo.evaluator.executor.errors import StuckProgram, UnsupportedOperation

Found = TypeVar("Found")


class Pace(Enum):
    """How programs that run together keep step in counted loops that some pass more often than others."""

    START = "all begin such a loop together"
    END = "all end it together: who has fewer passes begins later"
    ALONE = "none runs together with another"


def unstuck(attempt: Callable[[Pace], Found], undo: Callable[[], None]) -> Found:
    """Return the result of ``attempt`` at the first pace, in the order above, at which no program gets stuck.

    ``undo`` undoes what an attempt did, before the next. Raises ``StuckProgram`` where a program gets stuck alone.
    """
    with suppress(StuckProgram):
        return attempt(Pace.START)
    undo()
    with suppress(StuckProgram, UnsupportedOperation):  # what programs have in mid-loop may not be one value for all
        return attempt(Pace.END)
    undo()
    return attempt(Pace.ALONE)
