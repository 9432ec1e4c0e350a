"""The activity of one step: what its worker is doing and how far it is, written down for displays."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from threading import Lock

from avo.evaluator.evaluators import Progress, Tell
from avo.lineage_db.records import Doing, Step
from avo.lineage_db.store import Store


class Activity:
    """Keeps the database told of what a step is doing; several threads may do something each."""

    def __init__(self, store: Store, step: Step, clock: Callable[[], datetime]) -> None:
        self._store, self._step, self._clock = store, step, clock
        self._doing: dict[object, Doing] = {}
        self._lock = Lock()

    @contextmanager
    def during(self, what: str) -> Iterator[Tell]:
        """Say that ``what`` is being done for as long as the context lasts; yield what tells how far it is."""
        key, began, host = object(), self._clock(), socket.gethostname()

        def tell(progress: Progress) -> None:
            self._set(key, Doing(what, began, progress.done, progress.of, progress.words, host))

        self._set(key, Doing(what, began, host=host))
        try:
            yield tell
        finally:
            self._set(key, None)

    def _set(self, key: object, doing: Doing | None) -> None:
        with self._lock:
            if doing is None:
                del self._doing[key]
            else:
                self._doing[key] = doing
            self._store.claims.tell(self._step.id, tuple(self._doing.values()), now=self._clock())
