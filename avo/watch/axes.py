"""Axes: linear scales, round ticks, where a scale begins, and labels that do not overlap."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear map from values to positions, in pixels or in rows and columns."""

    low: float
    high: float
    start: float
    """The position at which ``low`` is drawn."""
    stop: float

    def __call__(self, value: float) -> float:
        """Return the position at which ``value`` is drawn."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)


def base(values: Iterable[float]) -> float:
    """Return where an axis of positive values begins: at zero, unless that would leave half of it or more empty."""
    lowest, highest = 0.0, 0.0
    for number, value in enumerate(values):
        lowest, highest = min(lowest, value) if number else value, max(highest, value)
    return lowest if lowest > highest / 2 else 0.0


def ticks(low: float, high: float, most: int) -> list[float]:
    """Return round numbers at equal distances of 1, 2 or 5 times a power of ten: at least two, at most ``most`` + 2.

    The first is at or below ``low``, the last at or above ``high``. A span of less than a hundredth of ``high`` is
    widened.
    """
    span = high - low
    if span < 0.01 * abs(high) or not span:
        span = 0.1 * abs(high) or 1.0
    exponent = math.floor(math.log10(span / most))
    steps = (factor * 10.0**power for power in (exponent, exponent + 1) for factor in (1, 2, 5))
    step = next(step for step in steps if span / step <= most)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [_round(count * step, step) for count in range(first, max(last, first + 1) + 1)]


def counts(last: int, most: int) -> list[int]:
    """Return round whole numbers from 0 to at most ``last``, at most ``most`` + 2 of them."""
    return [int(mark) for mark in ticks(0, max(last, 1), max(most, 1)) if mark == int(mark) and mark <= last]


def apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return positions for labels in ascending order, like ``wanted``: those with the least sum of squared distances
    from it.

    They are at least ``gap`` apart and lie between ``low`` and ``high``. There must be room: ``(len(wanted) - 1) * gap
    <= high - low``.
    """
    groups: list[list[float]] = []  # labels that touch, each without the gaps before it: they share their mean
    for index, place in enumerate(wanted):
        groups.append([place - index * gap])
        while len(groups) > 1 and fmean(groups[-2]) > fmean(groups[-1]):
            groups[-2:] = [groups[-2] + groups[-1]]
    last = high - (len(wanted) - 1) * gap
    shared = (min(max(fmean(group), low), last) for group in groups for _ in group)
    return [place + index * gap for index, place in enumerate(shared)]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle; ``top`` is less than ``bottom``."""

    left: float
    top: float
    right: float
    bottom: float

    def inside(self, other: "Box") -> bool:
        """Return whether no part of it leaves ``other``."""
        return self.left >= other.left and self.right <= other.right and self.top >= other.top and (
            self.bottom <= other.bottom
        )  # fmt: skip

    def meets(self, other: "Box") -> bool:
        """Return whether the two overlap."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def beside(
    marks: Sequence[tuple[float, float, float]], height: float, gap: tuple[float, float], frame: Box
) -> list[Box | None]:
    """Return a place for the label of each mark, to its upper left, lower right or upper right; None if none is free.

    ``marks`` are x, y and the width of the label, the most important first: later labels make room for earlier ones.
    ``gap`` is the distance to a mark, across and up or down; no label leaves ``frame`` or covers a mark.
    """
    across, along = gap
    covered = [Box(x - across / 2, y - height / 2, x + across / 2, y + height / 2) for x, y, _ in marks]
    placed: list[Box | None] = []
    for x, y, width in marks:
        above = Box(x - across - width, y - along - height, x - across, y - along)
        below = Box(x + across, y + along, x + across + width, y + along + height)
        after = Box(below.left, above.top, below.right, above.bottom)
        free = (
            box
            for box in (above, below, after)
            if box.inside(frame) and not any(box.meets(other) for other in (*covered, *placed) if other)
        )
        placed.append(next(free, None))
    return placed


def _round(value: float, step: float) -> float:
    return round(value, max(0, 1 - math.floor(math.log10(step))))
