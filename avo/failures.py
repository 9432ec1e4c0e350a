"""Failures of a run by reason."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from evaluator.evaluation import Status
from lineage_db.records import Trial

_FIGURES = re.compile(r"[\d.,]+")


@dataclass(frozen=True, slots=True)
class Failures:
    """Attempts that failed for one reason."""

    status: Status
    message: str
    """Of the first of them."""
    attempts: tuple[int, ...]
    """Their ids, oldest first."""


def by_reason(trials: Iterable[Trial]) -> list[Failures]:
    """Return the failures among ``trials``, the most frequent reason first.

    Those whose messages differ in figures only have one reason.
    """
    reasons: dict[tuple[Status, str], list[Trial]] = defaultdict(list)
    for trial in trials:
        if trial.status is not Status.CORRECT:
            reasons[trial.status, _FIGURES.sub("", trial.message)].append(trial)
    groups = sorted(reasons.values(), key=len, reverse=True)
    return [Failures(g[0].status, g[0].message, tuple(trial.attempt_id for trial in g)) for g in groups]
