"""The failures of a run, grouped by reason."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from avo.evaluator.evaluation import Status
from avo.lineage_db.records import AttemptSummary, Outcome
from avo.watch.wording import first_line, percent

MOST_REASONS = 3
"""Most reasons that are told of one idea."""
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


@dataclass(frozen=True, slots=True)
class Reason:
    """Why attempts are no versions."""

    count: int
    words: str
    """What was said of the first of them; for refusals that came with a gain, the ruling and the range of the gains."""


def reasons(attempts: Iterable[AttemptSummary]) -> tuple[Reason, ...]:
    """Return why those of the attempts that are no versions are none, the ``MOST_REASONS`` most frequent first.

    Words that differ only in their numbers count as the same reason.
    """
    found: dict[str, list[tuple[str, float | None]]] = {}
    for attempt in attempts:
        decision = attempt.decision
        if attempt.status is not Status.CORRECT:
            words, gain = f"{attempt.status.words}: {first_line(attempt.message)}", None
        elif decision and decision.refused:
            words, gain = decision.told, decision.gain
            words = words if gain is None else decision.ruling.value.replace("_", " ")
        else:
            continue
        found.setdefault(_FIGURES.sub("", words), []).append((words, gain))
    frequent = sorted(found.values(), key=len, reverse=True)[:MOST_REASONS]
    return tuple(
        Reason(len(its), _ranged(its[0][0], [gain for _, gain in its if gain is not None])) for its in frequent
    )


def _ranged(words: str, gains: Sequence[float]) -> str:
    if not gains:
        return words
    low, high = percent(min(gains)), percent(max(gains))
    return f"{words}, {low}" if low == high else f"{words}, {low} to {high}"


def by_reason(attempts: Iterable[Outcome | AttemptSummary]) -> list[Failures]:
    """Return the failures among ``attempts``, the most frequent reason first."""
    tally = Tally()
    tally.add(attempt for attempt in attempts if attempt.status is not Status.CORRECT)
    return tally.groups()
