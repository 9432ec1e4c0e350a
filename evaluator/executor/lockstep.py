"""Programs that execute together may wait for each other where each would go on by itself: other ways to run them."""

from collections.abc import Callable
from enum import Enum
from typing import TypeVar

from evaluator.executor.errors import StuckProgram

Found = TypeVar("Found")


class Pace(Enum):
    """How programs go through a loop that some pass more often than others, in the order in which it is tried."""

    START = "all begin it together"
    END = "all end it together: who has fewer passes begins later"
    ALONE = "one program at a time"


def unstuck(attempt: Callable[[Pace], Found], again: Callable[[], None]) -> Found:
    """Return the result of ``attempt`` at the first pace at which no program gets stuck.

    ``again`` undoes what an attempt did, before the next. Raises ``StuckProgram`` where a program does alone.
    """
    for pace in (Pace.START, Pace.END):
        try:
            return attempt(pace)
        except StuckProgram:
            again()
    return attempt(Pace.ALONE)
