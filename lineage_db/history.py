"""What a store remembers of its runs, so that a question costs what is new and not what the run has."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from threading import Lock
from types import MappingProxyType
from typing import TypeVar, overload

from sqlalchemy import Connection

from avo.lineage_db import queries
from avo.lineage_db.decision import Ruling
from avo.lineage_db.entries import Spend
from avo.lineage_db.looked import Looked
from avo.lineage_db.records import AttemptSummary, History, Version
from avo.lineage_db.tables import calls

T = TypeVar("T")


class Grown(Sequence[T]):
    """A view of a list that only grows, as it is at this moment, without a copy."""

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
    """The versions, attempts, looks and total of model calls of each run. Rows are only added, in the order of their
    ids.
    """

    def __init__(self) -> None:
        self._versions: dict[int, tuple[Version, ...]] = {}
        self._attempts: dict[int, list[AttemptSummary]] = {}
        self._looks: dict[int, list[Looked]] = {}
        self._firsts: dict[int, dict[str, int]] = {}
        self._marked: dict[int, int] = {}
        self._waiting: dict[int, set[int]] = {}
        """Attempts that are acceptable as far as is known, by run."""
        self._unsubmitted: dict[int, set[int]] = {}
        """Attempts that were acceptable and not submitted, by run. A later step may submit them."""
        self._spent: dict[int, tuple[Spend, int]] = {}
        self._lock = Lock()

    def versions(self, connection: Connection, run_id: int) -> tuple[Version, ...]:
        """Return the run's versions, oldest first."""
        with self._lock:
            return self._read_versions(connection, run_id)

    def spend(self, connection: Connection, run_id: int) -> Spend:
        """Return the total of the run's model calls."""
        with self._lock:
            known, last = self._spent.get(run_id, (Spend(), 0))
            new, until = queries.spend(connection, (calls.c.run_id == run_id) & (calls.c.id > last))
            self._spent[run_id] = known + new, max(last, until)
            return known + new

    def read(self, connection: Connection, run_id: int) -> History:
        """Return the run's versions, attempts and looks."""
        with self._lock:
            versions = self._read_versions(connection, run_id)
            attempts = self._attempts.setdefault(run_id, [])
            new = queries.summaries_after(connection, run_id, attempts[-1].attempt_id if attempts else 0)
            attempts += new
            looks = self._read_looks(connection, run_id)
            firsts = self._firsts.setdefault(run_id, {})
            for attempt in new:
                if attempt.plan_digest is not None:
                    firsts.setdefault(attempt.plan_digest, attempt.attempt_id)
            # A summary that was read before its attempt was accepted does not know its version yet.
            for version in versions[self._marked.get(run_id, 0) :]:
                place = _place(attempts, version.attempt.id)
                words = {"whole_change": version.whole_change, "seen": version.seen}
                now = {"version": version.number, "decision": version.attempt.decision, **words}
                attempts[place] = replace(attempts[place], **now)  # type: ignore[arg-type]
            self._marked[run_id] = len(versions)
            # Nor does it know how an attempt ended that was not decided finally. Other decisions hardly ever change.
            waiting = self._waiting.setdefault(run_id, set())
            unsubmitted = self._unsubmitted.setdefault(run_id, set())
            changed = self._decide_again(connection, run_id, waiting, Ruling.ACCEPTABLE)
            for found, ruling in ((waiting, Ruling.ACCEPTABLE), (unsubmitted, Ruling.NOT_SUBMITTED)):
                found |= {each.attempt_id for each in new if each.ruling is ruling}
            unsubmitted |= {each for each in changed if attempts[_place(attempts, each)].ruling is Ruling.NOT_SUBMITTED}
            if queries.count_unsubmitted(connection, run_id) != len(unsubmitted):
                self._decide_again(connection, run_id, unsubmitted, Ruling.NOT_SUBMITTED)
            return History(versions, Grown(attempts), Grown(looks), MappingProxyType(firsts))

    def _decide_again(self, connection: Connection, run_id: int, ids: set[int], ruling: Ruling) -> list[int]:
        """Read the decisions on some attempts again. Return those that have another ruling by now, and take them from
        ``ids``.
        """
        attempts, changed = self._attempts[run_id], []
        for attempt_id, decision in queries.decisions(connection, run_id, ids).items():
            place = _place(attempts, attempt_id)
            attempts[place] = replace(attempts[place], decision=decision)
            if decision.ruling is not ruling:
                changed.append(attempt_id)
        ids.difference_update(changed)
        return changed

    def looks(self, connection: Connection, run_id: int) -> Sequence[Looked]:
        """Return the run's looks, oldest first."""
        with self._lock:
            return Grown(self._read_looks(connection, run_id))

    def _read_looks(self, connection: Connection, run_id: int) -> list[Looked]:
        known = self._looks.setdefault(run_id, [])
        known += queries.looks_after(connection, run_id, known[-1].look_id if known else 0)
        return known

    def _read_versions(self, connection: Connection, run_id: int) -> tuple[Version, ...]:
        known = self._versions.get(run_id, ())
        new = queries.versions(connection, run_id, len(known))
        if new:
            known = self._versions[run_id] = (*known, *new)
        return known


def _place(attempts: Sequence[AttemptSummary], attempt_id: int) -> int:
    return bisect_left(attempts, attempt_id, key=lambda attempt: attempt.attempt_id)
