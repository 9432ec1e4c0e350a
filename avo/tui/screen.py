"""A screen with a thread that polls the database and posts a message for each change."""

from collections.abc import Callable
from threading import Event
from typing import Generic, TypeVar

from textual.message import Message
from textual.screen import Screen

from avo.lineage_db.errors import StoreError
from avo.lineage_db.store import Store
from avo.watch.follow import follow

T = TypeVar("T")

IDLE = 5
"""The longest pause between two readings, as a multiple of the shortest."""


class FeedScreen(Screen[None], Generic[T]):
    """A screen that shows what ``read`` returns, and gets a message when that changes."""

    class News(Message):
        """What was read from the database, or the error."""

        def __init__(self, value: object) -> None:
            super().__init__()
            self.value = value

    def __init__(
        self, store_url: str, read: Callable[[Store, T | None], T], poll_s: float, *, wake: Event | None = None
    ) -> None:
        """Call ``read`` every ``poll_s`` seconds, less often while nothing changes, at once when ``wake`` is set."""
        super().__init__()
        self._store_url = store_url
        self._read = read
        self._poll_s = poll_s
        self._stop = Event()
        self._wake = wake or Event()

    def on_mount(self) -> None:
        """Start the thread."""
        self.run_worker(self._follow, thread=True)

    def on_unmount(self) -> None:
        """Stop the thread."""
        self._stop.set()
        self._wake.set()

    def _follow(self) -> None:
        follow(
            self._store_url,
            self._read,
            self._post,
            self._stop,
            self._poll_s,
            idle_s=IDLE * self._poll_s,
            wake=self._wake,
        )

    def _post(self, news: T | StoreError) -> None:
        self.post_message(self.News(news))
