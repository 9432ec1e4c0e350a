"""What a store remembers of its runs, so that a worker's next brief costs what is new and not what the run has."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from threading import Lock
from typing import TypeVar, overload

from sqlalchemy import Connection

from lineage_db import queries
from lineage_db.records import History, Trial, Version

T = TypeVar("T")


class Grown(Sequence[T]):
    """What a list that only grows has at this moment, without a copy."""

    def __init__(self, whole: list[T]) -> None:
        self._whole = whole
        self._length = len(whole)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[T]:
        return islice(self._whole, self._length)

    @overload
    def __getitem__(self, key: int) -> T: ...

    @overload
    def __getitem__(self, key: slice) -> Sequence[T]: ...

    def __getitem__(self, key: int | slice) -> T | Sequence[T]:
        places = range(self._length)[key]
        return self._whole[places] if isinstance(places, int) else [self._whole[place] for place in places]


class Histories:
    """Versions and trials by run. Both are only ever added, in the order of their numbers and ids."""

    def __init__(self) -> None:
        self._versions: dict[int, tuple[Version, ...]] = {}
        self._trials: dict[int, list[Trial]] = {}
        self._marked: dict[int, int] = {}
        self._lock = Lock()

    def versions(self, connection: Connection, run_id: int) -> tuple[Version, ...]:
        """Return the run's versions, oldest first."""
        with self._lock:
            return self._read_versions(connection, run_id)

    def read(self, connection: Connection, run_id: int) -> History:
        """Return the run's versions and trials."""
        with self._lock:
            versions = self._read_versions(connection, run_id)
            trials = self._trials.setdefault(run_id, [])
            new = queries.trials(connection, run_id, trials[-1].attempt_id if trials else 0)
            trials += new
            # A trial that was read before its attempt was accepted does not know its version yet.
            for version in versions[self._marked.get(run_id, 0) :]:
                place = bisect_left(trials, version.attempt.id, key=lambda trial: trial.attempt_id)
                trials[place] = replace(trials[place], version=version.number)
            self._marked[run_id] = len(versions)
            return History(versions, Grown(trials))

    def _read_versions(self, connection: Connection, run_id: int) -> tuple[Version, ...]:
        known = self._versions.get(run_id, ())
        new = queries.versions(connection, run_id, len(known))
        if new:
            known = self._versions[run_id] = (*known, *new)
        return known
