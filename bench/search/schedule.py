"""Which run is next, how many attempts it may make, and about how long the missing ones take."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import product
from statistics import fmean, median_low

from bench.search.runs import ATTEMPTS, LEVELS, OPERATORS, SEEDS, Place, Record

TIMES = 3
"""A tuner may make so many times the attempts that ``mutate`` takes: who has not arrived by then takes more."""

Found = Mapping[Place, Record]


def places(
    problems: Sequence[str], targets: Sequence[str], operators: Sequence[str], seeds: int, gluon: bool = False
) -> list[Place]:
    """Return the runs in their order: every operator has a run of each problem and target before any has two.

    ``mutate`` is first, as what it takes says what a tuner is allowed. Further runs of random search come last: they
    matter least.
    """

    def order(place: Place) -> tuple[bool, int, int]:
        return place.operator == "random" and place.seed > 0, place.seed, OPERATORS.index(place.operator)

    every = product(problems, targets, operators, SEEDS[:seeds])
    return sorted((Place(*each, gluon) for each in every), key=order)


def allowed(place: Place, found: Found) -> int | None:
    """Return how many attempts a run may make; None while the run of ``mutate`` with the same seed is missing.

    For a tuner that is ``TIMES`` the median of what ``mutate`` took to the last level, where that is less.
    """
    if place.operator == "mutate":
        return ATTEMPTS
    paired = replace(place, operator="mutate")
    if paired not in found:
        return None
    made = [found[each] for seed in SEEDS if (each := replace(paired, seed=seed)) in found]
    ends = [record.reached(LEVELS[-1]) for record in made]
    took = median_low([ATTEMPTS if end is None else end.attempts for end in ends])
    return min(ATTEMPTS, TIMES * max(1, took))


def missing(place: Place, found: Found) -> bool:
    """Whether a run is to be made, or made again because it may go on for longer than its record does."""
    most, record = allowed(place, found), found.get(place)
    if most is None or record is None or record.reached(LEVELS[-1]):
        return record is None
    return record.allowed <= record.points[-1].attempts < most


def next_run(wanted: Sequence[Place], found: Found, leave: Collection[Place]) -> tuple[Place, int] | None:
    """Return the first run that can be made now and the attempts that it may make, but none of those to ``leave``."""
    for place in wanted:
        if place not in leave and missing(place, found) and (most := allowed(place, found)) is not None:
            return place, most
    return None


def time_left(
    wanted: Sequence[Place], found: Found, took: Sequence[tuple[Place, float]], processes: int
) -> float | None:
    """Return about how many seconds the missing runs take, by what runs of the same operator ``took``.

    None where nothing is known yet.
    """
    if not took:
        return None
    of: dict[str, list[float]] = defaultdict(list)
    for place, seconds in took:
        of[place.operator].append(seconds)
    every = [seconds for _, seconds in took]
    return sum(fmean(of.get(place.operator, every)) for place in wanted if missing(place, found)) / processes
