"""The failures of a run, grouped by reason."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from evaluator.evaluation import Status
from lineage_db.records import AttemptSummary, Outcome

_FIGURES = re.compile(r"[\d.,]+")


@dataclass(frozen=True, slots=True)
class Failures:
    """Attempts that failed for the same reason."""

    status: Status
    message: str
    """The message of the first of them."""
    attempts: tuple[int, ...]
    """Their ids, oldest first."""


class Tally:
    """Groups attempts by verdict and reason as they come in, oldest first.

    Messages that differ only in their numbers count as the same reason.
    """

    def __init__(self) -> None:
        self._groups: dict[tuple[Status, str], tuple[str, list[int]]] = {}

    def add(self, attempts: Iterable[Outcome | AttemptSummary]) -> None:
        """Add more attempts."""
        for attempt in attempts:
            reason = attempt.status, _FIGURES.sub("", attempt.message)
            self._groups.setdefault(reason, (attempt.message, []))[1].append(attempt.attempt_id)

    def groups(self) -> list[Failures]:
        """Return the groups, correct attempts included, the largest first."""
        groups = [Failures(status, said, tuple(ids)) for (status, _), (said, ids) in self._groups.items()]
        return sorted(groups, key=lambda group: len(group.attempts), reverse=True)


def by_reason(attempts: Iterable[Outcome | AttemptSummary]) -> list[Failures]:
    """Return the failures among ``attempts``, the most frequent reason first."""
    tally = Tally()
    tally.add(attempt for attempt in attempts if attempt.status is not Status.CORRECT)
    return tally.groups()
