"""What each attempt was edited from, and how fast that was: an edit is judged by the kernel that it was made to."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from avo.lineage_db.records import Attempt, AttemptSummary, Version


@dataclass(frozen=True, slots=True)
class Base:
    """The kernel that an attempt was edited from."""

    name: str
    """``version 3`` or ``attempt 41``."""
    tflops: float


class Descent:
    """The attempts and versions of a run by what they were edited from."""

    def __init__(self, versions: Sequence[Version], attempts: Iterable[AttemptSummary] = ()) -> None:
        """``versions`` and ``attempts`` are those that are known: others count as missing."""
        self._bases: dict[int, Base] = {}
        """By an attempt's id: what an edit of it is compared with. A faulty attempt hands on its own base."""
        self._versions = {
            version.number: Base(f"version {version.number}", version.attempt.evaluation.own_tflops)
            for version in versions
        }
        for attempt in attempts:
            if attempt.version is not None:
                self._versions.setdefault(attempt.version, Base(f"version {attempt.version}", attempt.geomean_tflops))
                self._bases[attempt.attempt_id] = self._versions[attempt.version]
            else:
                self._add(attempt.attempt_id, attempt.geomean_tflops, attempt.built_on, attempt.parents)

    def add(self, attempt: Attempt) -> None:
        """Add an attempt that was just made."""
        self._add(attempt.id, attempt.evaluation.geomean_tflops, attempt.built_on, attempt.parents)

    def base(self, of: Attempt | AttemptSummary) -> Base | None:
        """Return what an attempt was edited from: the attempt that it was built on, or the nearest before that with a
        speed; else the fastest of its parents. None where none of these is known.
        """
        return self._base(of.built_on, of.parents)

    def parent(self, parents: Sequence[int]) -> Base | None:
        """Return the fastest of the versions with these numbers; None where none is known."""
        return self._base(None, parents)

    def _add(self, number: int, tflops: float, built_on: int | None, parents: Sequence[int]) -> None:
        base = Base(f"attempt {number}", tflops) if tflops else self._base(built_on, parents)
        if base is not None:
            self._bases.setdefault(number, base)

    def _base(self, built_on: int | None, parents: Sequence[int]) -> Base | None:
        if built_on in self._bases:
            return self._bases[built_on]
        known = [self._versions[number] for number in parents if number in self._versions]
        return max(known, key=lambda base: base.tflops, default=None)
