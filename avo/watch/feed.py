"""The event feed of a run: a thread reads events from the database and passes them to receivers."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from types import TracebackType
from typing import Protocol

from avo.lineage_db.errors import StoreError
from avo.lineage_db.store import Store
from avo.watch.digest import read_digest
from avo.watch.events import Event, EventReader, digest, failure
from avo.watch.follow import follow

_DAY = timedelta(days=1)


class Receiver(Protocol):
    """Takes events as they happen. It never raises and returns quickly."""

    def take(self, event: Event) -> None:
        """Take the next event."""
        ...


class Feed:
    """Passes what happens between entering and leaving the context to the receivers, each event once, and what happened
    in a day at the end of each.
    """

    def __init__(
        self,
        store: Store,
        run_name: str,
        receivers: Sequence[Receiver],
        clock: Callable[[], datetime],
        interval_s: float = 0.5,
    ) -> None:
        self._store = store
        self._run_name = run_name
        self._receivers = receivers
        self._clock = clock
        self._interval_s = interval_s
        self._reader = EventReader(run_name)
        self._day = clock()
        self._stop = Flag()
        self._thread = Thread(target=self._follow, name="feed", daemon=True)

    def __enter__(self) -> "Feed":
        if self._receivers:
            self._reader.skip(self._store, self._clock())
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._receivers:
            self._thread.join()

    def fail(self, reason: str) -> None:
        """Report that the run failed, which no database records."""
        self._give([failure(self._run_name, reason, self._clock())])

    def _follow(self) -> None:
        def read(store: Store, previous: list[Event] | None) -> list[Event]:
            now = self._clock()
            news = self._reader.read(store, now)
            if now >= self._day + _DAY:
                news.append(digest(read_digest(store, self._run_name, self._day, now)))
                self._day = now
            return news or (previous or [])

        follow(self._store.url, read, self._receive, self._stop, self._interval_s)

    def _receive(self, news: list[Event] | StoreError) -> None:
        if isinstance(news, list):
            self._give(news)

    def _give(self, events: Sequence[Event]) -> None:
        for event in events:
            for receiver in self._receivers:
                receiver.take(event)


class LogFile:
    """Appends each event to a file as a line of JSON.

    A file of ``most_bytes`` is renamed, with ``.1`` at its end in place of an earlier one, and a new one begun. If the
    file cannot be written, the user is warned once, and each later event is tried again.
    """

    def __init__(self, path: Path, say: Callable[[str], None], most_bytes: int = 64 * 2**20) -> None:
        self._path = path
        self._most_bytes = most_bytes
        self._say = say
        self._warned = False
        self._torn = False

    def take(self, event: Event) -> None:
        """Append ``event`` to the file."""
        line = json.dumps(event.to_json()) + "\n"
        with suppress(OSError):  # there is none yet, or it cannot be renamed and grows
            if self._path.lstat().st_size >= self._most_bytes:  # small for a link, and 0 for a device
                self._path.replace(f"{self._path}.1")
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\n" + line if self._torn else line)
            self._torn = False
        except OSError as error:
            self._torn = True
            if not self._warned:
                self._warned = True
                self._say(f"cannot write {self._path}: {error.strerror}: avo log {event.run} --json prints all events")
