"""Failures of a run by reason."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from evaluator.evaluation import Status

_FIGURES = re.compile(r"[\d.,]+")


@dataclass(frozen=True, slots=True)
class Failures:
    """Attempts that ended alike, for one reason."""

    status: Status
    message: str
    """Of the first of them."""
    attempts: tuple[int, ...]
    """Their ids, oldest first."""


class Judged(Protocol):
    """What is to be known of an attempt."""

    @property
    def attempt_id(self) -> int: ...
    @property
    def status(self) -> Status: ...
    @property
    def message(self) -> str: ...


class Tally:
    """Attempts by verdict and reason, counted as they come in, oldest first.

    Those whose messages differ in figures only have one reason.
    """

    def __init__(self) -> None:
        self._groups: dict[tuple[Status, str], tuple[str, list[int]]] = {}

    def add(self, attempts: Iterable[Judged]) -> None:
        """Count more of them."""
        for attempt in attempts:
            reason = attempt.status, _FIGURES.sub("", attempt.message)
            self._groups.setdefault(reason, (attempt.message, []))[1].append(attempt.attempt_id)

    def groups(self) -> list[Failures]:
        """Return the groups of equal verdict and reason, right ones included, the largest first."""
        groups = [Failures(status, said, tuple(ids)) for (status, _), (said, ids) in self._groups.items()]
        return sorted(groups, key=lambda group: len(group.attempts), reverse=True)


def by_reason(attempts: Iterable[Judged]) -> list[Failures]:
    """Return the failures among ``attempts``, the most frequent reason first."""
    tally = Tally()
    tally.add(attempt for attempt in attempts if attempt.status is not Status.CORRECT)
    return tally.groups()
