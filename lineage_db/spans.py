"""Spans of time, such as those of steps."""

from collections.abc import Iterable
from datetime import datetime, timedelta


def covered(spans: Iterable[tuple[datetime, datetime]]) -> timedelta:
    """Return the length of the union of spans of time."""
    total = timedelta(0)
    reached: datetime | None = None
    for start, end in sorted(spans):
        if reached is None or end > reached:
            total += end - (start if reached is None else max(start, reached))
            reached = end
    return total
